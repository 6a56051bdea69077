/* One round of a rounding's search, for searches of single rows (rounds.c) and of rows that know of
 * each other (coupled_rows.h). */
#ifndef SNRQ_ROUNDS_H
#define SNRQ_ROUNDS_H

#include "pipeline/rounding/refine.h"
#include "pipeline/rounding/rounding.h"

/* Search and refinement of one set of rows that do not know of each other. gradient: of what was
 * found, or NULL. Collective; agreed. */
snrq_status snrq_rounding_round(snrq_rounding *rounding, snrq_rows *rows, snrq_gradient *gradient);

#endif
