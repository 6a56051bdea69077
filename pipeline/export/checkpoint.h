/* Exports in the shape of a transformers directory: config.json, tokenizer files, weights in
 * safetensors.
 *
 * What such formats differ in - the tensors of a quantized module, and what config.json says about
 * them - is a snrq_checkpoint_layout; the rest is the same for all: which tensors there are, in
 * which file and at which offset follows from the model's configuration on every rank alike, and
 * the work is dealt out to the ranks by bytes.
 */
#ifndef SNRQ_EXPORT_CHECKPOINT_H
#define SNRQ_EXPORT_CHECKPOINT_H

#include "io/safetensors_shards.h"
#include "pipeline/export/mixture.h"
#include "pipeline/export/settings.h"

/* A format's settings for one export; the same on all ranks. */
typedef struct snrq_export_job {
    const snrq_model *model; /* borrowed */
    snrq_export_facts facts; /* of the module in question, as they are written (folded_bits in
                                source.h); in `settle` and `describe`: the usual ones */
    const snrq_export_mixture *mixture; /* of all modules; borrowed */
    snrq_dtype type;                    /* of the scales, or of dequantized weights */
    snrq_dtype model_type; /* what config.json will say: engines cast all floats to it */
    snrq_shards *shards;   /* borrowed */
} snrq_export_job;

typedef struct snrq_checkpoint_layout {
    const char *name; /* as in --format */
    /* Rows of one module depend on each other in the file: the module is written by one rank. */
    bool whole_modules;
    /* Sets `type` and `model_type` of a job for a model that fits. Not collective. */
    snrq_status (*settle)(snrq_export_job *job, const snrq_export_settings *settings);
    /* Adds the tensors of a module to the list; *first is the number of the first one. */
    snrq_status (*add)(const snrq_export_job *job, const char *name, int64_t rows, int64_t columns,
                       int *first);
    /* Writes what rows `range` make of these tensors; whole 32 rows, but for the module's last
     * ones. The piece that begins with row 0 also writes what belongs to no row. */
    snrq_status (*write)(const snrq_export_job *job, const snrq_export_module *module,
                         snrq_range range, int first);
    /* The quantization_config, or NULL for none. New reference. `damp`: of the run. */
    json_t *(*describe)(const snrq_export_job *job, double damp);
    /* A second file that holds the same, or NULL. */
    const char *description_file;
} snrq_checkpoint_layout;

/* Writes the directory; see snrq_export_format.write. Collective; agreed. */
snrq_status snrq_checkpoint_write(const snrq_context *context, const snrq_export_settings *settings,
                                  const snrq_model *model, const char *directory,
                                  const snrq_checkpoint_layout *layout);

/* Adds tensor MODULE.TENSOR of shape [first, second], or [first] if dimensions is 1, to the list.
 */
snrq_status snrq_export_add(const snrq_export_job *job, const char *module, const char *tensor,
                            const char *dtype, int dimensions, int64_t first, int64_t second,
                            int *index);

/* Number of groups of a module with `columns` inputs. */
int64_t snrq_export_groups(const snrq_export_facts *facts, int64_t columns);

/* The model's type, or `scales` where it is another one of 16 bits, so that a reader that casts
 * scales to the model's type changes nothing. */
snrq_dtype snrq_export_model_type(const snrq_model *model, snrq_dtype scales);

/* values [count] as they are stored in `type`, which holds them or to which they are rounded. */
void snrq_export_narrow(snrq_dtype type, const float *values, size_t count, void *out);

#endif
