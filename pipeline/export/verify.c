/* Comparing a transformers directory with OUT; see verify.h. */
#include "pipeline/export/verify.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/side_files.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"
#include "io/pieces.h"
#include "pipeline/export/decode.h"
#include "pipeline/export/side.h"
#include "pipeline/export/source.h"
#include "pipeline/model/kept.h"

enum { COPY_BYTES = 16 << 20, JSON_LIMIT = 1 << 24, FILE_LIMIT = 1 << 30 };

bool snrq_checkpoint_is(const char *directory, const char *format)
{
    const char *found = snrq_export_decoder_recognize(directory);
    return found != NULL && strcmp(found, format) == 0;
}

/* Quantized modules. */
struct comparison {
    snrq_decoded decoded;
    snrq_dtype round_to;
    float *expected, *found; /* [columns] */
};

static snrq_status differs(const struct comparison *c, int64_t row)
{
    const snrq_decoded *m = &c->decoded;
    int64_t column = 0;
    while (memcmp(&c->expected[column], &c->found[column], sizeof *c->found) == 0) column++;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: %s: the weight of output %lld, input %lld is %.9g, expected %.9g",
                     snrq_safetensors_file(snrq_export_decoder_tensors(m->decoder), m->codes_of),
                     m->codes_of->name, (long long)row, (long long)column, (double)c->found[column],
                     (double)c->expected[column]);
}

static snrq_status compare_rows(void *user, const snrq_export_rows *r)
{
    struct comparison *c = user;
    const snrq_module_record *record = r->module->record;
    for (int64_t row = r->range.begin; row < r->range.end; row++) {
        const int64_t i = row - r->range.begin;
        for (int64_t k = 0; k < record->columns; k++)
            c->expected[k] = snrq_round_to(c->round_to, snrq_export_value(r, i, k));
        SNRQ_TRY(snrq_decoded_row(&c->decoded, row, c->found));
        if (memcmp(c->expected, c->found, (size_t)record->columns * sizeof *c->found) != 0)
            return differs(c, row);
    }
    return SNRQ_OK;
}

/* A module, or with layer -1 the head (snrq_export_module_open), of this name and shape.
 * *tensors += how many tensors it has. */
static snrq_status compare_codes(const snrq_model *m, const snrq_export_decoder *d, int64_t layer,
                                 int index, const char *name, int64_t rows, int64_t row_columns,
                                 int64_t *tensors)
{
    struct comparison c = {.round_to = SNRQ_F32};
    snrq_export_module module = {0};
    snrq_status status = snrq_decoded_open(d, name, rows, row_columns, &c.decoded);
    if (status == SNRQ_OK && c.decoded.raw != NULL) c.round_to = c.decoded.type;
    if (status == SNRQ_OK) status = snrq_export_module_open(m, layer, index, &module);
    size_t columns = (size_t)row_columns;
    if (status == SNRQ_OK)
        status = snrq_allocate(columns, sizeof *c.expected, "a row", &c.expected);
    if (status == SNRQ_OK) status = snrq_allocate(columns, sizeof *c.found, "a row", &c.found);
    if (status == SNRQ_OK)
        status = snrq_export_module_rows(&module, (snrq_range){0, rows}, compare_rows, &c);
    *tensors += c.decoded.tensors;
    snrq_export_module_close(&module);
    snrq_decoded_close(&c.decoded);
    free(c.expected);
    free(c.found);
    return status;
}

static snrq_status compare_module(const snrq_model *m, const snrq_export_decoder *d, int64_t layer,
                                  int index, int64_t *tensors)
{
    const snrq_module_shape *s = &snrq_model_family(m, layer)->module[index];
    char name[256];
    snrq_module_name(layer, s->name, name, sizeof name);
    return compare_codes(m, d, layer, index, name, s->rows, s->columns, tensors);
}

/* Tensors that were copied. */

/* Compares some rows with room for them twice. */
static snrq_status compare_bytes(const snrq_model *m, const snrq_safetensors *files,
                                 const snrq_tensor *a, const snrq_tensor *b, snrq_range rows,
                                 unsigned char *expected, unsigned char *found)
{
    uint64_t row = a->bytes / (uint64_t)a->shape[0], at = (uint64_t)rows.begin * row, i = 0;
    uint64_t bytes = (uint64_t)(rows.end - rows.begin) * row;
    SNRQ_TRY(snrq_rest_file_read(m->rest, a, at, bytes, expected));
    SNRQ_TRY(snrq_safetensors_read(files, b, at, bytes, found));
    if (memcmp(expected, found, bytes) == 0) return SNRQ_OK;
    while (expected[i] == found[i]) i++;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s: byte %llu is 0x%02x, expected 0x%02x",
                     snrq_safetensors_file(files, b), b->name, (unsigned long long)(at + i),
                     found[i], expected[i]);
}

static snrq_status compare_copy(const snrq_model *m, const snrq_safetensors *files,
                                const char *name)
{
    const snrq_tensor *a = snrq_rest_file_find(m->rest, name);
    const snrq_tensor *b = snrq_safetensors_find(files, name);
    unsigned char *data = NULL;
    if (a == NULL || b == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "tensor %s is missing in the %s", name,
                         a == NULL ? "quantized model" : "export");
    if (strcmp(a->dtype, b->dtype) != 0 || a->dimensions != b->dimensions ||
        memcmp(a->shape, b->shape, (size_t)a->dimensions * sizeof *a->shape) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s has another type or shape than in %s",
                         snrq_safetensors_file(files, b), name, m->path);
    const size_t row = (size_t)(a->bytes / (uint64_t)a->shape[0]);
    snrq_pieces p = snrq_pieces_of((snrq_range){0, a->shape[0]}, row, COPY_BYTES, 1);
    SNRQ_TRY(snrq_allocate(2 * (size_t)p.most, row, "rows to compare", &data));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && snrq_pieces_next(&p))
        status = compare_bytes(m, files, a, b, p.piece, data, data + (size_t)p.most * row);
    free(data);
    return status;
}

/* A quantized head may be there as codes; then there is no tensor of this name. */
static snrq_status compare_rest(const snrq_model *m, const snrq_export_decoder *d,
                                const char *tensor, int64_t *tensors)
{
    const snrq_safetensors *files = snrq_export_decoder_tensors(d);
    const int place = snrq_rest_file_table(m->rest, tensor);
    if (place >= 0 && snrq_safetensors_find(files, tensor) == NULL) {
        const snrq_module_record *r = snrq_block_file_record(snrq_rest_file_tables(m->rest), place);
        return compare_codes(m, d, -1, place, r->name, r->rows, r->columns, tensors);
    }
    (*tensors)++;
    return compare_copy(m, files, tensor);
}

/* Every rank compares some of the tensors; *tensors: how many this rank has seen. */
static snrq_status compare_share(const snrq_context *c, const snrq_model *m,
                                 const snrq_export_decoder *d, int64_t *tensors)
{
    char **names = NULL;
    int count = 0;
    int64_t next = 0;
    for (int64_t layer = 0; layer < m->config.layers; layer++)
        for (int i = 0; i < snrq_model_family(m, layer)->modules; i++)
            if (!snrq_model_keeps(m, layer, i) && next++ % c->size == c->rank)
                SNRQ_TRY(compare_module(m, d, layer, i, tensors));
    SNRQ_TRY(snrq_model_rest_names(m, &names, &count));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        if (next++ % c->size != c->rank) continue;
        status = compare_rest(m, d, names[i], tensors);
    }
    free(names);
    return status;
}

/* Rank 0: the files around the tensors. */

/* No file with weights that the index does not know, and no tensor in them that it does not know.
 */
static snrq_status compare_files(const char *directory, const snrq_safetensors *files,
                                 int64_t tensors)
{
    char **names = NULL, path[PATH_MAX];
    int count = 0;
    int64_t found = 0;
    if (snrq_safetensors_count(files) != tensors)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %lld tensors, expected %lld", directory,
                         (long long)snrq_safetensors_count(files), (long long)tensors);
    SNRQ_TRY(snrq_directory_names(directory, &names, &count));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        snrq_safetensors *one = NULL;
        if (!snrq_ends_with(names[i], ".safetensors")) continue;
        status = snrq_path_join(directory, names[i], path, sizeof path);
        if (status == SNRQ_OK) status = snrq_safetensors_open(path, &one);
        if (status == SNRQ_OK) found += snrq_safetensors_count(one);
        const char *format = one != NULL ? snrq_safetensors_metadata(one, "format") : NULL;
        if (status == SNRQ_OK && (format == NULL || strcmp(format, "pt") != 0))
            status = snrq_fail(SNRQ_BAD_DATA, "%s: __metadata__ has no format \"pt\"", path);
        snrq_safetensors_close(&one);
    }
    snrq_names_free(&names, count);
    if (status == SNRQ_OK && found != tensors)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: its files hold %lld tensors, the index knows %lld",
                           directory, (long long)found, (long long)tensors);
    return status;
}

/* Both directories hold the file, byte for byte. */
static snrq_status compare_file(const char *from, const char *directory, const char *name)
{
    char path[PATH_MAX], before[33], after[33];
    uint64_t bytes;
    SNRQ_TRY(snrq_path_join(from, name, path, sizeof path));
    SNRQ_TRY(snrq_file_hash(path, before, &bytes));
    SNRQ_TRY(snrq_path_join(directory, name, path, sizeof path));
    SNRQ_TRY(snrq_file_hash(path, after, &bytes));
    if (strcmp(before, after) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: is not the one of %s (give --tokenizer DIR if it was exported with "
                     "that)",
                     path, from);
}

/* Is the file one that an export has? Weight files are compared elsewhere. */
static bool is_expected(const snrq_export_side *side, const char *directory, const char *name)
{
    return strcmp(name, "config.json") == 0 || snrq_ends_with(name, ".safetensors") ||
           strcmp(name, "model.safetensors.index.json") == 0 ||
           strncmp(name, "snrq.lock", 9) == 0 || snrq_export_side_has(side, name) ||
           (strcmp(name, "quantize_config.json") == 0 && snrq_checkpoint_is(directory, "gptq"));
}

static snrq_status check_strays(const snrq_export_side *side, const char *directory,
                                const char *folder)
{
    char path[PATH_MAX], name[PATH_MAX], **names = NULL;
    int count = 0;
    SNRQ_TRY(snrq_path_join(directory, folder, path, sizeof path));
    snrq_status status = snrq_directory_names(path, &names, &count);
    if (status == SNRQ_NO_INPUT && folder[0] != '\0') return SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        status = folder[0] == '\0' ? snrq_path_join("", names[i], name, sizeof name)
                                   : snrq_path_join(folder, names[i], name, sizeof name);
        if (status != SNRQ_OK || (folder[0] == '\0' && strcmp(name, SNRQ_CHAT_TEMPLATES) == 0))
            continue;
        if (!is_expected(side, directory, name))
            status = snrq_fail(SNRQ_BAD_DATA, "%s: holds %s, which is no part of the export",
                               directory, name);
    }
    snrq_names_free(&names, count);
    return status;
}

static snrq_status compare_side_files(const snrq_model *m, const char *directory)
{
    snrq_export_side side = {0};
    snrq_status status = snrq_export_side_open(m, &side);
    for (int i = 0; i < side.count && status == SNRQ_OK; i++)
        status = compare_file(side.from[i], directory, side.names[i]);
    if (status == SNRQ_OK) status = check_strays(&side, directory, "");
    if (status == SNRQ_OK) status = check_strays(&side, directory, SNRQ_CHAT_TEMPLATES);
    snrq_export_side_close(&side);
    return status;
}

/* GPTQ's second description says what config.json says. */
static snrq_status compare_descriptions(const char *directory)
{
    char path[PATH_MAX];
    json_t *config = NULL, *other = NULL;
    if (!snrq_checkpoint_is(directory, "gptq")) return SNRQ_OK;
    SNRQ_TRY(snrq_path_join(directory, "config.json", path, sizeof path));
    SNRQ_TRY(snrq_json_read(path, JSON_LIMIT, &config));
    snrq_status status = snrq_path_join(directory, "quantize_config.json", path, sizeof path);
    if (status == SNRQ_OK) status = snrq_json_read(path, JSON_LIMIT, &other);
    if (status == SNRQ_OK && !json_equal(other, json_object_get(config, "quantization_config")))
        status =
            snrq_fail(SNRQ_BAD_DATA, "%s: is not the quantization_config of config.json", path);
    json_decref(config);
    json_decref(other);
    return status;
}

static const char *torch_type(const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "torch_dtype"));
    return type != NULL ? type : json_string_value(json_object_get(config, "dtype"));
}

/* Removes what an export says for older readers if it repeats what is there for newer ones. */
static void drop_older_rope(const json_t *before, json_t *after)
{
    static const char *const keys[] = {"rope_theta", "rope_scaling"};
    const json_t *rope = json_object_get(before, "rope_parameters");
    const json_t *same[] = {json_object_get(rope, keys[0]), rope};
    for (int i = 0; i < 2; i++)
        if (json_object_get(before, keys[i]) == NULL &&
            json_equal(json_object_get(after, keys[i]), (json_t *)same[i]))
            json_object_del(after, keys[i]);
}

/* config.json is the model's, but for the number type and the quantization. A reader casts scales
 * to that type: it must be theirs. */
static snrq_status compare_config(const snrq_model *m, const char *directory, snrq_dtype scales)
{
    static const char *const torch_names[] = {"float32", "float16", "bfloat16"};
    static const char *const own[] = {"quantization_config", "torch_dtype", "dtype"};
    char path[PATH_MAX];
    json_t *before = NULL, *after = NULL;
    SNRQ_TRY(snrq_path_join(m->path, "config.json", path, sizeof path));
    SNRQ_TRY(snrq_json_read(path, JSON_LIMIT, &before));
    snrq_status status = snrq_path_join(directory, "config.json", path, sizeof path);
    if (status == SNRQ_OK) status = snrq_json_read(path, JSON_LIMIT, &after);
    json_object_del(before, "auto_map"); /* never exported */
    const char *type = torch_type(after);
    if (status == SNRQ_OK && (type == NULL || (strcmp(type, torch_names[SNRQ_F32]) != 0 &&
                                               strcmp(type, torch_names[scales]) != 0)))
        status = snrq_fail(SNRQ_BAD_DATA, "%s: torch_dtype is %s, which would change numbers of %s",
                           path, type != NULL ? type : "missing", snrq_dtype_name(scales));
    for (size_t i = 0; i < sizeof own / sizeof *own && status == SNRQ_OK; i++) {
        json_object_del(before, own[i]);
        json_object_del(after, own[i]);
    }
    drop_older_rope(before, after);
    if (status == SNRQ_OK && !json_equal(before, after))
        status = snrq_fail(SNRQ_BAD_DATA,
                           "%s: differs from that of %s in more than its number "
                           "type and quantization",
                           path, m->path);
    json_decref(before);
    json_decref(after);
    return status;
}

static snrq_status compare_surroundings(const snrq_model *m, const char *directory,
                                        const snrq_export_decoder *d, int64_t tensors)
{
    char name[256];
    snrq_decoded first;
    int64_t layer = 0;
    int index = 0;
    while (snrq_model_stored_modules(m, layer) == 0) layer++;
    while (snrq_model_keeps(m, layer, index)) index++;
    const snrq_module_shape *s = &snrq_model_family(m, layer)->module[index];
    snrq_module_name(layer, s->name, name, sizeof name);
    SNRQ_TRY(snrq_decoded_open(d, name, s->rows, s->columns, &first));
    /* Floating point numbers have scales of their own types, which no reader casts. */
    snrq_dtype type = first.floats != NULL ? m->config.dtype : first.type;
    snrq_decoded_close(&first);
    SNRQ_TRY(compare_config(m, directory, type));
    SNRQ_TRY(compare_descriptions(directory));
    SNRQ_TRY(compare_side_files(m, directory));
    return compare_files(directory, snrq_export_decoder_tensors(d), tensors);
}

snrq_status snrq_checkpoint_verify(const snrq_context *c, const snrq_model *m,
                                   const char *directory, int64_t *tensors)
{
    snrq_export_decoder *d = NULL;
    *tensors = 0;
    snrq_status status = snrq_agree(c, snrq_export_decoder_open(directory, &d));
    if (status == SNRQ_OK) status = snrq_agree(c, compare_share(c, m, d, tensors));
    if (status == SNRQ_OK) status = snrq_sum_int64(c, tensors, 1);
    if (status == SNRQ_OK) {
        if (c->rank == 0) status = compare_surroundings(m, directory, d, *tensors);
        status = snrq_agree(c, status);
    }
    snrq_export_decoder_close(&d);
    return status;
}
