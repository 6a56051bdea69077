/* Weights in floating point formats; see floats.h. */
#include "pipeline/export/floats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct snrq_float_coding {
    const char *format, *name; /* of weight_format.h; in compressed-tensors */
    bool packed;               /* two weights in a byte */
    const char *scale_type;    /* of the tensor of scales */
    const char *strategy;
    /* What is stored for `count` scales; false: the format has no such ones. */
    bool (*put_scales)(const snrq_module_record *record, const float *scales, int64_t count,
                       void *out);
};

/* E8M0. */
static bool put_powers(const snrq_module_record *r, const float *scales, int64_t count, void *out)
{
    uint8_t *exponents = out;
    (void)r;
    for (int64_t i = 0; i < count; i++) {
        int exponent;
        if (frexpf(scales[i], &exponent) != 0.5f || exponent < -126) return false;
        exponents[i] = (uint8_t)(exponent + 126);
    }
    return true;
}

static bool put_e4m3(const snrq_module_record *r, const float *scales, int64_t count, void *out)
{
    const snrq_weight_format *e4m3 = snrq_weight_format_find("fp8_block");
    uint8_t *bits = out;
    for (int64_t i = 0; i < count; i++) {
        float number = scales[i] / (float)r->tensor_scale;
        int code = snrq_nearest_level(e4m3->levels, e4m3->top, number);
        if (e4m3->levels[code] != number || code <= SNRQ_E4M3_ZERO) return false;
        bits[i] = snrq_float_bits(e4m3, (uint8_t)code);
    }
    return true;
}

static bool put_floats(const snrq_module_record *r, const float *scales, int64_t count, void *out)
{
    (void)r;
    memcpy(out, scales, (size_t)count * sizeof *scales);
    return true;
}

static const snrq_float_coding codings[] = {
    {"mxfp4", "mxfp4-pack-quantized", true, "U8", "group", put_powers},
    {"nvfp4", "nvfp4-pack-quantized", true, "F8_E4M3", "tensor_group", put_e4m3},
    {"fp8_block", "float-quantized", false, "F32", "block", put_floats},
};
enum { CODINGS = sizeof codings / sizeof *codings };

const snrq_float_coding *snrq_float_coding_of(const snrq_weight_format *f)
{
    for (int i = 0; f != NULL && i < CODINGS; i++)
        if (strcmp(codings[i].format, f->name) == 0) return &codings[i];
    return NULL;
}

const char *snrq_float_coding_name(const snrq_float_coding *c)
{
    return c->name;
}

json_t *snrq_float_coding_weights(const snrq_float_coding *c)
{
    const snrq_weight_format *f = snrq_weight_format_find(c->format);
    const bool blocks = f->shared_rows > 0;
    json_t *size = blocks ? json_null() : json_integer(f->group);
    json_t *structure = blocks
                            ? json_pack("[I, I]", (json_int_t)f->shared_rows, (json_int_t)f->group)
                            : json_null();
    json_t *weights = json_pack("{s:i, s:s, s:b, s:s, s:o, s:b, s:n, s:o, s:s, s:{}}", "num_bits",
                                f->bits, "type", "float", "symmetric", 1, "strategy", c->strategy,
                                "group_size", size, "dynamic", 0, "actorder", "block_structure",
                                structure, "observer", "minmax", "observer_kwargs");
    if (c->packed) /* otherwise the scale has the type of its tensor */
        json_object_set_new(weights, "scale_dtype",
                            json_string(f->scale.tensor ? "torch.float8_e4m3fn" : "torch.uint8"));
    return weights;
}

static int64_t blocks_of(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

snrq_status snrq_floats_add(const snrq_export_job *job, const char *name, const char *scale,
                            int64_t rows, int64_t columns, int *first)
{
    const snrq_weight_format *f = job->facts.format;
    const snrq_float_coding *c = snrq_float_coding_of(f);
    int index;
    SNRQ_TRY(snrq_export_add(job, name, c->packed ? "weight_packed" : "weight",
                             c->packed ? "U8" : "F8_E4M3", 2, rows,
                             c->packed ? columns / 2 : columns, first));
    SNRQ_TRY(snrq_export_add(job, name, scale, c->scale_type, 2,
                             f->shared_rows > 0 ? blocks_of(rows, f->shared_rows) : rows,
                             blocks_of(columns, f->group), &index));
    if (!f->scale.tensor) return SNRQ_OK;
    return snrq_export_add(job, name, "weight_global_scale", "F32", 1, 1, 0, &index);
}

struct target {
    const snrq_export_job *job;
    int first;
};

static snrq_status write_codes(const struct target *t, const snrq_export_rows *r)
{
    const snrq_weight_format *f = t->job->facts.format;
    const bool packed = snrq_float_coding_of(f)->packed;
    const int64_t columns = r->module->record->columns;
    const int64_t count = (r->range.end - r->range.begin) * columns;
    const size_t bytes = (size_t)(packed ? count / 2 : count);
    uint8_t *out = NULL;
    SNRQ_TRY(snrq_allocate(bytes, 1, "weights", &out));
    for (int64_t i = 0; i < count; i++) {
        const uint8_t bits = snrq_float_bits(f, r->codes[i]);
        if (packed)
            out[i / 2] = (uint8_t)(out[i / 2] | bits << i % 2 * 4);
        else
            out[i] = bits;
    }
    snrq_status status = snrq_shards_write(
        t->job->shards, t->first, (uint64_t)(r->range.begin * (packed ? columns / 2 : columns)),
        out, bytes);
    free(out);
    return status;
}

/* Scales of row i of some rows. */
static snrq_status write_row_scales(const struct target *t, const snrq_export_rows *r, int64_t i,
                                    void *stored)
{
    const snrq_module_record *record = r->module->record;
    const snrq_weight_format *f = t->job->facts.format;
    const snrq_float_coding *c = snrq_float_coding_of(f);
    const float *scales = r->scales + i * record->groups;
    const int64_t row = r->range.begin + i, shared = f->shared_rows;
    const size_t size = strcmp(c->scale_type, "F32") == 0 ? sizeof(float) : 1;
    const size_t bytes = (size_t)record->groups * size;
    const bool begins = shared == 0 || row % shared == 0;
    if (!c->put_scales(record, scales, record->groups, stored))
        return snrq_fail(SNRQ_BAD_DATA, "%s: row %lld has scales that %s does not have",
                         record->name, (long long)row, f->name);
    if (!begins && i > 0 && memcmp(scales, scales - record->groups, bytes) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: row %lld has other scales than the rest of its block",
                         record->name, (long long)row);
    if (!begins) return SNRQ_OK;
    return snrq_shards_write(t->job->shards, t->first + 1,
                             (uint64_t)(shared > 0 ? row / shared : row) * bytes, stored, bytes);
}

static snrq_status write_some(void *user, const snrq_export_rows *r)
{
    const struct target *t = user;
    void *stored = NULL;
    SNRQ_TRY(write_codes(t, r));
    snrq_status status =
        snrq_allocate((size_t)r->module->record->groups, sizeof(float), "scales", &stored);
    for (int64_t i = 0; status == SNRQ_OK && i < r->range.end - r->range.begin; i++)
        status = write_row_scales(t, r, i, stored);
    free(stored);
    return status;
}

snrq_status snrq_floats_write(const snrq_export_job *job, const snrq_export_module *module,
                              snrq_range range, int first)
{
    struct target target = {job, first};
    SNRQ_TRY(snrq_export_module_rows(module, range, write_some, &target));
    if (range.begin != 0 || !job->facts.format->scale.tensor) return SNRQ_OK;
    const float divisor = (float)(1.0 / module->record->tensor_scale); /* a power of 2, too */
    return snrq_shards_write(job->shards, first + 2, 0, &divisor, sizeof divisor);
}
