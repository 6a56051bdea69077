/* Rounding to nearest of rows that nothing is known about but their weights: embeddings, head.
 *
 * Of a rule, bits, symmetric, group size, scale type, format and grid count (minmax, or mse: every
 * column counts alike). Groups are neighbouring columns.
 */
#ifndef SNRQ_NEAREST_H
#define SNRQ_NEAREST_H

#include "pipeline/rounding/quant_grid.h"

/* Codes and grids of `rows` rows of weights [rows, columns]: codes [rows, columns]; scales, zeros
 * and minima [rows, groups] (minima: 0 where there are none), g_idx [columns]. A row depends on no
 * other. SNRQ_BAD_DATA names the row, counted from `first`, whose scale cannot be stored. Not
 * collective. */
snrq_status snrq_round_to_nearest(const snrq_rule *rule, int64_t first, int64_t rows,
                                  int64_t columns, const float *weights, uint8_t *codes,
                                  float *scales, uint8_t *zeros, float *minima, int32_t *g_idx);

#endif
