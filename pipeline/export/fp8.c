/* Hugging Face checkpoints in FP8 by blocks, as DeepSeek-V3's; see formats.h. Tensors of a module:
 * weight and weight_scale_inv of floats.h. */
#include <stdio.h>

#include "pipeline/export/floats.h"
#include "pipeline/export/formats.h"
#include "pipeline/model/kept.h"

static bool is_fp8(const snrq_weight_format *f)
{
    return f != NULL && f->shared_rows > 0;
}

void snrq_fp8_fits(const snrq_model *m, const snrq_export_facts *f, char *why, size_t size)
{
    (void)m;
    snprintf(why, size, "%s",
             is_fp8(f->format) ? ""
                               : "weights are not fp8_block: quantize with --format fp8_block");
}

snrq_status snrq_fp8_possible(const snrq_model *m, char *why, size_t size)
{
    return snrq_export_mixture_fits(m, snrq_fp8_fits, why, size);
}

/* Scales have a type of their own. */
static snrq_status settle(snrq_export_job *job, const snrq_export_settings *settings)
{
    (void)settings;
    job->type = job->model_type = job->model->config.dtype;
    return SNRQ_OK;
}

static snrq_status add(const snrq_export_job *job, const char *name, int64_t rows, int64_t columns,
                       int *first)
{
    return snrq_floats_add(job, name, "weight_scale_inv", rows, columns, first);
}

static json_t *describe(const snrq_export_job *job, double damp)
{
    const snrq_weight_format *f = snrq_weight_format_find("fp8_block");
    json_t *kept = json_pack("[s]", "lm_head"), *names = snrq_model_kept_names(job->model);
    (void)damp;
    if (names != NULL) json_array_extend(kept, names);
    json_decref(names);
    return json_pack("{s:s, s:s, s:s, s:[I, I], s:o}", "quant_method", "fp8", "fmt", "e4m3",
                     "activation_scheme", "dynamic", "weight_block_size",
                     (json_int_t)f->shared_rows, (json_int_t)f->group, "modules_to_not_convert",
                     kept);
}

const snrq_checkpoint_layout snrq_fp8_layout = {
    .name = "fp8", .settle = settle, .add = add, .write = snrq_floats_write, .describe = describe};
