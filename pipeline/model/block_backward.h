/* Back through a transformer block: from the gradient of what it gives to the gradient of what it
 * takes, and on the way those of every module's outputs.
 *
 * With a d in front for gradients of the loss, and y, h, x as in block.h, from the end of the
 * block:
 *
 *     [down]      dy = dh, scaled and through the norm where h += y is;  dx = W' dy
 *     [gate,up]   d gate = act'(gate) * up * dx,  d up = act(gate) * dx;  dx = W' dy
 *                 dh += dx through RMSNorm (rms_norm.h)
 *     [o]         as [down]
 *     [q,k,v]     dy by attention_backward.h;  dx = W' dy;  dh += dx through RMSNorm
 *
 * What the formulas need of the forward pass is computed again from the block's input. Experts are
 * in experts_backward.h. Arithmetic is fp32, norms and sums of softmax fp64; no sequence depends on
 * the others, or on the number of threads.
 */
#ifndef SNRQ_BLOCK_BACKWARD_H
#define SNRQ_BLOCK_BACKWARD_H

#include "pipeline/model/block.h"
#include "pipeline/model/gradient_sums.h"

/* Of `sequences` whole sequences of `tokens` tokens, some at a time (snrq_stream_batch()): h [rows,
 * hidden] is the block's input; g [rows, hidden], the gradient of its output, becomes that of its
 * input. Gradients of module outputs are added to gram. Not collective. SNRQ_BAD_DATA if they are
 * not finite. */
snrq_status snrq_block_backward(const snrq_block *block, int64_t sequences, int64_t tokens,
                                const float *h, float *g, const snrq_gradient_sums *sums);

/* Bytes that it takes for so many rows at a time, besides h and g. */
int64_t snrq_block_backward_bytes(const snrq_config *config, const snrq_family *family,
                                  int64_t rows);

/* g [rows, 2 width] = the gradient of gate and up, from that of act(gate) * up, g_out [rows,
 * width]; y [rows, 2 width] are gate and up. */
void snrq_gated_backward(snrq_activation kind, int64_t rows, int64_t width, const float *y,
                         const float *g_out, float *g);

#endif
