/* The tensors of a GGUF file; see gguf_plan.h. Source of names and row order: llama.cpp's
 * convert_hf_to_gguf. */
#include "pipeline/export/gguf_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf/blocks.h"
#include "pipeline/model/tensors.h"

typedef enum heads { NO_HEADS, QUERY_HEADS, KEY_HEADS } heads;

/* Names below "model.layers.N." and "blk.N."; heads: rows that llama.cpp wants in another
 * order. */
static const struct name_row {
    const char *model, *file;
    heads heads;
} names[] = {
    {"input_layernorm", "attn_norm", NO_HEADS},
    {"post_attention_layernorm", "ffn_norm", NO_HEADS},
    {"self_attn.q_norm", "attn_q_norm", NO_HEADS},
    {"self_attn.k_norm", "attn_k_norm", NO_HEADS},
    {"self_attn.q_proj", "attn_q", QUERY_HEADS},
    {"self_attn.k_proj", "attn_k", KEY_HEADS},
    {"self_attn.v_proj", "attn_v", NO_HEADS},
    {"self_attn.qkv_proj", "attn_qkv", NO_HEADS},
    {"self_attn.o_proj", "attn_output", NO_HEADS},
    {"mlp.gate_proj", "ffn_gate", NO_HEADS},
    {"mlp.up_proj", "ffn_up", NO_HEADS},
    {"mlp.gate_up_proj", "ffn_up", NO_HEADS},
    {"mlp.down_proj", "ffn_down", NO_HEADS},
};
enum { NAMES = sizeof names / sizeof names[0] };

const char *snrq_gguf_architecture(const snrq_config *c)
{
    if (strcmp(c->model_type, "mistral") == 0) return "llama";
    return c->model_type;
}

static bool is_llama(const snrq_config *c)
{
    return strcmp(snrq_gguf_architecture(c), "llama") == 0;
}

snrq_status snrq_gguf_check_config(const snrq_config *c)
{
    bool phi3 = strcmp(snrq_gguf_architecture(c), "phi3") == 0;
    if ((c->attention_bias || c->mlp_bias) && !is_llama(c))
        return snrq_fail(SNRQ_USAGE,
                         "llama.cpp's %s has no biases, and this model has; it can be exported to "
                         "safetensors",
                         snrq_gguf_architecture(c));
    if ((c->rope.type == SNRQ_ROPE_LONGROPE && !phi3) ||
        (c->rope.type == SNRQ_ROPE_LLAMA3 && !is_llama(c)))
        return snrq_fail(SNRQ_USAGE,
                         "llama.cpp's %s does not read rope factors of type %s; the model can be "
                         "exported to safetensors",
                         snrq_gguf_architecture(c), snrq_rope_type_name(c->rope.type));
    return SNRQ_OK;
}

snrq_status snrq_gguf_module_type(const snrq_module_record *r, snrq_gguf_type *out)
{
    const snrq_gguf_grid grid = {r->bits, r->symmetric, r->columns,
                                 r->groups > 1 ? r->group_size : r->columns};
    if (r->columns % 32 != 0)
        return snrq_fail(SNRQ_USAGE,
                         "%s has %lld inputs, and GGUF blocks have 32: no setting works for this "
                         "model; export it to safetensors or compressed-tensors",
                         r->name, (long long)r->columns);
    if (r->permuted_groups && r->groups > 1)
        return snrq_fail(SNRQ_USAGE,
                         "%s has groups in decision order, GGUF blocks are neighbouring columns: "
                         "quantize with --groups original",
                         r->name);
    if (r->scale_type != SNRQ_F16)
        return snrq_fail(SNRQ_USAGE,
                         "%s has scales of type %s, GGUF blocks have F16: quantize with "
                         "--scale-type f16",
                         r->name, snrq_dtype_name(r->scale_type));
    if (r->groups > 1 && r->group_size % 32 != 0)
        return snrq_fail(SNRQ_USAGE,
                         "%s has groups of %lld columns, GGUF blocks of 32 have one scale: "
                         "quantize with --group-size %lld",
                         r->name, (long long)r->group_size,
                         (long long)(r->group_size + 31) / 32 * 32);
    if (!snrq_gguf_type_for(&grid, out))
        return snrq_fail(SNRQ_USAGE,
                         "%s has asymmetric codes of %d bits, whose differences from the zero take "
                         "%d: quantize with --symmetric or --bits 7",
                         r->name, r->bits, r->bits + 1);
    return SNRQ_OK;
}

/* The type of a matrix that is not quantized: as the option says, or its own. */
static snrq_status float_type(const snrq_model *m, const snrq_export_settings *settings,
                              const char *name, int64_t rows, int64_t columns, snrq_gguf_type *out)
{
    static const snrq_gguf_type own[] = {
        [SNRQ_F32] = SNRQ_GGUF_F32, [SNRQ_F16] = SNRQ_GGUF_F16, [SNRQ_BF16] = SNRQ_GGUF_BF16};
    static const snrq_gguf_type chosen[] = {[SNRQ_EMBEDDING_F16] = SNRQ_GGUF_F16,
                                            [SNRQ_EMBEDDING_BF16] = SNRQ_GGUF_BF16,
                                            [SNRQ_EMBEDDING_Q8_0] = SNRQ_GGUF_Q8_0};
    const snrq_tensor *t;
    snrq_dtype dtype = SNRQ_F32;
    SNRQ_TRY(snrq_model_expect(m, name, rows, columns, &t, &dtype));
    *out = settings->embedding_type == SNRQ_EMBEDDING_MODEL ? own[dtype]
                                                            : chosen[settings->embedding_type];
    if (*out == SNRQ_GGUF_Q8_0 && !m->quantized)
        return snrq_fail(SNRQ_USAGE,
                         "%s is not quantized: --embedding-type takes f16 or bf16 for all of its "
                         "matrices; `snrq quantize --bits 8` makes a model that is stored as Q8_0",
                         m->path);
    if (*out == SNRQ_GGUF_Q8_0 && columns % 32 != 0)
        return snrq_fail(SNRQ_USAGE,
                         "%s has %lld columns, and blocks of Q8_0 have 32: --embedding-type takes "
                         "f16 or bf16 here",
                         name, (long long)columns);
    return SNRQ_OK;
}

static snrq_gguf_part *next_part(snrq_gguf_plan *plan, snrq_gguf_origin origin, int64_t rows,
                                 int64_t columns)
{
    snrq_gguf_part *p = &plan->parts[plan->count++];
    *p =
        (snrq_gguf_part){.type = SNRQ_GGUF_F32, .origin = origin, .rows = rows, .columns = columns};
    return p;
}

/* A tensor outside of the blocks. */
static snrq_status add_tensor(const snrq_model *m, const snrq_export_settings *settings,
                              const char *file, const char *tensor, int64_t rows, int64_t columns,
                              snrq_gguf_plan *plan)
{
    snrq_gguf_part *p = next_part(plan, SNRQ_FROM_TENSOR, rows, columns);
    snprintf(p->name, sizeof p->name, "%s", file);
    snprintf(p->tensor, sizeof p->tensor, "%s", tensor);
    return columns > 0 ? float_type(m, settings, tensor, rows, columns, &p->type) : SNRQ_OK;
}

/* A tensor of a block: `name` below the layer, without `end`, which is ".weight" or ".bias". */
static snrq_gguf_part *add_in_block(const snrq_model *m, snrq_gguf_origin origin, int64_t layer,
                                    const char *name, const char *end, int64_t rows,
                                    int64_t columns, snrq_gguf_plan *plan)
{
    const struct name_row *row = names;
    snrq_gguf_part *p = next_part(plan, origin, rows, columns);
    size_t length = strlen(name) - (columns > 0 ? 0 : strlen(end));
    char module[200];
    while (row < names + NAMES - 1 &&
           (strlen(row->model) != length || strncmp(row->model, name, length) != 0))
        row++;
    snprintf(p->name, sizeof p->name, "blk.%lld.%s%s", (long long)layer, row->file, end);
    snrq_module_name(layer, name, module, sizeof module);
    snprintf(p->tensor, sizeof p->tensor, "%s%s", module, columns > 0 ? end : "");
    if (row->heads != NO_HEADS && is_llama(&m->config)) p->head = m->config.head_dim;
    p->layer = layer;
    return p;
}

static snrq_status add_modules(const snrq_model *m, const snrq_export_settings *settings,
                               int64_t layer, snrq_gguf_plan *plan)
{
    snrq_block_file *file = NULL;
    snrq_status status = SNRQ_OK;
    if (m->quantized) SNRQ_TRY(snrq_model_open_block(m, layer, &file));
    const snrq_family *f = snrq_model_family(m, layer);
    for (int i = 0; status == SNRQ_OK && i < f->modules; i++) {
        const snrq_module_shape *s = &f->module[i];
        snrq_gguf_origin origin = m->quantized ? SNRQ_FROM_MODULE : SNRQ_FROM_TENSOR;
        snrq_gguf_part *p =
            add_in_block(m, origin, layer, s->name, ".weight", s->rows, s->columns, plan);
        p->module = i;
        status = m->quantized ? snrq_gguf_module_type(snrq_block_file_record(file, i), &p->type)
                              : float_type(m, settings, p->tensor, s->rows, s->columns, &p->type);
    }
    snrq_block_file_close(&file);
    return status;
}

static void add_vectors(const snrq_model *m, int64_t layer, snrq_gguf_plan *plan)
{
    const snrq_family *f = snrq_model_family(m, layer);
    for (int v = 0; v < f->vectors; v++) {
        const snrq_vector_shape *s = &f->vector[v];
        const char *end = v < SNRQ_BIAS ? ".weight" : ".bias";
        if (s->count > 0) add_in_block(m, SNRQ_FROM_TENSOR, layer, s->name, end, s->count, 0, plan);
    }
}

static void add_rope(const snrq_model *m, snrq_gguf_plan *plan)
{
    int64_t half = m->config.rope.dimensions / 2;
    if (m->config.rope.type == SNRQ_ROPE_LLAMA3)
        strcpy(next_part(plan, SNRQ_FROM_ROPE, half, 0)->name, "rope_freqs.weight");
    if (m->config.rope.type != SNRQ_ROPE_LONGROPE) return;
    strcpy(next_part(plan, SNRQ_FROM_ROPE_LONG, half, 0)->name, "rope_factors_long.weight");
    strcpy(next_part(plan, SNRQ_FROM_ROPE_SHORT, half, 0)->name, "rope_factors_short.weight");
}

static snrq_status add_all(const snrq_model *m, const snrq_export_settings *settings,
                           snrq_gguf_plan *plan)
{
    const snrq_config *c = &m->config;
    SNRQ_TRY(snrq_gguf_check_config(c));
    SNRQ_TRY(add_tensor(m, settings, "token_embd.weight", "model.embed_tokens.weight",
                        c->vocabulary, c->hidden, plan));
    for (int64_t layer = 0; layer < c->layers; layer++) {
        SNRQ_TRY(add_modules(m, settings, layer, plan));
        add_vectors(m, layer, plan);
    }
    SNRQ_TRY(
        add_tensor(m, settings, "output_norm.weight", "model.norm.weight", c->hidden, 0, plan));
    if (!c->tied_embeddings)
        SNRQ_TRY(add_tensor(m, settings, "output.weight", "lm_head.weight", c->vocabulary,
                            c->hidden, plan));
    add_rope(m, plan);
    return SNRQ_OK;
}

/* The type with most modules, the first one on ties. */
static snrq_gguf_type usual_type(const snrq_gguf_plan *plan)
{
    int64_t count[SNRQ_GGUF_BF16 + 1] = {0};
    snrq_gguf_type best = plan->parts[0].type;
    for (int64_t i = 0; i < plan->count; i++) {
        const snrq_gguf_part *p = &plan->parts[i];
        if (p->columns > 0 && strncmp(p->name, "blk.", 4) == 0 && ++count[p->type] > count[best])
            best = p->type;
    }
    return best;
}

snrq_status snrq_gguf_plan_create(const snrq_model *m, const snrq_export_settings *settings,
                                  snrq_gguf_plan *out)
{
    size_t most = 5;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        most += (size_t)(f->modules + f->vectors);
    }
    *out = (snrq_gguf_plan){0};
    SNRQ_TRY(snrq_allocate(most, sizeof *out->parts, "tensors of a GGUF file", &out->parts));
    snrq_status status = add_all(m, settings, out);
    if (status == SNRQ_OK)
        out->weights = usual_type(out);
    else
        snrq_gguf_plan_free(out);
    return status;
}

void snrq_gguf_plan_free(snrq_gguf_plan *plan)
{
    free(plan->parts);
    *plan = (snrq_gguf_plan){0};
}
