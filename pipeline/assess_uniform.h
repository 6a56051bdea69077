/* All of a model rounded with one width.
 */
#ifndef SNRQ_ASSESS_UNIFORM_H
#define SNRQ_ASSESS_UNIFORM_H

#include "pipeline/assessment.h"

/* Wider ones cost next to nothing, and nothing is learned from them. */
enum { SNRQ_WIDEST_UNIFORM = 4 };

/* Quantizes the model with each width up to the widest, and fills in assessment->uniform and
 * ->rounded_path; of --no-uniform, with nothing. Collective; agreed. */
snrq_status snrq_assess_uniform(snrq_assessment *assessment);

#endif
