/* The tables of the families; see family.h. */
#include "pipeline/model/family.h"

#include <stdio.h>
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

typedef struct module_row {
    const char *name;
    snrq_stage stage;
    width rows, columns;
} module_row;

/* Llama, Mistral, Qwen3 */
static const module_row separate[] = {
    {"self_attn.q_proj", SNRQ_STAGE_QKV, QUERIES, HIDDEN},
    {"self_attn.k_proj", SNRQ_STAGE_QKV, KEYS, HIDDEN},
    {"self_attn.v_proj", SNRQ_STAGE_QKV, KEYS, HIDDEN},
    {"self_attn.o_proj", SNRQ_STAGE_O, HIDDEN, QUERIES},
    {"mlp.gate_proj", SNRQ_STAGE_GATE_UP, INTERMEDIATE, HIDDEN},
    {"mlp.up_proj", SNRQ_STAGE_GATE_UP, INTERMEDIATE, HIDDEN},
    {"mlp.down_proj", SNRQ_STAGE_DOWN, HIDDEN, INTERMEDIATE},
};
static const char *const separate_stages[SNRQ_STAGES] = {"q,k,v", "o", "gate,up", "down"};

/* Phi-3 */
static const module_row fused[] = {
    {"self_attn.qkv_proj", SNRQ_STAGE_QKV, QUERIES_KEYS_VALUES, HIDDEN},
    {"self_attn.o_proj", SNRQ_STAGE_O, HIDDEN, QUERIES},
    {"mlp.gate_up_proj", SNRQ_STAGE_GATE_UP, GATE_AND_UP, HIDDEN},
    {"mlp.down_proj", SNRQ_STAGE_DOWN, HIDDEN, INTERMEDIATE},
};
static const char *const fused_stages[SNRQ_STAGES] = {"qkv", "o", "gate_up", "down"};

static void add_modules(const snrq_config *c, const module_row *rows, int count, snrq_family *f)
{
    const int64_t queries = c->heads * c->head_dim, keys = c->kv_heads * c->head_dim;
    const int64_t widths[WIDTHS] = {[HIDDEN] = c->hidden,
                                    [QUERIES] = queries,
                                    [KEYS] = keys,
                                    [QUERIES_KEYS_VALUES] = queries + 2 * keys,
                                    [INTERMEDIATE] = c->intermediate,
                                    [GATE_AND_UP] = 2 * c->intermediate};
    f->modules = count;
    for (int m = 0; m < count; m++)
        f->module[m] = (snrq_module_shape){rows[m].name, rows[m].stage, widths[rows[m].rows],
                                           widths[rows[m].columns]};
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
        bool attention = s->stage == SNRQ_STAGE_QKV || s->stage == SNRQ_STAGE_O;
        if (attention ? c->attention_bias : c->mlp_bias)
            add_vector(f, SNRQ_BIAS + m, s->name, ".bias", s->rows);
    }
}

void snrq_family_describe(const snrq_config *c, snrq_family *f)
{
    memset(f, 0, sizeof *f);
    if (c->fused)
        add_modules(c, fused, sizeof fused / sizeof fused[0], f);
    else
        add_modules(c, separate, sizeof separate / sizeof separate[0], f);
    memcpy(f->stage_name, c->fused ? fused_stages : separate_stages, sizeof f->stage_name);
    add_vectors(c, f);
    for (int s = 0, m = 0; s < SNRQ_STAGES; s++) {
        f->first[s] = m;
        for (; m < f->modules && f->module[m].stage == (snrq_stage)s; m++) {
            f->stage_rows[s] += f->module[m].rows;
            f->stage_columns[s] = f->module[m].columns;
        }
        f->first[s + 1] = m;
        if (f->stage_rows[s] > f->max_rows) f->max_rows = f->stage_rows[s];
        if (f->stage_columns[s] > f->max_columns) f->max_columns = f->stage_columns[s];
    }
}
