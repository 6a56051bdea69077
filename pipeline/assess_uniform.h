/* All of a model rounded with one width.
 */
#ifndef SNRQ_ASSESS_UNIFORM_H
#define SNRQ_ASSESS_UNIFORM_H

#include "pipeline/assessment.h"

/* Quantizes the model with each width up to 4 bits, and fills in assessment->uniform and
 * ->rounded_path; of --no-uniform, with nothing. Collective; agreed. */
snrq_status snrq_assess_uniform(snrq_assessment *assessment);

#endif
