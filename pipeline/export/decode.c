/* Reading exported weights back; see decode.h. */
#include "pipeline/export/decode.h"

#include <limits.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"

enum { CONFIG_LIMIT = 1 << 24, NAME = 320 };
/* The kinds of directories that can be read; names as in --format. */
typedef enum directory_kind { GPTQ, COMPRESSED, FP8, DENSE, KINDS } directory_kind;
static const char *const kind_names[] = {"gptq", "compressed-tensors", "fp8", "safetensors"};
_Static_assert(sizeof kind_names / sizeof *kind_names == KINDS, "a name for every kind");

struct snrq_export_decoder {
    char path[PATH_MAX]; /* of config.json */
    directory_kind kind;
    snrq_decoded_settings usual; /* of modules that nothing else names */
    bool has_usual;
    snrq_decoded_settings *group; /* [groups] owned */
    json_t *named;                /* compressed-tensors: group of a module, by its name; owned */
    regex_t *pattern;             /* gptq: [groups] whose modules have group[i]; owned */
    int groups;
    int zero_offset; /* gptq: added to the stored zeros */
    snrq_safetensors *tensors;
};

/* What the directory says about itself. */

static snrq_status read_config(const char *directory, char path[PATH_MAX], json_t **out)
{
    SNRQ_TRY(snrq_path_join(directory, "config.json", path, PATH_MAX));
    return snrq_json_read(path, CONFIG_LIMIT, out);
}

/* KINDS if config.json names another method. */
static directory_kind kind_of(const json_t *config)
{
    const json_t *quantization = json_object_get(config, "quantization_config");
    const char *method = json_string_value(json_object_get(quantization, "quant_method"));
    if (quantization == NULL) return DENSE;
    for (int k = 0; k < KINDS; k++)
        if (k != DENSE && method != NULL && strcmp(method, kind_names[k]) == 0)
            return (directory_kind)k;
    return KINDS;
}

const char *snrq_export_decoder_recognize(const char *directory)
{
    char path[PATH_MAX];
    json_t *config = NULL;
    if (read_config(directory, path, &config) != SNRQ_OK) return NULL;
    directory_kind k = kind_of(config);
    json_decref(config);
    return k == KINDS ? NULL : kind_names[k];
}

/* The settings of a kind of modules; what it does not say is as in `usual`, NULL: must be said. */
static snrq_status parse_gptq_settings(const char *path, const json_t *q,
                                       const snrq_decoded_settings *usual,
                                       snrq_decoded_settings *out)
{
    const int64_t *bits = usual != NULL ? &usual->bits : NULL;
    const int64_t *size = usual != NULL ? &usual->group_size : NULL;
    SNRQ_TRY(snrq_json_integer(path, q, "bits", 2, 8, bits, &out->bits));
    SNRQ_TRY(snrq_json_integer(path, q, "group_size", -1, INT32_MAX, size, &out->group_size));
    if (out->group_size == -1) out->group_size = 0;
    return SNRQ_OK;
}

/* "dynamic": settings by patterns of names. "-:" stands before those of modules that are not
 * quantized, of which no settings are asked for. */
static snrq_status parse_dynamic(const json_t *q, snrq_export_decoder *d)
{
    json_t *dynamic = json_object_get(q, "dynamic"), *own;
    const size_t count = json_object_size(dynamic);
    const char *key;
    if (dynamic == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate(count, sizeof *d->pattern, "patterns", &d->pattern));
    SNRQ_TRY(snrq_allocate(count, sizeof *d->group, "settings", &d->group));
    json_object_foreach(dynamic, key, own)
    {
        if (strncmp(key, "-:", 2) == 0) continue;
        if (strncmp(key, "+:", 2) != 0 ||
            regcomp(&d->pattern[d->groups], key + 2, REG_EXTENDED | REG_NOSUB) != 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: dynamic: \"%s\" is no pattern after +: or -:", d->path, key);
        d->groups++;
        SNRQ_TRY(parse_gptq_settings(d->path, own, &d->usual, &d->group[d->groups - 1]));
    }
    return SNRQ_OK;
}

static snrq_status parse_gptq(const json_t *q, snrq_export_decoder *d)
{
    const char *version;
    static const char *const names[] = {"gptq", "gptq_v2"};
    SNRQ_TRY(parse_gptq_settings(d->path, q, NULL, &d->usual));
    SNRQ_TRY(snrq_json_string(d->path, q, "checkpoint_format", NULL, &version));
    SNRQ_TRY(parse_dynamic(q, d));
    d->has_usual = true;
    for (int v = 0; v < 2; v++)
        if (strcmp(version, names[v]) == 0) {
            d->zero_offset = 1 - v;
            return SNRQ_OK;
        }
    return snrq_fail(SNRQ_BAD_DATA, "%s: checkpoint_format: expected gptq or gptq_v2", d->path);
}

/* Of floating point numbers, what the group says must be what the format has. */
static snrq_status check_floats(const snrq_export_decoder *d, const json_t *weights,
                                snrq_float_kind kind)
{
    static const char *const strategies[] = {
        [SNRQ_MXFP4] = "group", [SNRQ_NVFP4] = "tensor_group", [SNRQ_FP8_BLOCK] = "block"};
    const char *type, *strategy;
    const int64_t none = 0, bits = snrq_float_kind_bits(kind);
    int64_t found, group, size[2] = {snrq_float_kind_rows(kind), snrq_float_kind_inputs(kind)};
    const json_t *block = json_object_get(weights, "block_structure");
    SNRQ_TRY(snrq_json_string(d->path, weights, "type", NULL, &type));
    SNRQ_TRY(snrq_json_string(d->path, weights, "strategy", NULL, &strategy));
    SNRQ_TRY(snrq_json_integer(d->path, weights, "num_bits", bits, bits, NULL, &found));
    SNRQ_TRY(snrq_json_integer(d->path, weights, "group_size", 0, INT32_MAX, &none, &group));
    bool fits = strcmp(type, "float") == 0 && strcmp(strategy, strategies[kind]) == 0;
    if (kind != SNRQ_FP8_BLOCK)
        fits = fits && group == size[1];
    else
        for (size_t i = 0; i < 2; i++)
            fits = fits && json_integer_value(json_array_get(block, i)) == size[i];
    if (fits) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: a group of weights does not have the type, the strategy and the groups "
                     "of its format",
                     d->path);
}

/* format: of a group that says none, NULL: it must. */
static snrq_status parse_weights(const snrq_export_decoder *d, const json_t *group,
                                 const char *format, snrq_decoded_settings *out)
{
    const char *strategy, *order;
    const int64_t none = 0;
    json_t *weights;
    SNRQ_TRY(snrq_json_object(d->path, group, "weights", &weights));
    SNRQ_TRY(snrq_json_string(d->path, group, "format", format, &format));
    out->floats = snrq_float_kind_named(format);
    if (out->floats != SNRQ_NO_FLOATS) return check_floats(d, weights, out->floats);
    if (strcmp(format, "pack-quantized") != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: the format is %s; expected pack-quantized, mxfp4-pack-quantized, "
                         "nvfp4-pack-quantized or float-quantized",
                         d->path, format);
    SNRQ_TRY(snrq_json_integer(d->path, weights, "num_bits", 2, 8, NULL, &out->bits));
    SNRQ_TRY(snrq_json_string(d->path, weights, "strategy", NULL, &strategy));
    SNRQ_TRY(snrq_json_string(d->path, weights, "actorder", "", &order));
    SNRQ_TRY(
        snrq_json_integer(d->path, weights, "group_size", 0, INT32_MAX, &none, &out->group_size));
    SNRQ_TRY(snrq_json_boolean(d->path, weights, "symmetric", true, &out->symmetric));
    out->has_g_idx = strcmp(order, "group") == 0;
    if (strcmp(strategy, out->group_size > 0 ? "group" : "channel") == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: expected weights by group or channel", d->path);
}

/* A group is for all linear layers, or for those that it names. */
static snrq_status parse_targets(const json_t *group, int index, snrq_export_decoder *d)
{
    json_t *targets;
    const json_t *target;
    size_t i;
    SNRQ_TRY(snrq_json_array(d->path, group, "targets", &targets));
    json_array_foreach(targets, i, target)
    {
        const char *name = json_string_value(target);
        bool all = name != NULL && strcmp(name, "Linear") == 0;
        if (name == NULL || (all && d->has_usual) || json_object_get(d->named, name) != NULL)
            return snrq_fail(SNRQ_BAD_DATA, "%s: a target is no name, or is in two groups",
                             d->path);
        if (all) d->usual = d->group[index];
        d->has_usual |= all;
        if (!all && json_object_set_new(d->named, name, json_integer(index)) != 0)
            return snrq_fail(SNRQ_INTERNAL, "no memory for names of modules");
    }
    return SNRQ_OK;
}

static snrq_status parse_compressed(const json_t *q, snrq_export_decoder *d)
{
    const char *format, *key;
    json_t *groups, *group;
    SNRQ_TRY(snrq_json_string(d->path, q, "format", NULL, &format));
    SNRQ_TRY(snrq_json_object(d->path, q, "config_groups", &groups));
    if (strcmp(format, "mixed-precision") == 0) format = NULL; /* each group says its own */
    SNRQ_TRY(snrq_allocate(json_object_size(groups) + 1, sizeof *d->group, "settings", &d->group));
    d->named = json_object();
    json_object_foreach(groups, key, group)
    {
        SNRQ_TRY(parse_weights(d, group, format, &d->group[d->groups]));
        SNRQ_TRY(parse_targets(group, d->groups++, d));
    }
    return SNRQ_OK;
}

static snrq_status parse_fp8(const json_t *q, snrq_export_decoder *d)
{
    json_t *size;
    const char *format;
    SNRQ_TRY(snrq_json_array(d->path, q, "weight_block_size", &size));
    SNRQ_TRY(snrq_json_string(d->path, q, "fmt", "e4m3", &format));
    d->has_usual = true;
    d->usual.floats = SNRQ_FP8_BLOCK;
    if (strcmp(format, "e4m3") == 0 && json_array_size(size) == 2 &&
        json_integer_value(json_array_get(size, 0)) == snrq_float_kind_rows(SNRQ_FP8_BLOCK) &&
        json_integer_value(json_array_get(size, 1)) == snrq_float_kind_inputs(SNRQ_FP8_BLOCK))
        return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: expected e4m3 with weight_block_size [128, 128]", d->path);
}

/* What the directory says about a module. */
static snrq_status settings_of(const snrq_export_decoder *d, const char *name,
                               snrq_decoded_settings *out)
{
    const json_t *index = json_object_get(d->named, name);
    *out = d->usual;
    if (index != NULL) *out = d->group[json_integer_value(index)];
    for (int i = 0; d->pattern != NULL && i < d->groups; i++)
        if (regexec(&d->pattern[i], name, 0, NULL, 0) == 0) {
            *out = d->group[i];
            return SNRQ_OK;
        }
    if (d->has_usual || index != NULL || d->kind == DENSE) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: no group of weights is for %s", d->path, name);
}

static snrq_status open_all(const char *directory, snrq_export_decoder *d)
{
    json_t *config = NULL, *q = NULL;
    SNRQ_TRY(read_config(directory, d->path, &config));
    d->kind = kind_of(config);
    snrq_status status = SNRQ_OK;
    if (d->kind == KINDS) status = snrq_fail(SNRQ_BAD_DATA, "%s: unknown quant_method", d->path);
    if (status == SNRQ_OK && d->kind != DENSE)
        status = snrq_json_object(d->path, config, "quantization_config", &q);
    if (status == SNRQ_OK && d->kind == GPTQ) status = parse_gptq(q, d);
    if (status == SNRQ_OK && d->kind == COMPRESSED) status = parse_compressed(q, d);
    if (status == SNRQ_OK && d->kind == FP8) status = parse_fp8(q, d);
    json_decref(config);
    if (status == SNRQ_OK) status = snrq_safetensors_open(directory, &d->tensors);
    return status;
}

snrq_status snrq_export_decoder_open(const char *directory, snrq_export_decoder **out)
{
    *out = NULL;
    snrq_export_decoder *d = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *d, "decoder", &d));
    snrq_status status = open_all(directory, d);
    if (status != SNRQ_OK) snrq_export_decoder_close(&d);
    *out = d;
    return status;
}

void snrq_export_decoder_close(snrq_export_decoder **decoder)
{
    if (*decoder == NULL) return;
    snrq_safetensors_close(&(*decoder)->tensors);
    for (int i = 0; (*decoder)->pattern != NULL && i < (*decoder)->groups; i++)
        regfree(&(*decoder)->pattern[i]);
    free((*decoder)->pattern);
    free((*decoder)->group);
    json_decref((*decoder)->named);
    free(*decoder);
    *decoder = NULL;
}

const snrq_safetensors *snrq_export_decoder_tensors(const snrq_export_decoder *decoder)
{
    return decoder->tensors;
}

/* Loading a module. */

/* The tensor MODULE.NAME, which must have this type and shape; columns 0: one dimension. */
static snrq_status find(const snrq_export_decoder *d, const char *module, const char *name,
                        const char *dtype, int64_t rows, int64_t columns, const snrq_tensor **out)
{
    char full[NAME];
    snprintf(full, sizeof full, "%s.%s", module, name);
    const snrq_tensor *t = snrq_safetensors_find(d->tensors, full);
    if (t == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s asks for a tensor %s, which is missing", d->path, full);
    if ((dtype != NULL && strcmp(t->dtype, dtype) != 0) || t->dimensions != (columns > 0 ? 2 : 1) ||
        t->shape[0] != rows || (columns > 0 && t->shape[1] != columns))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %s is %s with %d dimensions, first %lld, last %lld; expected %s "
                         "[%lld%s%.0lld]",
                         snrq_safetensors_file(d->tensors, t), full, t->dtype, t->dimensions,
                         (long long)(t->dimensions > 0 ? t->shape[0] : 0),
                         (long long)(t->dimensions > 0 ? t->shape[t->dimensions - 1] : 0),
                         dtype != NULL ? dtype : "F16, BF16 or F32", (long long)rows,
                         columns > 0 ? ", " : "", (long long)columns);
    *out = t;
    return SNRQ_OK;
}

/* Reads a whole tensor to newly allocated memory. */
static snrq_status load(const snrq_export_decoder *d, const snrq_tensor *t, void *out)
{
    void *data = NULL;
    SNRQ_TRY(snrq_allocate((size_t)t->bytes, 1, t->name, &data));
    memcpy(out, &data, sizeof data); /* from here on the module owns it */
    return snrq_safetensors_read(d->tensors, t, 0, t->bytes, data);
}

static snrq_status type_of(const snrq_export_decoder *d, const snrq_tensor *t, snrq_dtype *type)
{
    if (snrq_dtype_find(t->dtype, type)) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s is %s, expected F16, BF16 or F32",
                     snrq_safetensors_file(d->tensors, t), t->name, t->dtype);
}

static snrq_status load_scales(const snrq_export_decoder *d, const snrq_tensor *t, snrq_decoded *m)
{
    void *stored = NULL;
    size_t count = (size_t)(m->rows * m->groups);
    SNRQ_TRY(type_of(d, t, &m->type));
    snrq_status status = snrq_allocate(count, sizeof *m->scales, "scales", &m->scales);
    if (status == SNRQ_OK) status = load(d, t, &stored);
    if (status == SNRQ_OK) snrq_widen(m->type, stored, count, m->scales);
    free(stored);
    return status;
}

static snrq_status check_g_idx(const snrq_export_decoder *d, const snrq_tensor *t,
                               const snrq_decoded *m)
{
    for (int64_t c = 0; c < m->columns; c++)
        if (m->g_idx[c] < 0 || m->g_idx[c] >= m->groups)
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s: group %d of input %lld, expected 0 to %lld",
                             snrq_safetensors_file(d->tensors, t), t->name, m->g_idx[c],
                             (long long)c, (long long)m->groups - 1);
    return SNRQ_OK;
}

static snrq_status open_gptq(const snrq_export_decoder *d, const char *name, snrq_decoded *m)
{
    const snrq_tensor *zeros, *scales, *g_idx;
    const int64_t n = m->rows, b = m->settings.bits;
    if (m->columns * b % 32 != 0 || n * b % 32 != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s: codes do not fill whole words", d->path, name);
    SNRQ_TRY(find(d, name, "qweight", "I32", m->columns * b / 32, n, &m->codes_of));
    SNRQ_TRY(find(d, name, "qzeros", "I32", m->groups, n * b / 32, &zeros));
    SNRQ_TRY(find(d, name, "scales", "F16", m->groups, n, &scales));
    SNRQ_TRY(find(d, name, "g_idx", "I32", m->columns, 0, &g_idx));
    m->tensors = 4;
    m->code_step = n;
    m->code_row = 1;
    m->zero_step = 1;
    m->zero_group = n * b / 32;
    m->scale_row = 1;
    m->scale_group = n;
    SNRQ_TRY(load(d, m->codes_of, &m->codes));
    SNRQ_TRY(load(d, zeros, &m->zeros));
    SNRQ_TRY(load(d, g_idx, &m->g_idx));
    SNRQ_TRY(check_g_idx(d, g_idx, m));
    return load_scales(d, scales, m);
}

static snrq_status check_shape_tensor(const snrq_export_decoder *d, const char *name,
                                      const snrq_decoded *m)
{
    const snrq_tensor *t;
    int64_t shape[2];
    SNRQ_TRY(find(d, name, "weight_shape", "I64", 2, 0, &t));
    SNRQ_TRY(snrq_safetensors_read(d->tensors, t, 0, sizeof shape, shape));
    if (shape[0] == m->rows && shape[1] == m->columns) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s holds %lld, %lld; expected %lld, %lld",
                     snrq_safetensors_file(d->tensors, t), t->name, (long long)shape[0],
                     (long long)shape[1], (long long)m->rows, (long long)m->columns);
}

/* Scales of floating point numbers, as they multiply: of E8M0 or E4M3, or fp32. */
static snrq_status load_float_scales(const snrq_export_decoder *d, const snrq_tensor *t,
                                     float divisor, size_t count, snrq_decoded *m)
{
    uint8_t *stored = NULL;
    const snrq_float_kind kind = m->settings.floats;
    snrq_status status = snrq_allocate(count, sizeof *m->scales, "scales", &m->scales);
    if (status == SNRQ_OK) status = load(d, t, &stored);
    for (size_t i = 0; status == SNRQ_OK && i < count; i++) {
        if (kind == SNRQ_MXFP4) m->scales[i] = snrq_e8m0_number(stored[i]);
        if (kind == SNRQ_NVFP4) m->scales[i] = snrq_e4m3_number(stored[i]) / divisor;
        if (kind == SNRQ_FP8_BLOCK) memcpy(&m->scales[i], stored + 4 * i, 4);
        if (!isfinite(m->scales[i]))
            status = snrq_fail(SNRQ_BAD_DATA, "%s: %s: scale %zu is no number",
                               snrq_safetensors_file(d->tensors, t), t->name, i);
    }
    free(stored);
    return status;
}

/* What the scales of a module are divided by. */
static snrq_status load_divisor(const snrq_export_decoder *d, const char *name, float *out)
{
    const snrq_tensor *t;
    SNRQ_TRY(find(d, name, "weight_global_scale", "F32", 1, 0, &t));
    SNRQ_TRY(snrq_safetensors_read(d->tensors, t, 0, sizeof *out, out));
    if (*out > 0.0f && isfinite(*out)) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s is %g, expected a number above 0",
                     snrq_safetensors_file(d->tensors, t), t->name, (double)*out);
}

static snrq_status open_floats(const snrq_export_decoder *d, const char *name,
                               const char *scale_name, snrq_decoded *m)
{
    static const char *const types[] = {
        [SNRQ_MXFP4] = "U8", [SNRQ_NVFP4] = "F8_E4M3", [SNRQ_FP8_BLOCK] = "F32"};
    const snrq_float_kind kind = m->settings.floats;
    const int64_t inputs = snrq_float_kind_inputs(kind), shared = snrq_float_kind_rows(kind);
    const int64_t rows = (m->rows + shared - 1) / shared;
    const bool packed = snrq_float_kind_bits(kind) == 4;
    const snrq_tensor *scales;
    float divisor = 1.0f;
    m->groups = (m->columns + inputs - 1) / inputs;
    if (packed && m->columns % inputs != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: groups of %lld do not divide %lld inputs of %s",
                         d->path, (long long)inputs, (long long)m->columns, name);
    SNRQ_TRY(find(d, name, packed ? "weight_packed" : "weight", packed ? "U8" : "F8_E4M3", m->rows,
                  packed ? m->columns / 2 : m->columns, &m->codes_of));
    SNRQ_TRY(find(d, name, scale_name, types[kind], rows, m->groups, &scales));
    if (kind == SNRQ_NVFP4) SNRQ_TRY(load_divisor(d, name, &divisor));
    m->tensors = kind == SNRQ_NVFP4 ? 3 : 2;
    SNRQ_TRY(load(d, m->codes_of, &m->floats));
    return load_float_scales(d, scales, divisor, (size_t)(rows * m->groups), m);
}

static snrq_status open_fp8(const snrq_export_decoder *d, const char *name, snrq_decoded *m)
{
    return open_floats(d, name, "weight_scale_inv", m);
}

static snrq_status open_compressed(const snrq_export_decoder *d, const char *name, snrq_decoded *m)
{
    const snrq_tensor *zeros = NULL, *scales, *g_idx = NULL;
    const int64_t width = (m->columns * m->settings.bits + 31) / 32, b = m->settings.bits;
    if (m->settings.floats != SNRQ_NO_FLOATS) return open_floats(d, name, "weight_scale", m);
    if (m->settings.group_size > 0 && m->columns % m->settings.group_size != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: groups of %lld do not divide %lld inputs of %s",
                         d->path, (long long)m->settings.group_size, (long long)m->columns, name);
    SNRQ_TRY(find(d, name, "weight_packed", "I32", m->rows, width, &m->codes_of));
    SNRQ_TRY(find(d, name, "weight_scale", NULL, m->rows, m->groups, &scales));
    SNRQ_TRY(check_shape_tensor(d, name, m));
    m->tensors = 3 + !m->settings.symmetric + m->settings.has_g_idx;
    m->code_step = 1;
    m->code_row = width;
    m->zero_step = m->groups;
    m->zero_group = 1;
    m->scale_row = m->groups;
    m->scale_group = 1;
    SNRQ_TRY(load(d, m->codes_of, &m->codes));
    SNRQ_TRY(load_scales(d, scales, m));
    if (!m->settings.symmetric) {
        SNRQ_TRY(
            find(d, name, "weight_zero_point", "I32", (m->rows * b + 31) / 32, m->groups, &zeros));
        SNRQ_TRY(load(d, zeros, &m->zeros));
    }
    if (m->settings.has_g_idx) {
        SNRQ_TRY(find(d, name, "weight_g_idx", "I32", m->columns, 0, &g_idx));
        SNRQ_TRY(load(d, g_idx, &m->g_idx));
        return check_g_idx(d, g_idx, m);
    }
    SNRQ_TRY(snrq_allocate((size_t)m->columns, sizeof *m->g_idx, "groups", &m->g_idx));
    for (int64_t c = 0; c < m->columns && m->settings.group_size > 0; c++)
        m->g_idx[c] = (int32_t)(c / m->settings.group_size);
    return SNRQ_OK;
}

static snrq_status open_dense(const snrq_export_decoder *d, const char *name, snrq_decoded *m)
{
    SNRQ_TRY(find(d, name, "weight", NULL, m->rows, m->columns, &m->codes_of));
    SNRQ_TRY(type_of(d, m->codes_of, &m->type));
    m->tensors = 1;
    return snrq_allocate((size_t)m->columns, snrq_dtype_size(m->type), "a row", &m->raw);
}

snrq_status snrq_decoded_open(const snrq_export_decoder *d, const char *name, int64_t rows,
                              int64_t columns, snrq_decoded *m)
{
    static snrq_status (*const open_kind[])(const snrq_export_decoder *, const char *,
                                            snrq_decoded *) = {open_gptq, open_compressed, open_fp8,
                                                               open_dense};
    _Static_assert(sizeof open_kind / sizeof *open_kind == KINDS, "a reader for every kind");
    *m = (snrq_decoded){.decoder = d, .rows = rows, .columns = columns, .groups = 1};
    SNRQ_TRY(settings_of(d, name, &m->settings));
    const int64_t size = m->settings.group_size;
    if (size > 0) m->groups = (columns + size - 1) / size;
    snrq_status status = open_kind[d->kind](d, name, m);
    size_t groups = (size_t)m->groups;
    if (status == SNRQ_OK)
        status = snrq_allocate(groups, sizeof *m->row_scales, "scales", &m->row_scales);
    if (status == SNRQ_OK)
        status = snrq_allocate(groups, sizeof *m->row_zeros, "zeros", &m->row_zeros);
    if (status != SNRQ_OK) snrq_decoded_close(m);
    return status;
}

void snrq_decoded_close(snrq_decoded *m)
{
    free(m->codes);
    free(m->zeros);
    free(m->scales);
    free(m->g_idx);
    free(m->row_scales);
    free(m->row_zeros);
    free(m->raw);
    free(m->floats);
    *m = (snrq_decoded){0};
}

/* The index-th number of `bits` bits of a stream whose words are `step` apart. */
static int number_at(const uint32_t *words, int64_t step, int64_t index, int64_t bits)
{
    const int64_t at = index * bits, word = at / 32, shift = at % 32;
    uint64_t both = words[word * step];
    if (shift + bits > 32) both |= (uint64_t)words[(word + 1) * step] << 32;
    return (int)(both >> shift & ((UINT64_C(1) << bits) - 1));
}

snrq_status snrq_decoded_row(snrq_decoded *m, int64_t row, float *out)
{
    const snrq_export_decoder *d = m->decoder;
    if (d->kind == DENSE) {
        uint64_t bytes = (uint64_t)m->columns * snrq_dtype_size(m->type);
        SNRQ_TRY(
            snrq_safetensors_read(d->tensors, m->codes_of, (uint64_t)row * bytes, bytes, m->raw));
        snrq_widen(m->type, m->raw, (size_t)m->columns, out);
        return SNRQ_OK;
    }
    if (m->floats != NULL) {
        const snrq_float_kind kind = m->settings.floats;
        const int64_t bytes = m->columns * snrq_float_kind_bits(kind) / 8;
        if (snrq_float_row(kind, m->columns, m->floats + row * bytes,
                           m->scales + row / snrq_float_kind_rows(kind) * m->groups, out))
            return SNRQ_OK;
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s: a weight of output %lld is no number",
                         snrq_safetensors_file(d->tensors, m->codes_of), m->codes_of->name,
                         (long long)row);
    }
    for (int64_t g = 0; g < m->groups; g++) {
        int zero = 1 << (m->settings.bits - 1);
        if (m->zeros != NULL)
            zero = (number_at(m->zeros + g * m->zero_group, m->zero_step, row, m->settings.bits) +
                    d->zero_offset) &
                   ((1 << m->settings.bits) - 1);
        m->row_zeros[g] = zero;
        m->row_scales[g] = m->scales[row * m->scale_row + g * m->scale_group];
    }
    for (int64_t c = 0; c < m->columns; c++) {
        int code = number_at(m->codes + row * m->code_row, m->code_step, c, m->settings.bits);
        out[c] = m->row_scales[m->g_idx[c]] * (float)(code - m->row_zeros[m->g_idx[c]]);
    }
    return SNRQ_OK;
}
