/* Transformer blocks in node memory: dense from the checkpoint, or quantized; see model.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/reader.h"
#include "pipeline/model/tensors.h"

/* Parts of a block's memory start on cache lines. */
static size_t take(size_t *at, size_t bytes)
{
    size_t start = *at;
    *at = (start + bytes + 63) / 64 * 64;
    return start;
}

/* Norms and biases. */
static snrq_status read_vectors(const snrq_model *m, int64_t layer, snrq_loaded_block *out)
{
    size_t count = 0;
    char name[256];
    for (int v = 0; v < SNRQ_MAX_VECTORS; v++) count += (size_t)m->family.vector[v].count;
    SNRQ_TRY(snrq_allocate(count, sizeof *out->vectors, "norms and biases", &out->vectors));
    float *next = out->vectors;
    for (int v = 0; v < SNRQ_MAX_VECTORS; v++) {
        const snrq_vector_shape *s = &m->family.vector[v];
        if (s->count == 0) continue;
        snrq_module_name(layer, s->name, name, sizeof name);
        SNRQ_TRY(snrq_model_read_vector(m, name, s->count, next));
        out->block.vector[v] = next;
        next += s->count;
    }
    return SNRQ_OK;
}

static void start_block(const snrq_model *m, int64_t layer, const snrq_rope *rope,
                        snrq_loaded_block *out)
{
    memset(out, 0, sizeof *out);
    out->block.config = &m->config;
    out->block.family = &m->family;
    out->block.rope = rope;
    out->block.window = snrq_config_window(&m->config, layer);
}

static snrq_status load_dense_modules(const snrq_model *m, int64_t layer, const size_t *at,
                                      snrq_loaded_block *out)
{
    char name[256], module[200];
    for (int i = 0; i < m->family.modules; i++) {
        const snrq_module_shape *s = &m->family.module[i];
        snrq_module_name(layer, s->name, module, sizeof module);
        snprintf(name, sizeof name, "%s.weight", module);
        SNRQ_TRY(snrq_model_load_dense(m, name, s->rows, s->columns, out->memory->data + at[i],
                                       &out->block.module[i]));
    }
    return SNRQ_OK;
}

static snrq_status load_dense_block(const snrq_model *m, int64_t layer, snrq_loaded_block *out)
{
    size_t at[SNRQ_MAX_MODULES], bytes = 0;
    char name[256], module[200];
    for (int i = 0; i < m->family.modules; i++) {
        snrq_module_name(layer, m->family.module[i].name, module, sizeof module);
        snprintf(name, sizeof name, "%s.weight", module);
        at[i] = take(&bytes, snrq_model_tensor(m, name)->bytes);
    }
    SNRQ_TRY(snrq_node_memory_create(m->context, bytes, &out->memory));
    SNRQ_TRY(snrq_agree(m->context, load_dense_modules(m, layer, at, out)));
    return snrq_node_memory_sync(m->context, out->memory);
}

snrq_status snrq_quantized_block_create(const snrq_model *m, int64_t layer, int64_t group_size,
                                        const snrq_rope *rope,
                                        snrq_stage_arrays arrays[SNRQ_STAGES],
                                        snrq_loaded_block *out)
{
    const snrq_family *f = &m->family;
    size_t bytes = 0;
    start_block(m, layer, rope, out);
    for (int s = 0; s < SNRQ_STAGES; s++) {
        snrq_stage_arrays *a = &arrays[s];
        size_t rows = (size_t)f->stage_rows[s], columns = (size_t)f->stage_columns[s];
        int64_t group = group_size > 0 ? group_size : f->stage_columns[s];
        a->groups = (f->stage_columns[s] + group - 1) / group;
        a->codes_at = take(&bytes, rows * columns);
        a->scales_at = take(&bytes, rows * (size_t)a->groups * sizeof(float));
        a->zeros_at = take(&bytes, rows * (size_t)a->groups);
        a->g_idx_at = take(&bytes, columns * sizeof(int32_t));
    }
    SNRQ_TRY(snrq_node_memory_create(m->context, bytes, &out->memory));
    for (int i = 0; i < f->modules; i++) {
        const snrq_module_shape *shape = &f->module[i];
        snrq_stage_arrays *a = &arrays[shape->stage];
        int64_t row = 0; /* of the module's first row in its stage */
        for (int j = f->first[shape->stage]; j < i; j++) row += f->module[j].rows;
        a->codes = out->memory->data + a->codes_at;
        a->scales = (float *)(void *)(out->memory->data + a->scales_at);
        a->zeros = out->memory->data + a->zeros_at;
        a->g_idx = (int32_t *)(void *)(out->memory->data + a->g_idx_at);
        out->block.module[i] = (snrq_weight){.rows = shape->rows,
                                             .columns = shape->columns,
                                             .codes = a->codes + row * shape->columns,
                                             .scales = a->scales + row * a->groups,
                                             .zeros = a->zeros + row * a->groups,
                                             .g_idx = a->g_idx,
                                             .groups = a->groups};
    }
    return snrq_agree(m->context, read_vectors(m, layer, out));
}

/* Opens the file of a block of `directory`, which must have the family's modules. */
static snrq_status open_block(const char *directory, int64_t layer, const snrq_family *f,
                              snrq_block_file **out)
{
    snrq_expected_module *expected = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate((size_t)f->modules, sizeof *expected, "names of modules", &expected));
    for (int i = 0; i < f->modules; i++) {
        snrq_module_name(layer, f->module[i].name, expected[i].name, sizeof expected[i].name);
        expected[i].rows = f->module[i].rows;
        expected[i].columns = f->module[i].columns;
    }
    snrq_status status = snrq_output_block_open(directory, layer, expected, f->modules, out);
    free(expected);
    return status;
}

snrq_status snrq_model_open_block(const snrq_model *m, int64_t layer, snrq_block_file **out)
{
    return open_block(m->path, layer, &m->family, out);
}

/* Reads this node rank's share of the rows of one module of the file. */
static snrq_status read_module(const snrq_context *c, const snrq_block_file *file, int index,
                               const snrq_weight *weight)
{
    const snrq_module_record *r = snrq_block_file_record(file, index);
    if (r->groups != weight->groups)
        return snrq_fail(SNRQ_BAD_DATA, "%s has %lld groups, expected %lld", r->name,
                         (long long)r->groups, (long long)weight->groups);
    /* The views are const for the forward pass; here, and here only, the memory behind them is
     * filled. */
    snrq_range mine = snrq_share(weight->rows, 1, c->node_size, c->node_rank);
    return snrq_block_file_read(file, index, mine,
                                (uint8_t *)weight->codes + mine.begin * weight->columns,
                                (float *)weight->scales + mine.begin * weight->groups,
                                (uint8_t *)weight->zeros + mine.begin * weight->groups,
                                c->node_rank == 0 ? (int32_t *)weight->g_idx : NULL);
}

static snrq_status read_modules(const snrq_context *c, const char *directory, int64_t layer,
                                const snrq_family *f, snrq_loaded_block *block)
{
    snrq_block_file *file = NULL;
    snrq_status status = open_block(directory, layer, f, &file);
    for (int i = 0; status == SNRQ_OK && i < f->modules; i++)
        status = read_module(c, file, i, &block->block.module[i]);
    snrq_block_file_close(&file);
    return status;
}

snrq_status snrq_quantized_block_read(const snrq_context *c, const char *directory, int64_t layer,
                                      const snrq_family *family, snrq_loaded_block *block)
{
    SNRQ_TRY(snrq_agree(c, read_modules(c, directory, layer, family, block)));
    return snrq_node_memory_sync(c, block->memory);
}

/* Group size of a block file: the same for all modules of a model, 0 where it is the whole row. */
static snrq_status stored_group_size(const snrq_model *m, int64_t layer, int64_t *group_size)
{
    snrq_block_file *file = NULL;
    SNRQ_TRY(snrq_model_open_block(m, layer, &file));
    *group_size = 0;
    for (int i = 0; i < snrq_block_file_count(file); i++) {
        const snrq_module_record *r = snrq_block_file_record(file, i);
        if (r->groups > 1) *group_size = r->group_size;
    }
    snrq_block_file_close(&file);
    return SNRQ_OK;
}

snrq_status snrq_model_load_block(const snrq_model *m, int64_t layer, const snrq_rope *rope,
                                  snrq_loaded_block *out)
{
    start_block(m, layer, rope, out);
    if (!m->quantized) {
        SNRQ_TRY(snrq_agree(m->context, read_vectors(m, layer, out)));
        return load_dense_block(m, layer, out);
    }
    snrq_stage_arrays arrays[SNRQ_STAGES];
    int64_t group_size = 0;
    SNRQ_TRY(snrq_agree(m->context, stored_group_size(m, layer, &group_size)));
    SNRQ_TRY(snrq_quantized_block_create(m, layer, group_size, rope, arrays, out));
    return snrq_quantized_block_read(m->context, m->path, layer, &m->family, out);
}

void snrq_loaded_block_free(snrq_loaded_block *block)
{
    snrq_node_memory_destroy(&block->memory);
    free(block->vectors);
    memset(block, 0, sizeof *block);
}
