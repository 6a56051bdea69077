/* The tables of the families; see family.h. */
#include "pipeline/model/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Widths that modules are made of. */
typedef enum width {
    HIDDEN,
    QUERIES,  /* all query heads, one after the other */
    KEYS,     /* all key heads */
    VALUES,   /* all value heads, as keys have them */
    ATTENDED, /* what attention makes: a value head per query head */
    QUERIES_KEYS_VALUES,
    INTERMEDIATE,
    GATE_AND_UP,
    QUERY_LATENT,
    KEY_LATENT,            /* of keys and values */
    KEY_LATENT_AND_TURNED, /* the same with the part of keys that turns */
    KEYS_AND_VALUES,       /* of all heads: the part of the key that does not turn, the value */
    WIDTHS
} width;

/* A module. `unit`: it begins a unit; step: it begins a step, called so. */
typedef struct module_row {
    const char *name;
    width rows, columns;
    bool unit;
    const char *step; /* or NULL */
    snrq_step_kind kind;
} module_row;

static const module_row attention[] = {
    {"self_attn.q_proj", QUERIES, HIDDEN, true, "q,k,v", SNRQ_STEP_ATTENTION},
    {"self_attn.k_proj", KEYS, HIDDEN, false, NULL, 0},
    {"self_attn.v_proj", VALUES, HIDDEN, false, NULL, 0},
    {"self_attn.o_proj", HIDDEN, ATTENDED, true, "o", SNRQ_STEP_ATTENTION_OUT},
};

/* Phi-3 */
static const module_row fused_attention[] = {
    {"self_attn.qkv_proj", QUERIES_KEYS_VALUES, HIDDEN, true, "qkv", SNRQ_STEP_ATTENTION},
    {"self_attn.o_proj", HIDDEN, ATTENDED, true, "o", SNRQ_STEP_ATTENTION_OUT},
};

/* DeepSeek */
static const module_row latent_attention[] = {
    {"self_attn.q_a_proj", QUERY_LATENT, HIDDEN, true, "q_a,kv_a", SNRQ_STEP_LATENTS},
    {"self_attn.kv_a_proj_with_mqa", KEY_LATENT_AND_TURNED, HIDDEN, false, NULL, 0},
    {"self_attn.q_b_proj", QUERIES, QUERY_LATENT, true, "q_b,kv_b", SNRQ_STEP_LATENT_ATTENTION},
    {"self_attn.kv_b_proj", KEYS_AND_VALUES, KEY_LATENT, true, NULL, 0},
    {"self_attn.o_proj", HIDDEN, ATTENDED, true, "o", SNRQ_STEP_ATTENTION_OUT},
};

/* The same without a latent vector of the queries, which the first step makes as they are. */
static const module_row half_latent_attention[] = {
    {"self_attn.q_proj", QUERIES, HIDDEN, true, "q,kv_a", SNRQ_STEP_LATENTS},
    {"self_attn.kv_a_proj_with_mqa", KEY_LATENT_AND_TURNED, HIDDEN, false, NULL, 0},
    {"self_attn.kv_b_proj", KEYS_AND_VALUES, KEY_LATENT, true, "kv_b", SNRQ_STEP_LATENT_ATTENTION},
    {"self_attn.o_proj", HIDDEN, ATTENDED, true, "o", SNRQ_STEP_ATTENTION_OUT},
};

static const module_row mlp[] = {
    {"mlp.gate_proj", INTERMEDIATE, HIDDEN, true, "gate,up", SNRQ_STEP_GATED_ACTIVATION},
    {"mlp.up_proj", INTERMEDIATE, HIDDEN, false, NULL, 0},
    {"mlp.down_proj", HIDDEN, INTERMEDIATE, true, "down", SNRQ_STEP_MLP_OUT},
};

/* Phi-3 */
static const module_row fused_mlp[] = {
    {"mlp.gate_up_proj", GATE_AND_UP, HIDDEN, true, "gate_up", SNRQ_STEP_GATED_ACTIVATION},
    {"mlp.down_proj", HIDDEN, INTERMEDIATE, true, "down", SNRQ_STEP_MLP_OUT},
};

enum { MOST_ATTENTION = 5, MLP_MODULES = 3 };

static void add_step(snrq_family *f, const char *name, snrq_step_kind kind)
{
    f->step[f->steps++] = (snrq_step){name, kind, f->units, f->units};
}

static void add_unit(snrq_family *f, int expert, double share)
{
    f->unit[f->units++] = (snrq_unit_shape){.step = f->steps - 1,
                                            .first = f->modules,
                                            .end = f->modules,
                                            .expert = expert,
                                            .share = share};
    f->part[f->parts] = (snrq_part_shape){f->units - 1, f->modules, f->modules, 0, 0};
    f->parts++;
    f->step[f->steps - 1].end++;
}

static void add_module(snrq_family *f, const char *name, int64_t rows, int64_t columns)
{
    snrq_unit_shape *unit = &f->unit[f->units - 1];
    snrq_part_shape *part = &f->part[f->parts - 1];
    snrq_module_shape *module = &f->module[f->modules++];
    *module = (snrq_module_shape){.rows = rows,
                                  .columns = columns,
                                  .unit = f->units - 1,
                                  .part = f->parts - 1,
                                  .row = unit->rows,
                                  .part_row = unit->rows};
    snprintf(module->name, sizeof module->name, "%s", name);
    unit->end++;
    part->end++;
    part->rows += rows;
    part->columns = columns;
    unit->rows += rows;
    unit->columns = columns;
    if (unit->rows > f->max_rows) f->max_rows = unit->rows;
    if (unit->columns > f->max_columns) f->max_columns = unit->columns;
}

static void add_rows(const snrq_config *c, const module_row *rows, size_t count, snrq_family *f)
{
    const int64_t queries = c->heads * c->head_dim, keys = c->kv_heads * c->head_dim;
    const int64_t values = c->kv_heads * c->value_dim;
    const int64_t widths[WIDTHS] = {[HIDDEN] = c->hidden,
                                    [QUERIES] = queries,
                                    [KEYS] = keys,
                                    [VALUES] = values,
                                    [ATTENDED] = c->heads * c->value_dim,
                                    [QUERIES_KEYS_VALUES] = queries + keys + values,
                                    [INTERMEDIATE] = c->intermediate,
                                    [GATE_AND_UP] = 2 * c->intermediate,
                                    [QUERY_LATENT] = c->latent.queries,
                                    [KEY_LATENT] = c->latent.keys,
                                    [KEY_LATENT_AND_TURNED] = c->latent.keys + c->latent.turned,
                                    [KEYS_AND_VALUES] =
                                        c->heads * (c->latent.unturned + c->value_dim)};
    for (size_t m = 0; m < count; m++) {
        if (rows[m].step != NULL) add_step(f, rows[m].step, rows[m].kind);
        if (rows[m].unit) add_unit(f, -1, 1.0);
        add_module(f, rows[m].name, widths[rows[m].rows], widths[rows[m].columns]);
    }
}

#define ROWS(rows) rows, sizeof rows / sizeof rows[0]

static void add_attention(const snrq_config *c, snrq_family *f)
{
    if (c->latent.queries > 0)
        add_rows(c, ROWS(latent_attention), f);
    else if (c->latent.keys > 0)
        add_rows(c, ROWS(half_latent_attention), f);
    else if (c->fused)
        add_rows(c, ROWS(fused_attention), f);
    else
        add_rows(c, ROWS(attention), f);
    if (c->latent.keys > 0)
        f->carried = c->latent.turned + (c->latent.queries > 0 ? 0 : c->heads * c->head_dim);
}

/* A module of an expert; of the one that sees all, expert is as many as there are. */
static void add_expert_module(const snrq_config *c, int expert, const char *name, int64_t rows,
                              int64_t columns, snrq_family *f)
{
    static const char *const mixtral[] = {"w1", "w3", "w2"}; /* gate, up, down */
    char full[SNRQ_MODULE_NAME];
    if (expert == (int)c->experts.count)
        snprintf(full, sizeof full, "mlp.shared_experts.%s_proj", name);
    else if (c->experts.mixtral_names)
        snprintf(full, sizeof full, "block_sparse_moe.experts.%d.%s", expert,
                 mixtral[name[0] == 'g'   ? 0
                         : name[0] == 'u' ? 1
                                          : 2]);
    else
        snprintf(full, sizeof full, "mlp.experts.%d.%s_proj", expert, name);
    add_module(f, full, rows, columns);
}

static void add_experts(const snrq_config *c, snrq_family *f)
{
    const snrq_experts_config *e = &c->experts;
    f->experts = (int)e->count;
    f->everyone = e->shared > 0;
    for (int part = 0; part < 2; part++) {
        if (part == 0)
            add_step(f, "gate,up", SNRQ_STEP_EXPERTS_ACTIVATION);
        else
            add_step(f, "down", SNRQ_STEP_EXPERTS_OUT);
        for (int i = 0; i < f->experts + f->everyone; i++) {
            int64_t wide = i < f->experts ? e->intermediate : e->shared;
            if (i < f->experts)
                add_unit(f, i, (double)e->chosen / (double)e->count);
            else
                add_unit(f, -1, 1.0);
            if (part == 0) {
                add_expert_module(c, i, "gate", wide, c->hidden, f);
                add_expert_module(c, i, "up", wide, c->hidden, f);
            } else
                add_expert_module(c, i, "down", c->hidden, wide, f);
        }
    }
}

static void add_vector(snrq_family *f, int vector, const char *name, const char *end, int64_t count)
{
    snprintf(f->vector[vector].name, sizeof f->vector[vector].name, "%s%s", name, end);
    f->vector[vector].count = count;
}

static void add_block_norms(const snrq_config *c, snrq_family *f)
{
    static const char weight[] = ".weight";
    if (c->norms != SNRQ_NORMS_AFTER)
        add_vector(f, SNRQ_ATTENTION_NORM, "input_layernorm", weight, c->hidden);
    if (c->norms == SNRQ_NORMS_BEFORE) {
        add_vector(f, SNRQ_MLP_NORM, "post_attention_layernorm", weight, c->hidden);
        return;
    }
    if (c->norms == SNRQ_NORMS_AROUND)
        add_vector(f, SNRQ_MLP_NORM, "pre_feedforward_layernorm", weight, c->hidden);
    add_vector(f, SNRQ_AFTER_ATTENTION_NORM, "post_attention_layernorm", weight, c->hidden);
    add_vector(f, SNRQ_AFTER_MLP_NORM, "post_feedforward_layernorm", weight, c->hidden);
}

static void add_router(const snrq_config *c, snrq_family *f)
{
    const char *name = c->experts.mixtral_names ? "block_sparse_moe.gate" : "mlp.gate";
    add_vector(f, SNRQ_ROUTER, name, ".weight", f->experts * c->hidden);
    f->vector[SNRQ_ROUTER].columns = c->hidden;
    if (c->experts.biased)
        add_vector(f, SNRQ_ROUTER_BIAS, name, ".e_score_correction_bias", f->experts);
}

static bool starts_with(const char *name, const char *start)
{
    return strncmp(name, start, strlen(start)) == 0;
}

static bool has_bias(const snrq_config *c, const char *name)
{
    if (starts_with(name, "self_attn.o_")) return c->output_bias;
    if (!starts_with(name, "self_attn.")) return c->mlp_bias && c->experts.count == 0;
    /* What makes heads of latent vectors has none. */
    return c->attention_bias && (c->latent.keys == 0 || starts_with(name, "self_attn.q_a_") ||
                                 starts_with(name, "self_attn.kv_a_"));
}

static void add_vectors(const snrq_config *c, snrq_family *f)
{
    bool all = c->head_norms == SNRQ_NORM_OF_ALL_HEADS;
    add_block_norms(c, f);
    if (c->head_norms != SNRQ_NO_HEAD_NORM) {
        add_vector(f, SNRQ_QUERY_NORM, "self_attn.q_norm", ".weight",
                   (all ? c->heads : 1) * c->head_dim);
        add_vector(f, SNRQ_KEY_NORM, "self_attn.k_norm", ".weight",
                   (all ? c->kv_heads : 1) * c->head_dim);
    }
    if (c->latent.queries > 0)
        add_vector(f, SNRQ_QUERY_LATENT_NORM, "self_attn.q_a_layernorm", ".weight",
                   c->latent.queries);
    if (c->latent.keys > 0)
        add_vector(f, SNRQ_KEY_LATENT_NORM, "self_attn.kv_a_layernorm", ".weight", c->latent.keys);
    if (f->experts > 0) add_router(c, f);
    for (int m = 0; m < f->modules; m++) {
        const snrq_module_shape *s = &f->module[m];
        if (has_bias(c, s->name)) add_vector(f, SNRQ_BIAS + m, s->name, ".bias", s->rows);
    }
}

snrq_status snrq_family_create(const snrq_config *c, bool experts, snrq_family *f)
{
    size_t parts = experts ? (size_t)c->experts.count + 1 : 1;
    size_t modules = MOST_ATTENTION + MLP_MODULES * parts;
    *f = (snrq_family){.vectors = SNRQ_BIAS + (int)modules};
    snrq_status status = snrq_allocate(modules, sizeof *f->module, "modules", &f->module);
    if (status == SNRQ_OK) status = snrq_allocate(modules, sizeof *f->unit, "units", &f->unit);
    if (status == SNRQ_OK) status = snrq_allocate(modules, sizeof *f->part, "parts", &f->part);
    if (status == SNRQ_OK) status = snrq_allocate(modules, sizeof *f->step, "steps", &f->step);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->vectors, sizeof *f->vector, "vectors", &f->vector);
    if (status != SNRQ_OK) {
        snrq_family_free(f);
        return status;
    }
    add_attention(c, f);
    if (experts)
        add_experts(c, f);
    else if (c->fused)
        add_rows(c, ROWS(fused_mlp), f);
    else
        add_rows(c, ROWS(mlp), f);
    f->vectors = SNRQ_BIAS + f->modules;
    add_vectors(c, f);
    f->normed_outputs = c->norms != SNRQ_NORMS_BEFORE;
    return SNRQ_OK;
}

void snrq_family_cut(snrq_family *f, int module)
{
    const int p = f->module[module].part;
    snrq_part_shape *part = &f->part[p];
    if (module == part->first) return;
    memmove(part + 1, part, (size_t)(f->parts - p) * sizeof *part);
    f->parts++;
    part[0].end = part[1].first = module;
    part[0].rows = part[1].rows = 0;
    for (int m = part[0].first; m < f->modules; m++) {
        snrq_module_shape *s = &f->module[m];
        if (m >= module) s->part++;
        if (s->part > p + 1) continue;
        s->part_row = f->part[s->part].rows;
        f->part[s->part].rows += s->rows;
    }
}

void snrq_family_free(snrq_family *f)
{
    free(f->module);
    free(f->unit);
    free(f->part);
    free(f->step);
    free(f->vector);
    *f = (snrq_family){0};
}

bool snrq_unit_writes_residual(const snrq_family *f, int unit)
{
    snrq_step_kind kind = f->step[f->unit[unit].step].kind;
    return !f->normed_outputs && (kind == SNRQ_STEP_ATTENTION_OUT || kind == SNRQ_STEP_MLP_OUT);
}

bool snrq_step_is_routed(const snrq_family *f, int step)
{
    return f->step[step].kind == SNRQ_STEP_EXPERTS_ACTIVATION ||
           f->step[step].kind == SNRQ_STEP_EXPERTS_OUT;
}

void snrq_step_modules(const snrq_family *f, int step, int *first, int *end)
{
    *first = f->unit[f->step[step].first].first;
    *end = f->unit[f->step[step].end - 1].end;
}
