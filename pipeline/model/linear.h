/* Linear modules as the forward pass reads them: dense in the checkpoint's type, or quantized.
 *
 * Arithmetic is fp32. Weights are widened a panel at a time, as they are packed for the product
 * (mpi/algebra/product.h) with all tokens at hand. A token's outputs are the same bits whatever the
 * other tokens are, hence however sequences are batched and dealt to ranks, and for any number of
 * threads.
 */
#ifndef SNRQ_LINEAR_H
#define SNRQ_LINEAR_H

#include "mpi/algebra/dtype.h"

typedef struct snrq_weight {
    int64_t rows, columns;
    /* dense: */
    snrq_dtype dtype;
    const unsigned char *dense; /* [rows, columns] of dtype, or NULL if quantized */
    /* quantized: value = scales[r, g] * (codes[r, c] - zeros[r, g]) - minima[r, g], g = g_idx[c] */
    const uint8_t *codes; /* [rows, columns] */
    const float *scales;  /* [rows, groups] */
    const uint8_t *zeros; /* [rows, groups] */
    const float *minima;  /* [rows, groups], or NULL: there are none */
    const int32_t *g_idx; /* [columns] */
    const float *levels;  /* what codes stand for, instead of codes - zeros; NULL: integers */
    int64_t groups;
} snrq_weight;

/* out [count, columns] = rows [row, row + count) as fp32. */
void snrq_weight_widen(const snrq_weight *weight, int64_t row, int64_t count, float *out);

/* y[t] = W_0 x[t], W_1 x[t], ... one after the other, for the `count` weights of a unit, which
 * have the same number of columns. x [tokens, columns]; y has row stride `stride`, at least the sum
 * of the rows, and may be offset into a wider array. Not collective. SNRQ_INTERNAL without memory.
 */
snrq_status snrq_linear_apply(const snrq_weight *weights, int count, const float *x, int64_t tokens,
                              float *y, int64_t stride);

/* The gradient of the inputs from that of the outputs: gx[t] = W_0' gy[t] + W_1' gy[t] ..., with gy
 * [tokens, row stride `stride`] as y above, gx [tokens, columns]. A token's gradient does not
 * depend on the others. Not collective. SNRQ_INTERNAL without memory. */
snrq_status snrq_linear_backward(const snrq_weight *weights, int count, const float *gy,
                                 int64_t tokens, int64_t stride, float *gx);

#endif
