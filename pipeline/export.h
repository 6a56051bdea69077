/* `snrq export` and `snrq verify --export`: checkpoints that inference engines load.
 *
 * An export holds exactly what OUT holds, or is refused with the reason and the nearest setting
 * that would work; nothing is quantized again. One table in export.c has a row per format.
 */
#ifndef SNRQ_EXPORT_H
#define SNRQ_EXPORT_H

#include "pipeline/export/settings.h"
#include "pipeline/export/source.h"
#include "pipeline/model/model.h"
#include "pipeline/options/options.h"

/* `snrq export OUT --format F -o DIR`: DIR is made, or must be empty. All ranks write. On failure
 * what was written is removed. Collective; agreed. */
snrq_status snrq_export(const snrq_context *context, const snrq_options *options);

/* `snrq verify OUT --export DIR`: finds the format of DIR, reads it back and compares every weight
 * with OUT. Collective; agreed. SNRQ_BAD_DATA names the first difference. */
snrq_status snrq_export_check(const snrq_context *context, const snrq_options *options);

/* What a finished OUT directory can be exported to: an array of {"format", "possible", "why"}, in
 * the order of the table. The caller releases *out. Not collective. */
snrq_status snrq_export_table(const char *path, json_t **out);

/* The same for what a run will make of a model that is not quantized, with these settings (see
 * snrq_export_facts_planned()): "why" may also say on what it depends. The caller releases *out.
 * Not collective; fails only without memory. */
snrq_status snrq_export_forecast(const snrq_model *model, const snrq_export_facts *planned,
                                 json_t **out);

/* Can `engine` (snrq_engine) load modules with these settings in some quantized format? SNRQ_USAGE
 * says why not. Not collective. */
snrq_status snrq_export_check_planned(const snrq_model *model, const snrq_export_facts *planned,
                                      int64_t engine);

/* Name of a format in which `engine` reads quantized modules, or NULL of any other. Not collective.
 */
const char *snrq_export_read_name(int64_t engine, snrq_format_choice format);

/* Can `engine` load modules with these settings in that format? Not of one that holds what is not
 * quantized. Not collective. */
bool snrq_export_loads(const snrq_model *model, const snrq_export_facts *planned, int64_t engine,
                       snrq_format_choice format);

/* The size of groups nearest to the planned one that makes more formats possible, or 0. */
int64_t snrq_export_better_group(const snrq_model *model, const snrq_export_facts *planned);

/* One format: a row of the table in export.c. `model` is an OUT directory (with takes_dense: or a
 * Hugging Face directory). */
typedef struct snrq_export_format {
    const char *name; /* as in --format */
    /* Can the format hold the model exactly? why [size] becomes "", or the reason and the nearest
     * setting that works. Any other status than SNRQ_OK: OUT cannot be read. The model may be one
     * that was only looked at (snrq_model_look). Not collective. */
    snrq_status (*possible)(const snrq_model *model, char *why, size_t size);
    /* The same of settings alone, before anything is quantized: as far as it does not depend on
     * scales. NULL: it holds all. Not collective. */
    void (*fits)(const snrq_model *model, const snrq_export_facts *facts, char *why, size_t size);
    bool f16_scales; /* it has no others */
    /* Can it hold the tokenizer and what stands beside it? The status says why not. NULL: it holds
     * whatever there is. Not collective. */
    snrq_status (*check_side_files)(const snrq_model *model);
    /* Says on standard error what an export will leave out of them. NULL: nothing. Not collective.
     */
    void (*note_side_files)(const snrq_model *model);
    /* How the modules lie in a transformers directory (export/checkpoint.h), which is then written,
     * recognized and compared by the same code for all such formats; NULL: as the next three do. */
    const struct snrq_checkpoint_layout *layout;
    /* Writes into an empty directory that is locked for this run: everything under NAME.snrq.tmp,
     * renamed when all of it is durable. On failure removes what it wrote. Collective; agreed. */
    snrq_status (*write)(const snrq_context *context, const snrq_export_settings *settings,
                         const snrq_model *model, const char *directory);
    /* Does the directory look like this format? Not collective. */
    bool (*recognize)(const char *directory);
    /* Compares an export with the model, bit for bit; *tensors: how many were compared. Collective;
     * agreed. */
    snrq_status (*verify)(const snrq_context *context, const snrq_model *model,
                          const char *directory, int64_t *tensors);
    bool takes_dense; /* models that are not quantized, too */
} snrq_export_format;

/* Says what exports of a model will leave out of its tokenizer and what stands beside it. Before
 * the work, on one rank. Not collective. */
snrq_status snrq_export_note_side_files(const snrq_model *model);

/* The row of a format that --format can name. Borrowed. */
const snrq_export_format *snrq_export_format_of(snrq_format_choice choice);

/* Is the directory an export of this format? Not collective. */
bool snrq_export_format_is(const snrq_export_format *format, const char *directory);

#endif
