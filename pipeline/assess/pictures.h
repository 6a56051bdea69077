/* Pictures of an assessment, as `snrq report` makes those of a run.
 */
#ifndef SNRQ_ASSESS_PICTURES_H
#define SNRQ_ASSESS_PICTURES_H

#include <jansson.h>

#include "mpi/status.h"

/* Writes `directory`/report: report.* and, by layer, what steps and blocks cost, errors of modules,
 * kurtosis of their weights, outliers and dead inputs of units, and where there is a rounded model,
 * strengths and the growth of the mismatch. `whole` is what assessment.json
 * holds. Without gnuplot there are tables alone. Not collective. */
snrq_status snrq_assess_pictures(const char *directory, const json_t *whole);

#endif
