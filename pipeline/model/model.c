/* Opening a model and reading its tensors; see model.h. The blocks are in model_block.c. */
#include "pipeline/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/checkpoint/output.h"
#include "io/checkpoint/reader.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "pipeline/model/findings.h"
#include "pipeline/model/kept.h"
#include "pipeline/model/tensors.h"

const char snrq_embedding_name[] = "model.embed_tokens.weight";
const char snrq_final_norm_name[] = "model.norm.weight";
const char snrq_head_name[] = "lm_head.weight";
const char *const snrq_table_names[SNRQ_TABLES] = {"model.embed_tokens", "lm_head"};

enum { FINGERPRINT_SAMPLE = 4096, READ_BYTES = 4 << 20 };

void snrq_module_name(int64_t layer, const char *name, char *out, size_t size)
{
    snprintf(out, size, "model.layers.%lld.%s", (long long)layer, name);
}

const snrq_family *snrq_model_family(const snrq_model *m, int64_t layer)
{
    return snrq_config_layer(&m->config, layer, SNRQ_LAYER_EXPERTS) ? &m->sparse : &m->dense;
}

int snrq_model_max_modules(const snrq_model *m)
{
    return m->sparse.modules > m->dense.modules ? m->sparse.modules : m->dense.modules;
}

int snrq_model_max_units(const snrq_model *m)
{
    return m->sparse.units > m->dense.units ? m->sparse.units : m->dense.units;
}

int64_t snrq_model_max_columns(const snrq_model *m)
{
    int64_t most = 0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        most = f->max_columns > most ? f->max_columns : most;
    }
    return most;
}

snrq_status snrq_model_create_families(snrq_model *m)
{
    SNRQ_TRY(snrq_family_create(&m->config, false, &m->dense));
    if (m->config.experts.count > 0) SNRQ_TRY(snrq_family_create(&m->config, true, &m->sparse));
    if (!m->quantized) return SNRQ_OK;
    /* Whatever rules they had. */
    for (int i = 0; i < m->dense.modules; i++) snrq_family_cut(&m->dense, i);
    for (int i = 0; i < m->sparse.modules; i++) snrq_family_cut(&m->sparse, i);
    return SNRQ_OK;
}

void snrq_model_free_families(snrq_model *m)
{
    snrq_family_free(&m->dense);
    snrq_family_free(&m->sparse);
}

const snrq_tensor *snrq_model_tensor(const snrq_model *m, const char *name)
{
    return m->quantized ? snrq_rest_file_find(m->rest, name)
                        : snrq_safetensors_find(m->tensors, name);
}

/* Where the tensor should be, or the first ones that are there. */
static snrq_status refuse_missing(const snrq_model *m, const char *name)
{
    enum { NAMES = 3 };
    char there[NAMES * (SNRQ_SHOWN + 4) + 64] = "", shown[SNRQ_SHOWN];
    int64_t count =
        m->quantized ? snrq_rest_file_count(m->rest) : snrq_safetensors_count(m->tensors);
    const char *listed = m->quantized ? NULL : snrq_safetensors_missing(m->tensors, name);
    const char *hint = strcmp(name, snrq_head_name) == 0
                           ? "; if the embedding is the head, set tie_word_embeddings to true"
                           : "";
    if (listed != NULL)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: no tensor '%s', which config.json asks for: the index says that it is "
            "in %s, which does not hold it (do index and shards belong together?)",
            m->path, name, listed);
    for (int64_t i = 0; i < count && i < NAMES; i++) {
        const snrq_tensor *t =
            m->quantized ? snrq_rest_file_at(m->rest, i) : snrq_safetensors_at(m->tensors, i);
        size_t used = strlen(there);
        snprintf(there + used, sizeof there - used, "%s'%s'", i > 0 ? ", " : "",
                 snrq_shown(t->name, shown));
    }
    size_t used = strlen(there);
    if (count > NAMES)
        snprintf(there + used, sizeof there - used, " and %lld more", (long long)count - NAMES);
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: no tensor '%s', which config.json asks for; there are %s (is the "
                     "checkpoint complete, and does config.json belong to it?)%s",
                     m->path, name, count > 0 ? there : "none", hint);
}

snrq_status snrq_model_expect(const snrq_model *m, const char *name, int64_t rows, int64_t columns,
                              const snrq_tensor **tensor, snrq_dtype *dtype)
{
    const snrq_tensor *t = snrq_model_tensor(m, name);
    int dimensions = columns > 0 ? 2 : 1;
    if (t == NULL) return refuse_missing(m, name);
    if (t->dimensions != dimensions || t->shape[0] != rows ||
        (columns > 0 && t->shape[1] != columns))
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: tensor '%s' has %d dimension(s), the first of %lld and the last of %lld; "
            "config.json asks for [%lld%s%.0lld]",
            m->path, name, t->dimensions, (long long)(t->dimensions > 0 ? t->shape[0] : 0),
            (long long)(t->dimensions > 0 ? t->shape[t->dimensions - 1] : 0), (long long)rows,
            columns > 0 ? ", " : "", (long long)columns);
    if (!snrq_dtype_find(t->dtype, dtype))
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: tensor '%s' is of type %s; supported are F32, F16 and BF16 (quantized "
            "checkpoints cannot be quantized again)",
            m->path, name, t->dtype);
    *tensor = t;
    return SNRQ_OK;
}

/* ---- matrices in FP8 ---- */

bool snrq_model_is_fp8(const snrq_tensor *tensor)
{
    return strcmp(tensor->dtype, "F8_E4M3") == 0;
}

static snrq_status find_scales(const snrq_model *m, const snrq_tensor *t, int64_t rows,
                               int64_t columns, const snrq_tensor **out)
{
    const snrq_config *c = &m->config;
    char name[300];
    if (c->fp8_rows == 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: tensor '%s' is of type %s, and config.json has no "
                         "quantization_config of method fp8 with a weight_block_size",
                         m->path, t->name, t->dtype);
    int64_t high = (rows + c->fp8_rows - 1) / c->fp8_rows;
    int64_t wide = (columns + c->fp8_columns - 1) / c->fp8_columns;
    snrq_dtype dtype = SNRQ_F32;
    snprintf(name, sizeof name, "%s_scale_inv", t->name);
    return snrq_model_expect(m, name, high, wide, out, &dtype);
}

snrq_status snrq_model_expect_weight(const snrq_model *m, const char *name, int64_t rows,
                                     int64_t columns, const snrq_tensor **tensor)
{
    const snrq_tensor *t = snrq_model_tensor(m, name), *scales;
    snrq_dtype dtype = SNRQ_F32;
    if (t == NULL || !snrq_model_is_fp8(t))
        return snrq_model_expect(m, name, rows, columns, tensor, &dtype);
    if (t->dimensions != 2 || t->shape[0] != rows || t->shape[1] != columns)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: tensor '%s' has %d dimension(s), the last of %lld; config.json asks "
                         "for [%lld, %lld]",
                         m->path, name, t->dimensions,
                         (long long)(t->dimensions > 0 ? t->shape[t->dimensions - 1] : 0),
                         (long long)rows, (long long)columns);
    *tensor = t;
    return find_scales(m, t, rows, columns, &scales);
}

size_t snrq_model_weight_bytes(const snrq_tensor *tensor)
{
    return (size_t)tensor->bytes * (snrq_model_is_fp8(tensor) ? sizeof(float) : 1);
}

/* Rows of a matrix in FP8, as the numbers that they stand for. */
static snrq_status load_fp8_rows(const snrq_model *m, const snrq_tensor *t, const float *scales,
                                 snrq_range rows, int64_t columns, float *out)
{
    const snrq_config *c = &m->config;
    int64_t wide = (columns + c->fp8_columns - 1) / c->fp8_columns;
    size_t count = (size_t)((rows.end - rows.begin) * columns);
    unsigned char *raw = NULL;
    SNRQ_TRY(snrq_allocate_scratch(count, 1, t->name, &raw));
    snrq_status status = snrq_model_read(m, t, (uint64_t)(rows.begin * columns), count, raw);
    for (int64_t r = rows.begin; status == SNRQ_OK && r < rows.end; r++)
        for (int64_t k = 0; k < columns; k++) {
            int64_t at = (r - rows.begin) * columns + k;
            out[at] =
                snrq_e4m3_to_float(raw[at]) * scales[r / c->fp8_rows * wide + k / c->fp8_columns];
            if (!isfinite(out[at]))
                return free(raw),
                       snrq_fail(SNRQ_BAD_DATA,
                                 "%s: tensor '%s' is not finite at row %lld, column %lld: %g; is "
                                 "the checkpoint damaged?",
                                 m->path, t->name, (long long)r, (long long)k, (double)out[at]);
        }
    free(raw);
    return status;
}

static snrq_status read_fp8_scales(const snrq_model *m, const snrq_tensor *t, int64_t rows,
                                   int64_t columns, float **out)
{
    const snrq_tensor *scales = NULL;
    SNRQ_TRY(find_scales(m, t, rows, columns, &scales));
    int64_t wide = scales->shape[1], count = scales->shape[0] * wide;
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof **out, "scales", out));
    return snrq_model_read_vector(m, scales->name, count, wide, *out);
}

static snrq_status load_fp8(const snrq_context *context, const snrq_model *m, const snrq_tensor *t,
                            int64_t rows, int64_t columns, unsigned char *base, snrq_weight *out)
{
    float *scales = NULL, *to = (float *)(void *)base;
    *out = (snrq_weight){.rows = rows, .columns = columns, .dtype = SNRQ_F32, .dense = base};
    snrq_status status = read_fp8_scales(m, t, rows, columns, &scales);
    snrq_range mine = snrq_share(rows, 1, context->node_size, context->node_rank);
    int64_t piece = READ_BYTES / columns + 1;
    for (int64_t row = mine.begin; status == SNRQ_OK && row < mine.end; row += piece) {
        snrq_range part = {row, row + piece < mine.end ? row + piece : mine.end};
        status = load_fp8_rows(m, t, scales, part, columns, to + row * columns);
    }
    free(scales);
    return status;
}

snrq_status snrq_model_read(const snrq_model *m, const snrq_tensor *tensor, uint64_t begin,
                            uint64_t bytes, void *out)
{
    return m->quantized ? snrq_rest_file_read(m->rest, tensor, begin, bytes, out)
                        : snrq_safetensors_read(m->tensors, tensor, begin, bytes, out);
}

snrq_status snrq_model_read_vector(const snrq_model *m, const char *name, int64_t count,
                                   int64_t columns, float *out)
{
    const snrq_tensor *t = NULL;
    snrq_dtype dtype = SNRQ_F32;
    unsigned char *raw = NULL;
    SNRQ_TRY(
        snrq_model_expect(m, name, columns > 0 ? count / columns : count, columns, &t, &dtype));
    SNRQ_TRY(snrq_allocate((size_t)count, snrq_dtype_size(dtype), name, &raw));
    snrq_status status = snrq_model_read(m, t, 0, t->bytes, raw);
    if (status == SNRQ_OK) snrq_widen(dtype, raw, (size_t)count, out);
    free(raw);
    for (int64_t i = 0; status == SNRQ_OK && i < count; i++)
        if (!isfinite(out[i]))
            status = snrq_fail(SNRQ_BAD_DATA, "%s: tensor '%s' is not finite at %lld: %g", m->path,
                               name, (long long)i, (double)out[i]);
    return status;
}

/* Everything the configuration asks for is there, before anything is computed. */
static snrq_status check_tensors(const snrq_model *m)
{
    const snrq_config *c = &m->config;
    const snrq_tensor *t;
    snrq_dtype dtype = SNRQ_F32;
    char name[256];
    SNRQ_TRY(snrq_model_expect(m, snrq_embedding_name, c->vocabulary, c->hidden, &t, &dtype));
    SNRQ_TRY(snrq_model_expect(m, snrq_final_norm_name, c->hidden, 0, &t, &dtype));
    if (!c->tied_embeddings)
        SNRQ_TRY(snrq_model_expect(m, snrq_head_name, c->vocabulary, c->hidden, &t, &dtype));
    for (int64_t layer = 0; layer < c->layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int v = 0; v < f->vectors; v++) {
            const snrq_vector_shape *s = &f->vector[v];
            if (s->count == 0) continue;
            snrq_module_name(layer, s->name, name, sizeof name);
            SNRQ_TRY(snrq_model_expect(m, name, s->columns > 0 ? s->count / s->columns : s->count,
                                       s->columns, &t, &dtype));
        }
        for (int i = 0; i < f->modules; i++) {
            const snrq_module_shape *s = &f->module[i];
            if (m->quantized && !snrq_model_keeps(m, layer, i)) continue;
            char module[200];
            snrq_module_name(layer, s->name, module, sizeof module);
            snprintf(name, sizeof name, "%s.weight", module);
            SNRQ_TRY(snrq_model_expect_weight(m, name, s->rows, s->columns, &t));
        }
    }
    return SNRQ_OK;
}

/* A tensor of a block that nothing would read: the checkpoint is another kind of model than its
 * config.json says. */
static snrq_status check_blocks(const snrq_model *m)
{
    char shown[SNRQ_SHOWN];
    for (int64_t i = 0; i < snrq_safetensors_count(m->tensors); i++) {
        const snrq_tensor *t = snrq_safetensors_at(m->tensors, i);
        if (snrq_model_tensor_use(m, t) == SNRQ_TENSOR_WITHOUT_USE)
            return snrq_fail(
                SNRQ_BAD_DATA,
                "%s: tensor '%s' has no place in a block of %s with this config.json (is a "
                "switch such as attention_bias missing, or is it another architecture?)",
                m->path, snrq_shown(t->name, shown), m->config.architecture);
    }
    return SNRQ_OK;
}

/* What config.json does not say, the tensors do. */
static void settle_dtype(snrq_model *m)
{
    const bool coded = m->coded[SNRQ_EMBEDDING_TABLE];
    const snrq_tensor *embedding =
        snrq_model_tensor(m, coded ? snrq_final_norm_name : snrq_embedding_name);
    if (!m->config.dtype_given && embedding != NULL)
        (void)snrq_dtype_find(embedding->dtype, &m->config.dtype);
}

/* Opens what of an OUT directory is not in blocks. */
static snrq_status open_rest(snrq_model *m)
{
    char path[4096];
    SNRQ_TRY(snrq_path_join(m->path, "rest.h5", path, sizeof path));
    SNRQ_TRY(snrq_rest_file_open(path, &m->rest));
    if (!snrq_is_plain_file(m->path, "tables.h5")) return SNRQ_OK;
    SNRQ_TRY(snrq_path_join(m->path, "tables.h5", path, sizeof path));
    SNRQ_TRY(snrq_rest_file_add_tables(m->rest, path));
    m->coded[SNRQ_EMBEDDING_TABLE] = snrq_rest_file_table(m->rest, snrq_embedding_name) >= 0;
    m->coded[SNRQ_HEAD_TABLE] = snrq_rest_file_table(m->rest, snrq_head_name) >= 0;
    return SNRQ_OK;
}

/* Opens the tensors of a Hugging Face directory, under the names of its family. */
static snrq_status open_tensors(snrq_model *m)
{
    SNRQ_TRY(snrq_safetensors_open(m->path, &m->tensors));
    SNRQ_TRY(snrq_safetensors_resolve(m->tensors));
    settle_dtype(m);
    return SNRQ_OK;
}

static snrq_status open_local(const snrq_context *context, snrq_model *m)
{
    snrq_status status = snrq_config_read(m->path, &m->config);
    if (status == SNRQ_NO_INPUT)
        return snrq_fail(status,
                         "%s; expected a Hugging Face directory or an output of `snrq quantize`",
                         snrq_error_message());
    SNRQ_TRY(status);
    SNRQ_TRY(snrq_model_create_families(m));
    if (!m->quantized) {
        SNRQ_TRY(open_tensors(m));
        SNRQ_TRY(check_tensors(m));
        return check_blocks(m);
    }
    snrq_output_facts facts;
    /* Damaged codes would be read as other codes: every byte is checked before any is used. */
    if (context->rank == 0) SNRQ_TRY(snrq_output_verify(m->path, NULL, NULL));
    status = snrq_output_read(m->path, &facts);
    bool complete = facts.complete;
    if (status == SNRQ_OK) status = snrq_model_adopt_kept(m, facts.configuration);
    snrq_output_facts_free(&facts);
    SNRQ_TRY(status);
    if (!complete)
        return snrq_fail(SNRQ_NO_INPUT,
                         "%s: the quantization is unfinished; run the same `snrq quantize` command "
                         "again to complete it",
                         m->path);
    SNRQ_TRY(open_rest(m));
    settle_dtype(m);
    return check_tensors(m);
}

static snrq_status create(const char *path, snrq_model **out)
{
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "model", out));
    (*out)->quantized = snrq_output_is(path);
    if (strlen(path) >= sizeof(*out)->path)
        return snrq_fail(SNRQ_USAGE, "model path is longer than %zu bytes", sizeof(*out)->path - 1);
    strcpy((*out)->path, path);
    return SNRQ_OK;
}

snrq_status snrq_model_open(const snrq_context *context, const char *path, snrq_model **out)
{
    snrq_model *m = NULL;
    *out = NULL;
    snrq_status status = create(path, &m);
    if (status == SNRQ_OK) status = open_local(context, m);
    status = snrq_agree(context, status);
    if (status != SNRQ_OK)
        snrq_model_close(&m);
    else
        *out = m;
    return status;
}

/* Which modules an OUT directory keeps. */
static snrq_status look_for_kept(snrq_model *m)
{
    snrq_output_facts facts;
    snrq_status status = snrq_output_read(m->path, &facts);
    if (status == SNRQ_OK) status = snrq_model_adopt_kept(m, facts.configuration);
    snrq_output_facts_free(&facts);
    return status;
}

/* Of an OUT directory whose config.json does not say it. */
static snrq_status look_for_dtype(snrq_model *m)
{
    if (m->config.dtype_given) return SNRQ_OK;
    SNRQ_TRY(open_rest(m));
    settle_dtype(m);
    snrq_rest_file_close(&m->rest);
    return SNRQ_OK;
}

snrq_status snrq_model_look(const char *path, snrq_model **out)
{
    *out = NULL;
    snrq_status status = create(path, out);
    if (status == SNRQ_OK) status = snrq_config_read((*out)->path, &(*out)->config);
    if (status == SNRQ_OK) status = snrq_model_create_families(*out);
    if (status == SNRQ_OK && (*out)->quantized) status = look_for_kept(*out);
    if (status == SNRQ_OK) status = (*out)->quantized ? look_for_dtype(*out) : open_tensors(*out);
    if (status != SNRQ_OK) snrq_model_close(out);
    return status;
}

const char *snrq_model_side_path(const snrq_model *model)
{
    return model->side_path != NULL ? model->side_path : model->path;
}

void snrq_model_close(snrq_model **model)
{
    snrq_model *m = *model;
    if (m == NULL) return;
    snrq_safetensors_close(&m->tensors);
    snrq_rest_file_close(&m->rest);
    snrq_model_free_families(m);
    free(m->kept);
    free(m);
    *model = NULL;
}

/* Adds a tensor's description, first and last bytes to the hash. */
static snrq_status fingerprint_tensor(const snrq_model *m, const snrq_tensor *t, XXH3_state_t *hash)
{
    unsigned char sample[FINGERPRINT_SAMPLE];
    uint64_t bytes = t->bytes < sizeof sample ? t->bytes : sizeof sample;
    XXH3_128bits_update(hash, t->name, strlen(t->name) + 1);
    XXH3_128bits_update(hash, t->dtype, strlen(t->dtype) + 1);
    XXH3_128bits_update(hash, t->shape, (size_t)t->dimensions * sizeof t->shape[0]);
    SNRQ_TRY(snrq_model_read(m, t, 0, bytes, sample));
    XXH3_128bits_update(hash, sample, bytes);
    SNRQ_TRY(snrq_model_read(m, t, t->bytes - bytes, bytes, sample));
    XXH3_128bits_update(hash, sample, bytes);
    return SNRQ_OK;
}

snrq_status snrq_model_fingerprint(const snrq_model *m, char out[33])
{
    char path[4096], *text = NULL;
    size_t bytes = 0;
    XXH3_state_t *hash = XXH3_createState();
    if (hash == NULL) return snrq_fail(SNRQ_INTERNAL, "cannot allocate a hash state");
    XXH3_128bits_reset(hash);
    snrq_status status = snrq_path_join(m->path, "config.json", path, sizeof path);
    if (status == SNRQ_OK) status = snrq_file_read(path, 1 << 24, &text, &bytes);
    if (status == SNRQ_OK) XXH3_128bits_update(hash, text, bytes);
    for (int64_t i = 0; status == SNRQ_OK && i < snrq_safetensors_count(m->tensors); i++)
        status = fingerprint_tensor(m, snrq_safetensors_at(m->tensors, i), hash);
    XXH128_hash_t digest = XXH3_128bits_digest(hash);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)digest.high64,
             (unsigned long long)digest.low64);
    XXH3_freeState(hash);
    free(text);
    return status;
}

snrq_status snrq_model_rest_names(const snrq_model *m, char ***names, int *count)
{
    enum { NAME_BYTES = 128 };
    int64_t vectors = 0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int v = 0; v < f->vectors; v++) vectors += f->vector[v].count > 0;
        vectors += f->modules - snrq_model_stored_modules(m, layer);
    }
    int total = (int)(2 + !m->config.tied_embeddings + vectors);
    char **list = NULL;
    SNRQ_TRY(snrq_allocate((size_t)total, sizeof *list + NAME_BYTES, "tensor names", &list));
    char *text = (char *)(list + total);
    for (int i = 0; i < total; i++) list[i] = text + (size_t)i * NAME_BYTES;
    int n = 0;
    const bool *coded = m->coded, there = m->quantized; /* as what their codes stand for */
    if (there || !coded[SNRQ_EMBEDDING_TABLE])
        snprintf(list[n++], NAME_BYTES, "%s", snrq_embedding_name);
    snprintf(list[n++], NAME_BYTES, "%s", snrq_final_norm_name);
    if (!m->config.tied_embeddings && (there || !coded[SNRQ_HEAD_TABLE]))
        snprintf(list[n++], NAME_BYTES, "%s", snrq_head_name);
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int v = 0; v < f->vectors; v++)
            if (f->vector[v].count > 0)
                snrq_module_name(layer, f->vector[v].name, list[n++], NAME_BYTES);
        for (int i = 0; i < f->modules; i++)
            if (snrq_model_keeps(m, layer, i)) snrq_weight_name(m, layer, i, list[n++], NAME_BYTES);
    }
    *names = list;
    *count = n;
    return SNRQ_OK;
}

/* Reads some rows of a matrix to where they belong, and looks at them while they are in cache. */
static snrq_status load_rows(const snrq_model *m, const snrq_tensor *t, snrq_range rows,
                             const snrq_weight *out)
{
    size_t size = snrq_dtype_size(out->dtype), count;
    uint64_t row_bytes = (uint64_t)out->columns * size;
    /* The view is const for the forward pass; here the memory behind it is filled. */
    unsigned char *to = (unsigned char *)out->dense + (uint64_t)rows.begin * row_bytes;
    count = (size_t)(rows.end - rows.begin) * (size_t)out->columns;
    SNRQ_TRY(snrq_model_read(m, t, (uint64_t)rows.begin * row_bytes, count * size, to));
    size_t at = snrq_first_not_finite(out->dtype, to, count);
    if (at == count) return SNRQ_OK;
    float value = 0.0f;
    snrq_widen(out->dtype, to + at * size, 1, &value);
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: tensor '%s' is not finite at row %lld, column %lld: %g; is the "
                     "checkpoint damaged?",
                     m->path, t->name, (long long)(rows.begin + (int64_t)at / out->columns),
                     (long long)((int64_t)at % out->columns), (double)value);
}

snrq_status snrq_model_load_dense(const snrq_context *context, const snrq_model *m,
                                  const char *name, int64_t rows, int64_t columns,
                                  unsigned char *base, snrq_weight *out)
{
    const snrq_tensor *t = NULL;
    snrq_dtype dtype = SNRQ_F32;
    SNRQ_TRY(snrq_model_expect_weight(m, name, rows, columns, &t));
    if (snrq_model_is_fp8(t)) return load_fp8(context, m, t, rows, columns, base, out);
    (void)snrq_dtype_find(t->dtype, &dtype);
    snrq_range mine = snrq_share(rows, 1, context->node_size, context->node_rank);
    uint64_t row_bytes = (uint64_t)columns * snrq_dtype_size(dtype);
    *out = (snrq_weight){.rows = rows, .columns = columns, .dtype = dtype, .dense = base};
    snrq_status worst = SNRQ_OK;
    int64_t piece = READ_BYTES / (int64_t)row_bytes + 1, first = rows;
    char message[1024] = "";
#pragma omp parallel for schedule(dynamic) if (!m->quantized) /* HDF5 is for one thread */
    for (int64_t row = mine.begin; row < mine.end; row += piece) {
        snrq_range part = {row, row + piece < mine.end ? row + piece : mine.end};
        snrq_status status = load_rows(m, t, part, out);
        if (status == SNRQ_OK) continue;
#pragma omp critical
        if (row < first) { /* the same message for any number of threads */
            first = row;
            worst = status;
            snprintf(message, sizeof message, "%s", snrq_error_message());
        }
    }
    return worst == SNRQ_OK ? SNRQ_OK : snrq_fail(worst, "%s", message);
}

static snrq_status load_table(const snrq_context *context, const snrq_model *m, const char *name,
                              snrq_table *out)
{
    const snrq_tensor *t = NULL;
    snrq_dtype dtype = SNRQ_F32;
    int64_t rows = m->config.vocabulary, columns = m->config.hidden;
    memset(out, 0, sizeof *out);
    SNRQ_TRY(snrq_model_expect(m, name, rows, columns, &t, &dtype));
    SNRQ_TRY(snrq_node_memory_create(context, t->bytes, &out->memory));
    SNRQ_TRY(snrq_agree(context, snrq_model_load_dense(context, m, name, rows, columns,
                                                       out->memory->data, &out->weight)));
    return snrq_node_memory_sync(context, out->memory);
}

snrq_status snrq_model_load_embedding(const snrq_context *context, const snrq_model *m,
                                      snrq_table *out)
{
    return load_table(context, m, snrq_embedding_name, out);
}

snrq_status snrq_model_load_head(const snrq_context *context, const snrq_model *m, snrq_table *out)
{
    return load_table(context, m, m->config.tied_embeddings ? snrq_embedding_name : snrq_head_name,
                      out);
}

snrq_status snrq_model_load_coded_embedding(const snrq_context *context, const snrq_model *m,
                                            const char *directory, snrq_table *out)
{
    snrq_model written = {.quantized = true, .config = m->config};
    memset(out, 0, sizeof *out);
    snprintf(written.path, sizeof written.path, "%s", directory);
    snrq_status status = snrq_agree(context, open_rest(&written));
    if (status == SNRQ_OK) status = snrq_model_load_embedding(context, &written, out);
    snrq_rest_file_close(&written.rest);
    return status;
}

void snrq_table_free(snrq_table *table)
{
    snrq_node_memory_destroy(&table->memory);
}

snrq_status snrq_model_final_norm(const snrq_model *m, float **out)
{
    SNRQ_TRY(snrq_allocate((size_t)m->config.hidden, sizeof **out, "final norm", out));
    SNRQ_TRY(snrq_model_read_vector(m, snrq_final_norm_name, m->config.hidden, 0, *out));
    for (int64_t i = 0; m->config.norms_less_one && i < m->config.hidden; i++) (*out)[i] += 1.0f;
    return SNRQ_OK;
}
