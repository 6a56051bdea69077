/* One pass through a transformer block, cut at its stages.
 *
 *     h [tokens, hidden]         the residual stream
 *     begin      x = RMSNorm(h)                      input of [q,k,v]
 *     apply      y = W_stage x                       the stage's linear modules, outputs stacked
 *     continue   y += biases, where there are any, then
 *                [q,k,v]     x = attention(y)        input of [o]
 *                [o]         h += y, x = RMSNorm(h)  input of [gate,up]
 *                [gate,up]   x = silu(gate) * up     input of [down]
 *                [down]      h += y
 *
 * Statistics are gathered, and modules quantized, between `begin` or `continue` and `apply`.
 * Everything works on a batch of sequences; arithmetic is fp32, and no element of a result depends
 * on the other sequences or on the number of threads.
 */
#ifndef SNRQ_BLOCK_H
#define SNRQ_BLOCK_H

#include "pipeline/model/attention.h"
#include "pipeline/model/family.h"
#include "pipeline/model/linear.h"
#include "pipeline/model/rms_norm.h"

typedef struct snrq_block {
    const snrq_config *config;             /* borrowed */
    const snrq_family *family;             /* borrowed */
    const snrq_rope *rope;                 /* borrowed */
    int64_t window;                        /* of its attention; 0: none */
    snrq_weight module[SNRQ_MAX_MODULES];  /* views */
    const float *vector[SNRQ_MAX_VECTORS]; /* fp32, NULL where the family has none; borrowed */
} snrq_block;

/* x [sequences, tokens, hidden] = RMSNorm(h). */
void snrq_block_begin(const snrq_block *block, int64_t sequences, int64_t tokens, const float *h,
                      float *x);

/* y [sequences, tokens, stage_rows], without biases, from x [sequences, tokens, stage_columns]. */
snrq_status snrq_block_apply(const snrq_block *block, snrq_stage stage, int64_t sequences,
                             int64_t tokens, const float *x, float *y);

/* Uses up y; updates h; writes the next stage's input to x (nothing after [down]). */
snrq_status snrq_block_continue(const snrq_block *block, snrq_stage stage, int64_t sequences,
                                int64_t tokens, float *y, float *h, float *x);

/* The whole block for a batch; x and y are scratch of max_columns and max_rows per token. */
snrq_status snrq_block_forward(const snrq_block *block, int64_t sequences, int64_t tokens, float *h,
                               float *x, float *y);

#endif
