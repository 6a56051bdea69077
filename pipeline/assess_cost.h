/* What `snrq assess` costs: memory and time.
 */
#ifndef SNRQ_ASSESS_COST_H
#define SNRQ_ASSESS_COST_H

#include "pipeline/cost.h"
#include "pipeline/options/options.h"

/* What of an assessment decides its cost, by --judged-windows, --widths, --group-sizes,
 * --formats, --alone and --no-uniform. */
typedef struct snrq_assess_work {
    int64_t judged;
    int choices;  /* widths times sizes of groups */
    int uniform;  /* models of one width */
    bool walks;   /* through that of the usual width (assess_mismatch.h) */
    bool modules; /* alone, too */
} snrq_assess_work;

/* SNRQ_USAGE if --widths, --group-sizes or --formats are none. Not collective. */
snrq_status snrq_assess_work_of(const snrq_options *options, snrq_assess_work *out);

/* Bytes of a rank beside those of a quantization: the judged windows in each step's variant and in
 * the rounded model, and the others where they enter a block and in that model. Not collective. */
double snrq_assess_rank_bytes(const snrq_assess_work *work, const snrq_model *model,
                              const snrq_windows *windows, int ranks);

/* Seconds: two quantizations, and one for each model of one width; for each choice H factorized
 * twice, and a search of one beam; each block's variants through the blocks behind it; and all
 * windows through the rounded model, with H, and its factor. Not collective. */
double snrq_assess_seconds(const snrq_assess_work *work, const snrq_cost *quantization,
                           const snrq_rules *rules, const snrq_model *model,
                           const snrq_windows *windows);

#endif
