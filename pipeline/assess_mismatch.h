/* How far a model that is rounded everywhere goes apart from the full-precision one, block by
 * block, and which strengths its modules would have.
 *
 * The rounded model is the uniform one of the usual width (assess_uniform.h). Two pairs of streams
 * go through both: the fitted windows, and the judged ones, which nothing was fitted to. At every
 * unit, the fitted pair makes a target's shift; the judged pair tells which share of it is right.
 * Source: docs/method.md, "Strengths that an assessment tells".
 */
#ifndef SNRQ_ASSESS_MISMATCH_H
#define SNRQ_ASSESS_MISMATCH_H

#include "pipeline/assessment.h"

/* Streams of the rounded model, at its beginning, where assessment->rounded_path is set. Not
 * collective. */
snrq_status snrq_assess_mismatch_create(snrq_assessment *assessment);

/* Past a block that an earlier start assessed. Collective; agreed. */
snrq_status snrq_assess_mismatch_skip(snrq_assessment *assessment, int64_t layer);

/* Takes all streams through block `layer`, which is `full`: assessment->full and ->before at its
 * beginning. *found <- {"input", "output"}, a new reference; every module in `steps` gets "alpha".
 * Without a rounded model: takes the two through it, *found is NULL. Collective; agreed. */
snrq_status snrq_assess_mismatch(snrq_assessment *assessment, int64_t layer,
                                 const snrq_loaded_block *full, json_t *steps, json_t **found);

/* "alpha" of the whole assessment: strengths for all modules together; a new reference, or NULL if
 * there are none. `blocks` is a list of what was found of them. Not collective. */
json_t *snrq_assess_alpha(const snrq_assessment *assessment, const json_t *blocks);

#endif
