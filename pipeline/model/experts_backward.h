/* Back through a mixture of experts. With the notation of experts.h, for the tokens of an expert:
 *
 *     dy = p dh,  and back through down, act(gate) * up, gate and up as in block_backward.h
 *     dp = dh y,  and through the router, whose choice is a constant (router.h), to x
 */
#ifndef SNRQ_EXPERTS_BACKWARD_H
#define SNRQ_EXPERTS_BACKWARD_H

#include "pipeline/model/block.h"
#include "pipeline/model/gradient_sums.h"

/* The two steps of experts, the first of which is `step`. x [rows, hidden] is what they read; g
 * [rows, hidden] the gradient of h behind them; g_x [rows, hidden] becomes that of x. first
 * [sequences + 1]: rows where sequences begin, and their end. sums gathers what it wants.
 * Not collective. */
snrq_status snrq_experts_backward(const snrq_block *block, int step, int64_t sequences,
                                  const int64_t *first, const float *x, const float *g, float *g_x,
                                  const snrq_gradient_sums *sums);

#endif
