/* Gradients of what tuning changes in a quantized block: scales, and weights of norms.
 *
 * Codes and zeros stay as they are, so that with w = s (code - zero)
 *
 *     ds[r, g] = the sum over the columns c of group g of (code[r, c] - zero[r, g]) dW[r, c],
 *     dW       = the sum over tokens of dy x'
 *
 * with dy the gradient of a module's outputs; and with y = v h / rms(h)
 *
 *     dv[i]    = the sum over rows of dy[i] h[i] / rms(h)
 *
 * As in gradient_gram.h, what a sequence gives is summed in a fixed order, and sequences are added
 * in fixed point.
 */
#ifndef SNRQ_PARAMETER_GRADIENT_H
#define SNRQ_PARAMETER_GRADIENT_H

#include "pipeline/model/block.h"
#include "pipeline/model/fixed.h"

/* The sums of a quantized block, one after the other: [rows, groups] of the scales of each module,
 * nothing of one that is kept, then the norms. */
typedef struct snrq_parameter_gradient {
    const snrq_block *block;   /* borrowed */
    int64_t *first;            /* [modules + 1] where a module's sums begin; owned */
    int64_t norm[SNRQ_ROUTER]; /* where a norm's begin */
    int64_t count;             /* of all */
    snrq_fixed *sum;           /* [count] owned */
} snrq_parameter_gradient;

/* All sums are 0. Not collective. Free it after a failure, too. */
snrq_status snrq_parameter_gradient_create(const snrq_block *block, snrq_parameter_gradient *out);
void snrq_parameter_gradient_free(snrq_parameter_gradient *gradient);

/* Adds a batch: x [first[sequences], columns] are what a unit read, dy [the same, unit rows] the
 * gradient of its outputs, sequence s in rows [first[s], first[s + 1]). SNRQ_BAD_DATA names the
 * module if a sum is not finite, or too large. Not collective. */
snrq_status snrq_scale_gradient_add(snrq_parameter_gradient *gradient, int unit, int64_t sequences,
                                    const int64_t *first, const float *x, const float *dy);

/* Rows that went through a norm. */
typedef struct snrq_normed_rows {
    int64_t count;              /* numbers that are normed together */
    int64_t heads;              /* so often in a row */
    int64_t h_stride, g_stride; /* from row to row */
    const float *h, *g;         /* what went in; the gradient of what came out */
    double eps;
} snrq_normed_rows;

/* sum [count] += the gradient of a norm's weight, sequence s in rows [first[s], first[s + 1]).
 * SNRQ_BAD_DATA if it is not finite, or too large; `name` is said then. Not collective. */
snrq_status snrq_norm_gradient_add(const snrq_normed_rows *rows, int64_t sequences,
                                   const int64_t *first, const char *name, snrq_fixed *sum);

#endif
