/* Gradients of the scales of quantized modules: codes and zeros stay as they are, so that with w =
 * s (code - zero)
 *
 *     ds[r, g] = the sum over the columns c of group g of (code[r, c] - zero[r, g]) dW[r, c],
 *     dW       = the sum over tokens of dy x'
 *
 * with dy the gradient of a module's outputs. As in gradient_gram.h, what a sequence gives is fp32
 * in a fixed order, and sequences are added in fixed point.
 */
#ifndef SNRQ_SCALE_GRADIENT_H
#define SNRQ_SCALE_GRADIENT_H

#include "pipeline/model/block.h"
#include "pipeline/model/fixed.h"

/* The sums of a quantized block. */
typedef struct snrq_scale_gradient {
    const snrq_block *block; /* borrowed */
    int64_t *first;          /* [modules + 1] where a module's sums begin; owned */
    snrq_fixed *sum;         /* of module m, [rows, groups]; owned */
} snrq_scale_gradient;

/* All sums are 0. Not collective. Free it after a failure, too. */
snrq_status snrq_scale_gradient_create(const snrq_block *block, snrq_scale_gradient *out);
void snrq_scale_gradient_free(snrq_scale_gradient *gradient);

/* Adds a batch: x [first[sequences], columns] are what a unit read, dy [the same, unit rows] the
 * gradient of its outputs, sequence s in rows [first[s], first[s + 1]). SNRQ_BAD_DATA names the
 * module if a sum is not finite, or too large. Not collective. */
snrq_status snrq_scale_gradient_add(snrq_scale_gradient *gradient, int unit, int64_t sequences,
                                    const int64_t *first, const float *x, const float *dy);

#endif
