/* The search where rows know of each other: errors are weighted with G of row_feedback.h.
 *
 * All rows are decided once, in blocks of a tile, with feedback from the blocks before. Rounds
 * follow, `regrid` of them or one, and in a round part after part (snrq_row_part()): its rows aim
 * at their best targets, given the others as they are; the scales are fitted to these; and the rows
 * are searched and refined again. Then one row after the other takes its new rounding, if tr(G E H
 * E^T) falls with those that were taken before. So that sum never rises. What becomes of a tile
 * does not depend on others.
 *
 * Memory per weight of the rank, besides what a search of single rows takes: 4 bytes, E H.
 */
#ifndef SNRQ_COUPLED_ROWS_H
#define SNRQ_COUPLED_ROWS_H

#include "pipeline/rounding/rounding.h"

/* Rounds all rows of a rounding whose stack has G; fills in codes, scales, zeros, costs and
 * `weighted`. Collective; agreed. */
snrq_status snrq_coupled_rows_search(snrq_rounding *rounding);

#endif
