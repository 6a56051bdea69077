/* Transformer blocks in node memory: dense from the checkpoint, or quantized; see model.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/reader.h"
#include "pipeline/model/kept.h"
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
    const snrq_family *f = snrq_model_family(m, layer);
    size_t count = 0;
    char name[256];
    for (int v = 0; v < f->vectors; v++) count += (size_t)f->vector[v].count;
    SNRQ_TRY(snrq_allocate(count, sizeof *out->numbers, "norms and biases", &out->numbers));
    float *next = out->numbers;
    for (int v = 0; v < f->vectors; v++) {
        const snrq_vector_shape *s = &f->vector[v];
        if (s->count == 0) continue;
        snrq_module_name(layer, s->name, name, sizeof name);
        SNRQ_TRY(snrq_model_read_vector(m, name, s->count, s->columns, next));
        if (m->config.norms_less_one && v < SNRQ_ROUTER)
            for (int64_t i = 0; i < s->count; i++) next[i] += 1.0f;
        out->vector[v] = next;
        next += s->count;
    }
    return SNRQ_OK;
}

static snrq_status start_block(const snrq_model *m, int64_t layer, const snrq_ropes *ropes,
                               snrq_loaded_block *out)
{
    const snrq_family *f = snrq_model_family(m, layer);
    memset(out, 0, sizeof *out);
    SNRQ_TRY(snrq_allocate((size_t)f->modules, sizeof *out->module, "modules", &out->module));
    SNRQ_TRY(snrq_allocate((size_t)f->vectors, sizeof *out->vector, "vectors", &out->vector));
    out->block = (snrq_block){.config = &m->config,
                              .family = f,
                              .rope = snrq_ropes_of(ropes, &m->config, layer),
                              .window = snrq_config_window(&m->config, layer),
                              .module = out->module,
                              .vector = out->vector};
    return read_vectors(m, layer, out);
}

void snrq_weight_name(const snrq_model *m, int64_t layer, int module, char *out, size_t size)
{
    char name[200];
    snrq_module_name(layer, snrq_model_family(m, layer)->module[module].name, name, sizeof name);
    snprintf(out, size, "%s.weight", name);
}

/* Reads this rank's share of the weights, one module after the other, into memory that has room
 * for all of them. */
static snrq_status load_dense_modules(const snrq_context *c, const snrq_model *m, int64_t layer,
                                      snrq_loaded_block *out)
{
    const snrq_family *f = out->block.family;
    char name[256];
    size_t at = 0;
    for (int i = 0; i < f->modules; i++) {
        const snrq_module_shape *s = &f->module[i];
        snrq_weight_name(m, layer, i, name, sizeof name);
        size_t bytes = snrq_model_weight_bytes(snrq_model_tensor(m, name));
        unsigned char *base = out->memory->data + take(&at, bytes);
        SNRQ_TRY(snrq_model_load_dense(c, m, name, s->rows, s->columns, base, &out->module[i]));
    }
    return SNRQ_OK;
}

static snrq_status load_dense_block(const snrq_context *c, const snrq_model *m, int64_t layer,
                                    snrq_loaded_block *out)
{
    size_t bytes = 0;
    char name[256];
    for (int i = 0; i < out->block.family->modules; i++) {
        snrq_weight_name(m, layer, i, name, sizeof name);
        take(&bytes, snrq_model_weight_bytes(snrq_model_tensor(m, name)));
    }
    SNRQ_TRY(snrq_node_memory_create(c, bytes, &out->memory));
    SNRQ_TRY(snrq_agree(c, load_dense_modules(c, m, layer, out)));
    return snrq_node_memory_sync(c, out->memory);
}

static bool has_minima(snrq_part_groups groups)
{
    return groups.format != NULL && groups.format->minimum.present;
}

/* Places of a part's arrays in the block's memory. */
static void place_part(const snrq_part_shape *shape, snrq_part_groups groups, size_t *bytes,
                       snrq_quantized_part *part)
{
    size_t rows = (size_t)shape->rows, columns = (size_t)shape->columns,
           grids = rows * (size_t)groups.count;
    part->groups = groups.count;
    part->codes_at = take(bytes, rows * columns);
    part->scales_at = take(bytes, grids * sizeof(float));
    part->zeros_at = take(bytes, grids);
    part->minima_at = take(bytes, has_minima(groups) ? grids * sizeof(float) : 0);
    part->g_idx_at = take(bytes, columns * sizeof(int32_t));
}

/* The same of weights that are kept: all of them from codes_at on. */
static void place_kept(const snrq_model *m, int64_t layer, const snrq_part_shape *shape,
                       size_t *bytes, snrq_quantized_part *part)
{
    char name[256];
    part->codes_at = *bytes;
    for (int i = shape->first; i < shape->end; i++) {
        snrq_weight_name(m, layer, i, name, sizeof name);
        take(bytes, snrq_model_weight_bytes(snrq_model_tensor(m, name)));
    }
}

/* Reads this rank's share of them. */
static snrq_status load_kept(const snrq_context *c, const snrq_model *m, int64_t layer,
                             const snrq_part_shape *shape, const snrq_quantized_part *part,
                             snrq_loaded_block *out)
{
    size_t at = part->codes_at;
    char name[256];
    for (int i = shape->first; i < shape->end; i++) {
        const snrq_module_shape *s = &out->block.family->module[i];
        snrq_weight_name(m, layer, i, name, sizeof name);
        size_t bytes = snrq_model_weight_bytes(snrq_model_tensor(m, name));
        unsigned char *base = out->memory->data + take(&at, bytes);
        SNRQ_TRY(snrq_model_load_dense(c, m, name, s->rows, s->columns, base, &out->module[i]));
    }
    return SNRQ_OK;
}

static snrq_status load_all_kept(const snrq_context *c, const snrq_model *m, int64_t layer,
                                 snrq_loaded_block *out)
{
    const snrq_family *f = out->block.family;
    snrq_status status = SNRQ_OK;
    if (snrq_model_stored_modules(m, layer) == f->modules) return SNRQ_OK;
    for (int p = 0; p < f->parts && status == SNRQ_OK; p++)
        if (snrq_model_keeps(m, layer, f->part[p].first))
            status = load_kept(c, m, layer, &f->part[p], &out->part[p], out);
    SNRQ_TRY(snrq_agree(c, status));
    return snrq_node_memory_sync(c, out->memory);
}

static void point_part(unsigned char *data, bool minima, snrq_quantized_part *part)
{
    part->codes = data + part->codes_at;
    part->scales = (float *)(void *)(data + part->scales_at);
    part->zeros = data + part->zeros_at;
    part->minima = minima ? (float *)(void *)(data + part->minima_at) : NULL;
    part->g_idx = (int32_t *)(void *)(data + part->g_idx_at);
}

static snrq_status start_quantized_block(const snrq_model *m, int64_t layer,
                                         const snrq_part_groups *groups, const snrq_ropes *ropes,
                                         size_t *bytes, snrq_loaded_block *out)
{
    const snrq_family *f = snrq_model_family(m, layer);
    SNRQ_TRY(start_block(m, layer, ropes, out));
    SNRQ_TRY(snrq_allocate((size_t)f->parts, sizeof *out->part, "parts", &out->part));
    for (int p = 0; p < f->parts; p++)
        if (snrq_model_keeps(m, layer, f->part[p].first))
            place_kept(m, layer, &f->part[p], bytes, &out->part[p]);
        else
            place_part(&f->part[p], groups[p], bytes, &out->part[p]);
    return SNRQ_OK;
}

snrq_status snrq_quantized_block_create(const snrq_context *c, const snrq_model *m, int64_t layer,
                                        const snrq_part_groups *groups, const snrq_ropes *ropes,
                                        snrq_loaded_block *out)
{
    const snrq_family *f = snrq_model_family(m, layer);
    size_t bytes = 0;
    SNRQ_TRY(snrq_agree(c, start_quantized_block(m, layer, groups, ropes, &bytes, out)));
    SNRQ_TRY(snrq_node_memory_create(c, bytes, &out->memory));
    for (int p = 0; p < f->parts; p++)
        point_part(out->memory->data, has_minima(groups[p]), &out->part[p]);
    for (int i = 0; i < f->modules; i++) {
        const snrq_module_shape *s = &f->module[i];
        const snrq_quantized_part *part = &out->part[s->part];
        if (snrq_model_keeps(m, layer, i)) continue;
        out->module[i] = (snrq_weight){
            .rows = s->rows,
            .columns = s->columns,
            .codes = part->codes + s->part_row * s->columns,
            .scales = part->scales + s->part_row * part->groups,
            .zeros = part->zeros + s->part_row * part->groups,
            .minima = part->minima != NULL ? part->minima + s->part_row * part->groups : NULL,
            .levels = groups[s->part].format != NULL ? groups[s->part].format->levels : NULL,
            .g_idx = part->g_idx,
            .groups = part->groups};
    }
    return load_all_kept(c, m, layer, out);
}

/* Opens the file of a block of `directory`, which must have the modules that are not kept. */
static snrq_status open_block(const snrq_model *m, const char *directory, int64_t layer,
                              snrq_block_file **out)
{
    const snrq_family *f = snrq_model_family(m, layer);
    snrq_expected_module *expected = NULL;
    int count = 0;
    *out = NULL;
    SNRQ_TRY(snrq_allocate((size_t)f->modules, sizeof *expected, "names of modules", &expected));
    for (int i = 0; i < f->modules; i++) {
        snrq_expected_module *e = &expected[count];
        if (snrq_model_keeps(m, layer, i)) continue;
        snrq_module_name(layer, f->module[i].name, e->name, sizeof e->name);
        e->rows = f->module[i].rows;
        e->columns = f->module[i].columns;
        count++;
    }
    snrq_status status = snrq_output_block_open(directory, layer, expected, count, out);
    free(expected);
    return status;
}

snrq_status snrq_model_open_block(const snrq_model *m, int64_t layer, snrq_block_file **out)
{
    return open_block(m, m->path, layer, out);
}

/* Reads this node rank's share of the rows of one module of the file. */
static snrq_status read_module(const snrq_context *c, const snrq_block_file *file, int index,
                               const snrq_weight *weight)
{
    const snrq_module_record *r = snrq_block_file_record(file, index);
    if (snrq_module_record_has_minima(r) != (weight->minima != NULL) ||
        snrq_module_record_levels(r) != weight->levels)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s and a module that is stored with it have different formats", r->name);
    if (r->groups != weight->groups)
        return snrq_fail(SNRQ_BAD_DATA, "%s has %lld groups, expected %lld", r->name,
                         (long long)r->groups, (long long)weight->groups);
    /* The views are const for the forward pass; here, and here only, the memory behind them is
     * filled. */
    snrq_range mine = snrq_share(weight->rows, 1, c->node_size, c->node_rank);
    if (weight->minima != NULL)
        SNRQ_TRY(snrq_block_file_read_minima(
            file, index, mine, (float *)weight->minima + mine.begin * weight->groups));
    return snrq_block_file_read(file, index, mine,
                                (uint8_t *)weight->codes + mine.begin * weight->columns,
                                (float *)weight->scales + mine.begin * weight->groups,
                                (uint8_t *)weight->zeros + mine.begin * weight->groups,
                                c->node_rank == 0 ? (int32_t *)weight->g_idx : NULL);
}

static snrq_status read_modules(const snrq_context *c, const snrq_model *m, const char *directory,
                                int64_t layer, snrq_loaded_block *block)
{
    const snrq_family *f = block->block.family;
    snrq_block_file *file = NULL;
    int next = 0;
    snrq_status status = open_block(m, directory, layer, &file);
    for (int i = 0; status == SNRQ_OK && i < f->modules; i++)
        if (!snrq_model_keeps(m, layer, i))
            status = read_module(c, file, next++, &block->block.module[i]);
    snrq_block_file_close(&file);
    return status;
}

snrq_status snrq_quantized_block_read(const snrq_context *c, const snrq_model *m,
                                      const char *directory, int64_t layer,
                                      snrq_loaded_block *block)
{
    SNRQ_TRY(snrq_agree(c, read_modules(c, m, directory, layer, block)));
    return snrq_node_memory_sync(c, block->memory);
}

/* groups [parts] <- how many the modules of each part have in the file of a block. */
static snrq_status stored_groups(const snrq_model *m, const char *directory, int64_t layer,
                                 snrq_part_groups *groups)
{
    snrq_block_file *file = NULL;
    SNRQ_TRY(open_block(m, directory, layer, &file));
    const snrq_family *f = snrq_model_family(m, layer);
    for (int p = 0; p < f->parts; p++) {
        if (snrq_model_keeps(m, layer, f->part[p].first)) continue;
        const snrq_module_record *r =
            snrq_block_file_record(file, snrq_model_stored_index(m, layer, f->part[p].first));
        groups[p] = (snrq_part_groups){r->groups, snrq_module_record_format(r)};
    }
    snrq_block_file_close(&file);
    return SNRQ_OK;
}

snrq_status snrq_quantized_block_load(const snrq_context *c, const snrq_model *m,
                                      const char *directory, int64_t layer, const snrq_ropes *ropes,
                                      snrq_loaded_block *out)
{
    snrq_part_groups *groups = NULL;
    memset(out, 0, sizeof *out);
    size_t parts = (size_t)snrq_model_family(m, layer)->parts;
    snrq_status status = snrq_allocate(parts, sizeof *groups, "groups", &groups);
    if (status == SNRQ_OK) status = stored_groups(m, directory, layer, groups);
    status = snrq_agree(c, status);
    if (status == SNRQ_OK) status = snrq_quantized_block_create(c, m, layer, groups, ropes, out);
    free(groups);
    SNRQ_TRY(status);
    return snrq_quantized_block_read(c, m, directory, layer, out);
}

snrq_status snrq_model_load_block(const snrq_context *c, const snrq_model *m, int64_t layer,
                                  const snrq_ropes *ropes, snrq_loaded_block *out)
{
    memset(out, 0, sizeof *out);
    if (m->quantized) return snrq_quantized_block_load(c, m, m->path, layer, ropes, out);
    SNRQ_TRY(snrq_agree(c, start_block(m, layer, ropes, out)));
    return load_dense_block(c, m, layer, out);
}

void snrq_loaded_block_free(snrq_loaded_block *block)
{
    snrq_node_memory_destroy(&block->memory);
    free(block->part);
    free(block->module);
    free(block->vector);
    free(block->numbers);
    memset(block, 0, sizeof *block);
}
