/* compressed-tensors checkpoints; see formats.h. Those of floating point numbers are in floats.h;
 * the rest is "pack-quantized".
 *
 * Symbols: K inputs, N outputs, b bits, G groups. Tensors of a module, in this order:
 *
 *   weight_packed      I32 [N, ceil(K b / 32)]   row n is the stream of the codes of row n
 *   weight_scale       F16 or BF16 [N, G]
 *   weight_shape       I64 [2]                   N, K
 *   weight_zero_point  I32 [ceil(N b / 32), G]   asymmetric: column g is the stream of its zeros
 *   weight_g_idx       I32 [K]                   permuted groups
 *
 * Codes of 3, 5, 6 and 7 bits run across words, as compressed-tensors reads them since its pull
 * request 732 (June 2026).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/codes.h"
#include "pipeline/export/floats.h"
#include "pipeline/export/formats.h"
#include "pipeline/model/kept.h"

enum { PACK = 32 };

/* A 16-bit type that holds all scales: the stored one, else the first that does. */
static snrq_status choose_type(const snrq_model *m, const snrq_export_facts *f, snrq_dtype *type,
                               bool *found)
{
    *type = f->scale_type == SNRQ_BF16 ? SNRQ_BF16 : SNRQ_F16;
    SNRQ_TRY(snrq_export_scales_fit(m, f, *type, found));
    if (*found) return SNRQ_OK;
    *type = *type == SNRQ_BF16 ? SNRQ_F16 : SNRQ_BF16;
    return snrq_export_scales_fit(m, f, *type, found);
}

static bool needs_g_idx(const snrq_export_facts *f)
{
    return f->permuted && f->group_size > 0;
}

/* Multiples of 32 are best: other formats take them as well. */
void snrq_compressed_fits(const snrq_model *m, const snrq_export_facts *f, char *why, size_t size)
{
    const char *no_integers = snrq_export_why_not_integers(f);
    why[0] = '\0';
    if (snrq_float_coding_of(f->format) != NULL) return;
    snprintf(why, size, "%s", no_integers != NULL ? no_integers : "");
    if (no_integers != NULL) return;
    if (!f->ragged) return;
    int64_t nearest = snrq_export_nearest_group(m, PACK, f->group_size);
    if (nearest == 0) nearest = snrq_export_nearest_group(m, 1, f->group_size);
    snprintf(why, size,
             "groups of %lld do not divide the inputs of every module; quantize "
             "with --group-size %lld or channel, or export to gptq",
             (long long)f->group_size, (long long)nearest);
}

/* Integers cast their scales to one type, floating point numbers have their own. */
static snrq_status refuse_both(const snrq_model *m, bool *floats, char *why, size_t size)
{
    snrq_export_mixture x;
    int count = 0;
    snrq_status status = snrq_export_mixture_read(m, false, false, &x);
    for (int k = 0; status == SNRQ_OK && k < x.kinds; k++)
        count += snrq_float_coding_of(x.kind[k].format) != NULL;
    if (count > 0 && count < x.kinds)
        snprintf(why, size, "some modules are integers, others are not; export to safetensors");
    *floats = count > 0;
    snrq_export_mixture_free(&x);
    return status;
}

snrq_status snrq_compressed_possible(const snrq_model *m, char *why, size_t size)
{
    bool floats = false;
    snrq_export_facts f;
    snrq_dtype type;
    bool found = true;
    SNRQ_TRY(snrq_export_facts_read(m, &f));
    SNRQ_TRY(snrq_export_mixture_fits(m, snrq_compressed_fits, why, size));
    if (why[0] != '\0') return SNRQ_OK;
    SNRQ_TRY(refuse_both(m, &floats, why, size));
    if (floats) return SNRQ_OK;
    SNRQ_TRY(choose_type(m, &f, &type, &found));
    if (!found)
        snprintf(why, size,
                 "its scales have 16 bits, which cannot hold all of these %s scales; "
                 "quantize with --scale-type f16 or bf16",
                 snrq_dtype_name(f.scale_type));
    return SNRQ_OK;
}

/* A head that is to be codes must be codes that the format has, beside those of the modules. */
static snrq_status check_head(const snrq_export_job *job)
{
    const snrq_export_mixture *x = job->mixture;
    const bool modules = snrq_float_coding_of(job->facts.format) != NULL;
    char why[512] = "is not quantized";
    if (x->count > x->blocks) {
        const snrq_export_facts *f = &x->kind[x->kind_of[x->blocks]];
        const snrq_module_record *r = &x->module[x->blocks];
        const bool head = snrq_float_coding_of(f->format) != NULL;
        snrq_compressed_fits(job->model, f, why, sizeof why);
        if (why[0] == '\0' && head != modules)
            snprintf(why, sizeof why, "is %s, and modules are not",
                     head ? "floating point numbers" : "integers");
        if (why[0] == '\0' && !head && r->scale_type != job->type)
            snprintf(why, sizeof why, "has %s scales, and modules have %s here",
                     snrq_dtype_name(r->scale_type), snrq_dtype_name(job->type));
        if (why[0] == '\0') return SNRQ_OK;
    }
    return snrq_fail(SNRQ_USAGE, "%s: --head codes: the head: %s; leave --head out",
                     job->model->path, why);
}

static snrq_status settle(snrq_export_job *job, const snrq_export_settings *settings)
{
    bool found = true;
    job->type = job->model_type = job->model->config.dtype;
    if (snrq_float_coding_of(job->facts.format) == NULL) {
        SNRQ_TRY(choose_type(job->model, &job->facts, &job->type, &found));
        job->model_type = snrq_export_model_type(job->model, job->type);
    }
    return settings->coded_head ? check_head(job) : SNRQ_OK;
}

static snrq_status add(const snrq_export_job *job, const char *name, int64_t rows, int64_t columns,
                       int *first)
{
    const int bits = job->facts.bits;
    const int64_t groups = snrq_export_groups(&job->facts, columns);
    int index;
    if (snrq_float_coding_of(job->facts.format) != NULL)
        return snrq_floats_add(job, name, "weight_scale", rows, columns, first);
    SNRQ_TRY(snrq_export_add(job, name, "weight_packed", "I32", 2, rows,
                             snrq_packed_words(columns, bits), first));
    SNRQ_TRY(snrq_export_add(job, name, "weight_scale", snrq_dtype_name(job->type), 2, rows, groups,
                             &index));
    SNRQ_TRY(snrq_export_add(job, name, "weight_shape", "I64", 1, 2, 0, &index));
    if (!job->facts.symmetric)
        SNRQ_TRY(snrq_export_add(job, name, "weight_zero_point", "I32", 2,
                                 snrq_packed_words(rows, bits), groups, &index));
    if (needs_g_idx(&job->facts))
        SNRQ_TRY(snrq_export_add(job, name, "weight_g_idx", "I32", 1, columns, 0, &index));
    return SNRQ_OK;
}

/* Where rows go, and room for them in their stored form. */
struct target {
    const snrq_export_job *job;
    int first;
};

static snrq_status write_codes(const struct target *t, const snrq_export_rows *r)
{
    const snrq_module_record *record = r->module->record;
    const int64_t count = r->range.end - r->range.begin;
    const int bits = t->job->facts.bits;
    const int64_t width = snrq_packed_words(record->columns, bits);
    uint32_t *words = NULL;
    SNRQ_TRY(snrq_allocate((size_t)(count * width), sizeof *words, "packed codes", &words));
    snrq_pack_rows(r->codes, count, record->columns, bits, words);
    snrq_status status = snrq_shards_write(t->job->shards, t->first,
                                           (uint64_t)(r->range.begin * width) * sizeof *words,
                                           words, (size_t)(count * width) * sizeof *words);
    free(words);
    return status;
}

static snrq_status write_scales(const struct target *t, const snrq_export_rows *r)
{
    const int64_t groups = r->module->record->groups;
    const size_t count = (size_t)((r->range.end - r->range.begin) * groups);
    uint16_t *scales = NULL;
    SNRQ_TRY(snrq_allocate(count, sizeof *scales, "scales", &scales));
    snrq_export_narrow(t->job->type, r->scales, count, scales);
    snrq_status status = snrq_shards_write(t->job->shards, t->first + 1,
                                           (uint64_t)(r->range.begin * groups) * sizeof *scales,
                                           scales, count * sizeof *scales);
    free(scales);
    return status;
}

/* Pieces begin at whole words: their rows are counted in 32s. */
static snrq_status write_zeros(const struct target *t, const snrq_export_rows *r)
{
    const int64_t groups = r->module->record->groups, count = r->range.end - r->range.begin;
    const int bits = t->job->facts.bits;
    const size_t words = (size_t)(snrq_packed_words(count, bits) * groups);
    const uint64_t begin = (uint64_t)(r->range.begin / PACK * bits * groups);
    uint8_t *turned = NULL; /* [groups, rows] */
    uint32_t *packed = NULL;
    snrq_status status = snrq_allocate((size_t)(count * groups), 1, "zeros", &turned);
    if (status == SNRQ_OK) status = snrq_allocate(words, sizeof *packed, "packed zeros", &packed);
    if (status == SNRQ_OK) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t g = 0; g < groups; g++) turned[g * count + i] = r->zeros[i * groups + g];
        snrq_pack_columns(turned, groups, count, bits, packed, groups);
        status = snrq_shards_write(t->job->shards, t->first + 3, begin * sizeof *packed, packed,
                                   words * sizeof *packed);
    }
    free(turned);
    free(packed);
    return status;
}

static snrq_status write_some(void *user, const snrq_export_rows *r)
{
    const struct target *t = user;
    SNRQ_TRY(write_codes(t, r));
    SNRQ_TRY(write_scales(t, r));
    return t->job->facts.symmetric ? SNRQ_OK : write_zeros(t, r);
}

static snrq_status write(const snrq_export_job *job, const snrq_export_module *module,
                         snrq_range range, int first)
{
    const snrq_module_record *r = module->record;
    const int64_t shape[2] = {r->rows, r->columns};
    struct target target = {job, first};
    if (snrq_float_coding_of(job->facts.format) != NULL)
        return snrq_floats_write(job, module, range, first);
    SNRQ_TRY(snrq_export_module_rows(module, range, write_some, &target));
    if (range.begin != 0) return SNRQ_OK;
    SNRQ_TRY(snrq_shards_write(job->shards, first + 2, 0, shape, sizeof shape));
    if (!needs_g_idx(&job->facts)) return SNRQ_OK;
    return snrq_shards_write(job->shards, first + (job->facts.symmetric ? 3 : 4), 0, module->g_idx,
                             (size_t)r->columns * sizeof *module->g_idx);
}

/* "nvfp4-pack-quantized" */
static const char *name_of(const snrq_export_facts *f)
{
    const snrq_float_coding *coding = snrq_float_coding_of(f->format);
    return coding != NULL ? snrq_float_coding_name(coding) : "pack-quantized";
}

/* One of floating point numbers says its format, since there may be several. */
static json_t *describe_floats(const snrq_float_coding *c, json_t *targets)
{
    return json_pack("{s:o, s:o, s:n, s:n, s:s}", "targets", targets, "weights",
                     snrq_float_coding_weights(c), "input_activations", "output_activations",
                     "format", snrq_float_coding_name(c));
}

/* A group of modules with the same settings. `targets`: stolen. */
static json_t *describe_group(const snrq_export_facts *f, json_t *targets)
{
    const snrq_float_coding *coding = snrq_float_coding_of(f->format);
    if (coding != NULL) return describe_floats(coding, targets);
    const bool grouped = f->group_size > 0;
    json_t *size = grouped ? json_integer(f->group_size) : json_null();
    json_t *weights = json_pack("{s:i, s:s, s:b, s:s, s:o, s:b, s:s?, s:n, s:s, s:{}}", "num_bits",
                                f->bits, "type", "int", "symmetric", f->symmetric, "strategy",
                                grouped ? "group" : "channel", "group_size", size, "dynamic", 0,
                                "actorder", needs_g_idx(f) ? "group" : NULL, "block_structure",
                                "observer", "minmax", "observer_kwargs");
    return json_pack("{s:o, s:o, s:n, s:n}", "targets", targets, "weights", weights,
                     "input_activations", "output_activations");
}

/* Whole names: engines look for them before they look at kinds of modules, and so they mean the
 * same to all of them. */
static json_t *targets_of(const snrq_export_mixture *x, int kind)
{
    json_t *targets = json_array();
    if (x->kinds == 1) json_array_append_new(targets, json_string("Linear"));
    for (int64_t i = 0; i < x->count && x->kinds > 1; i++)
        if (x->kind_of[i] == kind) json_array_append_new(targets, json_string(x->module[i].name));
    return targets;
}

static json_t *describe(const snrq_export_job *job, double damp)
{
    const snrq_export_mixture *x = job->mixture;
    json_t *groups = json_object(), *ignored = json_array();
    json_t *kept = snrq_model_kept_names(job->model);
    const char *format = name_of(&x->kind[0]);
    char name[32];
    (void)damp;
    if (x->count == x->blocks) json_array_append_new(ignored, json_string("lm_head"));
    for (int k = 0; k < x->kinds; k++) {
        if (strcmp(format, name_of(&x->kind[k])) != 0) format = "mixed-precision";
        snprintf(name, sizeof name, "group_%d", k);
        json_object_set_new(groups, name, describe_group(&x->kind[k], targets_of(x, k)));
    }
    if (kept != NULL) json_array_extend(ignored, kept);
    json_decref(kept);
    return json_pack("{s:s, s:s, s:s, s:n, s:n, s:o, s:o}", "quant_method", "compressed-tensors",
                     "format", format, "quantization_status", "compressed",
                     "global_compression_ratio", "kv_cache_scheme", "ignore", ignored,
                     "config_groups", groups);
}

const snrq_checkpoint_layout snrq_compressed_layout = {.name = "compressed-tensors",
                                                       .settle = settle,
                                                       .add = add,
                                                       .write = write,
                                                       .describe = describe};
