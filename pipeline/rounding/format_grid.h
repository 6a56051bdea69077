/* Scales and minima of the formats of mpi/algebra/weight_format.h, as they can be stored.
 *
 * A group's best scale and minimum, by themselves, are found from ranges: each range gives codes,
 * and the codes a scale and minimum by least squares. Those of a super-block then become multiples
 * of a number that they share: several such numbers are tried, integers rounded up and down, and
 * what is kept has the least sum of d_j^2 (R - Q)^2, the cost that the search starts from.
 */
#ifndef SNRQ_FORMAT_GRID_H
#define SNRQ_FORMAT_GRID_H

#include "pipeline/rounding/quant_grid.h"

/* What the rows of a module, or all of a tensor, have in common is chosen before: the number of an
 * NVFP4 tensor comes from its largest target, the scale of 128 x 128 weights from theirs
 * (shared_scales.h).
 */
/* Fits scales [groups] and minima [groups] (0 where the format has none) of one row. Of the rule,
 * format and grid count: minmax takes the range of the values, rounded to the nearest that can be
 * stored. Groups are original ones; tensor: what the tensor's scales are multiples of, or 1.
 * SNRQ_BAD_DATA if a number is not finite in binary16. Not
 * collective. */
snrq_status snrq_format_grid_fit(const snrq_rule *rule, const snrq_groups *groups,
                                 const float *target, const double *d2, float tensor, float *scales,
                                 float *minima);

/* values [groups] become the nearest ones that can be stored; weights [groups]: of their squared
 * distances. Values must keep their sign and not become zero where `nonzero`. False if they
 * cannot. */
bool snrq_format_store(const snrq_weight_format *format, const snrq_stored_numbers *set,
                       float tensor, int64_t groups, const double *weights, bool nonzero,
                       float *values);

#endif
