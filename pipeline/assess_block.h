/* What rounding a block costs: each step alone, and all of it.
 */
#ifndef SNRQ_ASSESS_BLOCK_H
#define SNRQ_ASSESS_BLOCK_H

#include "pipeline/assessment.h"

/* *out <- {"block", "kl", "steps"}, and "mismatch" where there is a rounded model; a new reference.
 * `full` is block `layer`. The streams go through it, unrounded. Collective; agreed. */
snrq_status snrq_assess_block(snrq_assessment *assessment, int64_t layer,
                              const snrq_loaded_block *full, json_t **out);

#endif
