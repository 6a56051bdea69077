/* The mixture of experts of a block, in place of its MLP:
 *
 *     h += sum of p * down(act(gate x) * up x)   over the experts of a token, ascending,
 *     h += down(act(gate x) * up x)              of the expert that all tokens see, if there is one
 *
 * with x = RMSNorm(h), and p and the experts of a token by its router (router.h).
 */
#ifndef SNRQ_EXPERTS_H
#define SNRQ_EXPERTS_H

#include "pipeline/model/block.h"
#include "pipeline/model/router.h"

/* Routes of x [rows, hidden]. */
snrq_status snrq_block_route(const snrq_block *block, int64_t rows, const float *x,
                             snrq_routes *out);

/* out [count, width] = rows token[i] of x [tokens, width]; NULL: the first `count`. */
void snrq_gather_rows(const float *x, int64_t width, const int64_t *token, int64_t count,
                      float *out);

/* h[token[i]] += weight[i] y[i], rows of `width`; a weight of 0 leaves h alone. NULL: all tokens,
 * with weight 1. */
void snrq_scatter_rows(const float *y, int64_t width, const int64_t *token, const float *weight,
                       int64_t count, float *h);

/* The two steps of the experts, the first of which is `step`, for rows of x and h. */
snrq_status snrq_experts_forward(const snrq_block *block, int step, int64_t rows, const float *x,
                                 float *h);

#endif
