/* The tensors of a GGUF file; see gguf_plan.h. Source of names and row order: llama.cpp's
 * convert_hf_to_gguf. */
#include "pipeline/export/gguf_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf/blocks.h"
#include "pipeline/export/gguf_family.h"
#include "pipeline/model/kept.h"
#include "pipeline/model/tensors.h"

snrq_status snrq_gguf_module_type(const snrq_module_record *r, snrq_gguf_type *out)
{
    const snrq_gguf_grid grid = {r->bits, r->symmetric, r->columns,
                                 r->groups > 1 ? r->group_size : r->columns};
    const snrq_weight_format *format = snrq_module_record_format(r);
    if (format != NULL) return snrq_gguf_type_of(format, out);
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
    p->module = m->quantized ? snrq_rest_file_table(m->rest, tensor) : -1;
    if (p->module >= 0) {
        const snrq_module_record *r =
            snrq_block_file_record(snrq_rest_file_tables(m->rest), p->module);
        p->origin = SNRQ_FROM_TABLE;
        if (settings->embedding_type != SNRQ_EMBEDDING_MODEL)
            return snrq_fail(SNRQ_USAGE, "%s is quantized: leave --embedding-type out", r->name);
        return snrq_gguf_module_type(r, &p->type);
    }
    return columns > 0 ? float_type(m, settings, tensor, rows, columns, &p->type) : SNRQ_OK;
}

/* A tensor of a block: `name` below the layer, without `end`, which is ".weight" or ".bias". */
static snrq_gguf_part *add_in_block(const snrq_model *m, snrq_gguf_origin origin, int64_t layer,
                                    const char *name, const char *end, int64_t rows,
                                    int64_t columns, snrq_gguf_plan *plan)
{
    snrq_gguf_part *p = next_part(plan, origin, rows, columns);
    char module[200], part[SNRQ_GGUF_NAME];
    snrq_gguf_part_name(&m->config, name, part);
    snprintf(p->name, sizeof p->name, "blk.%d.%.40s%.10s", (int)layer, part, end);
    snrq_module_name(layer, name, module, sizeof module);
    snprintf(p->tensor, sizeof p->tensor, "%s%s", module, end);
    p->head = snrq_gguf_interleaved(&m->config, name);
    p->layer = layer;
    return p;
}

/* The type of a module of an OUT directory. */
static snrq_status module_type(const snrq_model *m, const snrq_block_file *file, int64_t layer,
                               int index, snrq_gguf_type *out)
{
    const snrq_export_settings as_is = {.embedding_type = SNRQ_EMBEDDING_MODEL};
    const snrq_module_shape *s = &snrq_model_family(m, layer)->module[index];
    char name[256];
    snrq_weight_name(m, layer, index, name, sizeof name);
    if (snrq_model_keeps(m, layer, index))
        return float_type(m, &as_is, name, s->rows, s->columns, out);
    const int place = snrq_model_stored_index(m, layer, index);
    return snrq_gguf_module_type(snrq_block_file_record(file, place), out);
}

/* All experts' matrices are one tensor, of one type. */
static snrq_status check_experts(const snrq_model *m, const snrq_block_file *file,
                                 const snrq_gguf_part *p)
{
    const snrq_family *f = snrq_model_family(m, p->layer);
    snrq_gguf_type type;
    for (int e = 1; e < p->stacked; e++) {
        const int index = p->module + e * p->stride;
        SNRQ_TRY(module_type(m, file, p->layer, index, &type));
        if (type == p->type) continue;
        return snrq_fail(SNRQ_USAGE,
                         "block %lld: %s and %s would have different types, and GGUF has one for "
                         "all experts of a block; give them the same bits",
                         (long long)p->layer, f->module[p->module].name, f->module[index].name);
    }
    return SNRQ_OK;
}

/* Module `index`; of an expert, all experts' modules like it. */
static snrq_status add_module(const snrq_model *m, const snrq_export_settings *settings,
                              const snrq_block_file *file, int64_t layer, int index,
                              snrq_gguf_plan *plan)
{
    const snrq_family *f = snrq_model_family(m, layer);
    const snrq_module_shape *s = &f->module[index];
    const snrq_unit_shape *unit = &f->unit[s->unit];
    const bool codes = m->quantized && !snrq_model_keeps(m, layer, index);
    snrq_gguf_origin origin = codes ? SNRQ_FROM_MODULE : SNRQ_FROM_TENSOR;
    if (unit->expert > 0) return SNRQ_OK; /* with the first one */
    snrq_gguf_part *p =
        add_in_block(m, origin, layer, s->name, ".weight", s->rows, s->columns, plan);
    p->module = index;
    p->stacked = unit->expert == 0 ? f->experts : 0;
    p->stride = unit->end - unit->first;
    if (!m->quantized) return float_type(m, settings, p->tensor, s->rows, s->columns, &p->type);
    SNRQ_TRY(module_type(m, file, layer, index, &p->type));
    return check_experts(m, file, p);
}

static snrq_status add_modules(const snrq_model *m, const snrq_export_settings *settings,
                               int64_t layer, snrq_gguf_plan *plan)
{
    snrq_block_file *file = NULL;
    snrq_status status = SNRQ_OK;
    if (m->quantized) SNRQ_TRY(snrq_model_open_block(m, layer, &file));
    for (int i = 0; status == SNRQ_OK && i < snrq_model_family(m, layer)->modules; i++)
        status = add_module(m, settings, file, layer, i, plan);
    snrq_block_file_close(&file);
    return status;
}

static void add_vectors(const snrq_model *m, int64_t layer, snrq_gguf_plan *plan)
{
    static const char choice[] = ".e_score_correction_bias";
    const snrq_family *f = snrq_model_family(m, layer);
    for (int v = 0; v < f->vectors; v++) {
        const snrq_vector_shape *s = &f->vector[v];
        const char *end = v < SNRQ_BIAS ? ".weight" : ".bias";
        char name[SNRQ_VECTOR_NAME];
        if (s->count == 0) continue;
        if (v == SNRQ_ROUTER_BIAS) end = choice;
        snprintf(name, sizeof name, "%.*s", (int)(strlen(s->name) - strlen(end)), s->name);
        int64_t height = s->columns > 0 ? s->count / s->columns : s->count;
        snrq_gguf_part *p =
            add_in_block(m, SNRQ_FROM_TENSOR, layer, name, end, height, s->columns, plan);
        p->less_one = m->config.norms_less_one && v < SNRQ_ROUTER;
        if (v == SNRQ_ROUTER_BIAS)
            snprintf(p->name, sizeof p->name, "blk.%d.exp_probs_b.bias", (int)layer);
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
    plan->parts[plan->count - 1].less_one = c->norms_less_one;
    if (!c->tied_embeddings)
        SNRQ_TRY(add_tensor(m, settings, "output.weight", "lm_head.weight", c->vocabulary,
                            c->hidden, plan));
    add_rope(m, plan);
    return SNRQ_OK;
}

/* The type with most modules, the first one on ties. */
static snrq_gguf_type usual_type(const snrq_gguf_plan *plan)
{
    int64_t count[SNRQ_GGUF_TYPES] = {0};
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
