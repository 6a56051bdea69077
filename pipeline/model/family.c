/* The tables of the families; see family.h. */
#include "pipeline/model/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Widths that modules are made of. */
typedef enum width {
    HIDDEN,
    QUERIES, /* all query heads, one after the other */
    KEYS,    /* all key heads, or all value heads */
    QUERIES_KEYS_VALUES,
    INTERMEDIATE,
    GATE_AND_UP,
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

/* Llama, Mistral, Qwen3 */
static const module_row separate[] = {
    {"self_attn.q_proj", QUERIES, HIDDEN, true, "q,k,v", SNRQ_STEP_ATTENTION},
    {"self_attn.k_proj", KEYS, HIDDEN, false, NULL, 0},
    {"self_attn.v_proj", KEYS, HIDDEN, false, NULL, 0},
    {"self_attn.o_proj", HIDDEN, QUERIES, true, "o", SNRQ_STEP_ATTENTION_OUT},
    {"mlp.gate_proj", INTERMEDIATE, HIDDEN, true, "gate,up", SNRQ_STEP_GATED_ACTIVATION},
    {"mlp.up_proj", INTERMEDIATE, HIDDEN, false, NULL, 0},
    {"mlp.down_proj", HIDDEN, INTERMEDIATE, true, "down", SNRQ_STEP_MLP_OUT},
};

/* Phi-3 */
static const module_row fused[] = {
    {"self_attn.qkv_proj", QUERIES_KEYS_VALUES, HIDDEN, true, "qkv", SNRQ_STEP_ATTENTION},
    {"self_attn.o_proj", HIDDEN, QUERIES, true, "o", SNRQ_STEP_ATTENTION_OUT},
    {"mlp.gate_up_proj", GATE_AND_UP, HIDDEN, true, "gate_up", SNRQ_STEP_GATED_ACTIVATION},
    {"mlp.down_proj", HIDDEN, INTERMEDIATE, true, "down", SNRQ_STEP_MLP_OUT},
};

static void add_module(const int64_t *widths, const module_row *row, snrq_family *f)
{
    if (row->step != NULL)
        f->step[f->steps++] = (snrq_step){row->step, row->kind, f->units, f->units};
    if (row->unit) {
        f->unit[f->units++] =
            (snrq_unit_shape){.step = f->steps - 1, .first = f->modules, .end = f->modules};
        f->step[f->steps - 1].end++;
    }
    snrq_unit_shape *unit = &f->unit[f->units - 1];
    f->module[f->modules++] = (snrq_module_shape){.name = row->name,
                                                  .rows = widths[row->rows],
                                                  .columns = widths[row->columns],
                                                  .unit = f->units - 1,
                                                  .row = unit->rows};
    unit->end++;
    unit->rows += widths[row->rows];
    unit->columns = widths[row->columns];
    if (unit->rows > f->max_rows) f->max_rows = unit->rows;
    if (unit->columns > f->max_columns) f->max_columns = unit->columns;
}

static void add_modules(const snrq_config *c, const module_row *rows, int count, snrq_family *f)
{
    const int64_t queries = c->heads * c->head_dim, keys = c->kv_heads * c->head_dim;
    const int64_t widths[WIDTHS] = {[HIDDEN] = c->hidden,
                                    [QUERIES] = queries,
                                    [KEYS] = keys,
                                    [QUERIES_KEYS_VALUES] = queries + 2 * keys,
                                    [INTERMEDIATE] = c->intermediate,
                                    [GATE_AND_UP] = 2 * c->intermediate};
    for (int m = 0; m < count; m++) add_module(widths, &rows[m], f);
}

static void add_vector(snrq_family *f, int vector, const char *name, const char *end, int64_t count)
{
    snprintf(f->vector[vector].name, sizeof f->vector[vector].name, "%s%s", name, end);
    f->vector[vector].count = count;
}

static void add_vectors(const snrq_config *c, snrq_family *f)
{
    add_vector(f, SNRQ_ATTENTION_NORM, "input_layernorm", ".weight", c->hidden);
    add_vector(f, SNRQ_MLP_NORM, "post_attention_layernorm", ".weight", c->hidden);
    if (c->head_norms) {
        add_vector(f, SNRQ_QUERY_NORM, "self_attn.q_norm", ".weight", c->head_dim);
        add_vector(f, SNRQ_KEY_NORM, "self_attn.k_norm", ".weight", c->head_dim);
    }
    for (int m = 0; m < f->modules; m++) {
        const snrq_module_shape *s = &f->module[m];
        if (strncmp(s->name, "self_attn.", 10) == 0 ? c->attention_bias : c->mlp_bias)
            add_vector(f, SNRQ_BIAS + m, s->name, ".bias", s->rows);
    }
}

snrq_status snrq_family_create(const snrq_config *c, snrq_family *f)
{
    const module_row *rows = c->fused ? fused : separate;
    size_t count = c->fused ? sizeof fused / sizeof fused[0] : sizeof separate / sizeof separate[0];
    *f = (snrq_family){.vectors = SNRQ_BIAS + (int)count};
    snrq_status status = snrq_allocate(count, sizeof *f->module, "modules", &f->module);
    if (status == SNRQ_OK) status = snrq_allocate(count, sizeof *f->unit, "units", &f->unit);
    if (status == SNRQ_OK) status = snrq_allocate(count, sizeof *f->step, "steps", &f->step);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->vectors, sizeof *f->vector, "vectors", &f->vector);
    if (status != SNRQ_OK) {
        snrq_family_free(f);
        return status;
    }
    add_modules(c, rows, (int)count, f);
    add_vectors(c, f);
    return SNRQ_OK;
}

void snrq_family_free(snrq_family *f)
{
    free(f->module);
    free(f->unit);
    free(f->step);
    free(f->vector);
    *f = (snrq_family){0};
}

bool snrq_unit_writes_residual(const snrq_family *f, int unit)
{
    snrq_step_kind kind = f->step[f->unit[unit].step].kind;
    return kind == SNRQ_STEP_ATTENTION_OUT || kind == SNRQ_STEP_MLP_OUT;
}

void snrq_step_modules(const snrq_family *f, int step, int *first, int *end)
{
    *first = f->unit[f->step[step].first].first;
    *end = f->unit[f->step[step].end - 1].end;
}
