/* One pass through a transformer block, cut at the steps of its family.
 *
 *     h [tokens, hidden]         the residual stream
 *     begin      x = RMSNorm(h)                      input of the first step, [q,k,v]
 *     apply      y = W x                             a unit's linear modules, outputs stacked
 *     continue   y += biases, where there are any, then, by the kind of step,
 *                [q,k,v]     x = attention(y)        input of [o]
 *                [o]         h += y, x = RMSNorm(h)  input of [gate,up]
 *                [gate,up]   x = act(gate) * up      input of [down]
 *                [down]      h += y                  the block's end
 *
 * Where a family says so, y is normalized before it is added to h, RMSNorm(h) is h itself, and what
 * is added is scaled. Latent attention has in place of [q,k,v]
 *
 *                [q_a,kv_a]  x = RMSNorm of both latent vectors; what turns of the keys is carried
 *                [q_b,kv_b]  x = attention(heads made of y and what was carried)
 *
 * In a block with experts the last two steps are in experts.h.
 *
 * Statistics are gathered, and modules quantized, between `begin` or `continue` and `apply`.
 * Everything works on a batch of sequences, or of spans that share beginnings (attention.h);
 * arithmetic is fp32, and no element of a result depends on the other sequences or on the number of
 * threads.
 */
#ifndef SNRQ_BLOCK_H
#define SNRQ_BLOCK_H

#include "pipeline/model/attention.h"
#include "pipeline/model/family.h"
#include "pipeline/model/linear.h"
#include "pipeline/model/rms_norm.h"

typedef struct snrq_block {
    const snrq_config *config;  /* borrowed */
    const snrq_family *family;  /* borrowed */
    const snrq_rope *rope;      /* NULL: heads do not turn; borrowed */
    int64_t window;             /* of its attention; 0: none */
    const snrq_weight *module;  /* [modules] views; borrowed */
    const float *const *vector; /* [vectors] fp32, NULL where the family has none; borrowed */
} snrq_block;

/* What the units of a step read, or what they write, one array per unit. */
typedef struct snrq_unit_arrays {
    bool inputs; /* what they read */
    float **of;  /* [units of the step] each [tokens, unit columns], or [tokens, unit rows] */
    float *data; /* of all of them; owned, as the list is */
} snrq_unit_arrays;

/* Numbers of a token that the units of a step read, or write, together; units that a router sends
 * tokens to read one matrix, and write to room of their own. */
int64_t snrq_step_width(const snrq_family *family, int step, bool inputs);

/* Room for any of the steps [first, end) of a batch of so many tokens, laid out for `first`. Not
 * collective. */
snrq_status snrq_unit_arrays_create(const snrq_family *family, int first, int end, int64_t tokens,
                                    bool inputs, snrq_unit_arrays *out);
/* Lays the arrays out for another step, from the start of the same room. */
void snrq_unit_arrays_lay(const snrq_family *family, int step, int64_t tokens,
                          snrq_unit_arrays *arrays);
void snrq_unit_arrays_free(snrq_unit_arrays *arrays);

/* x [units of the first step], each [rows, hidden] = RMSNorm(h). */
void snrq_block_begin(const snrq_block *block, int64_t rows, const float *h, float *const *x);

/* y [tokens, unit rows], without biases, from x [tokens, unit columns]. */
snrq_status snrq_block_apply(const snrq_block *block, int unit, int64_t tokens, const float *x,
                             float *y);

/* Uses up y [units of the step]; updates h; writes the inputs x [units of the next step] (nothing
 * after the last). carried [tokens, family's carried] is written by the first step and used by the
 * second, where the family has it. Not for steps that are routed. */
snrq_status snrq_block_continue(const snrq_block *block, int step, const snrq_layout *layout,
                                float *const *y, float *h, float *const *x, float *carried);

/* x [rows, width of the unit's module behind it] = act(gate) * up of y [rows, 2 width]. */
void snrq_gated_activation(snrq_activation kind, int64_t rows, int64_t width, const float *y,
                           float *x);

/* The whole block for a batch; x and y have room for the inputs and outputs of all steps.
 * SNRQ_INTERNAL without memory for what else it needs. */
snrq_status snrq_block_forward(const snrq_block *block, const snrq_layout *layout, float *h,
                               snrq_unit_arrays *x, snrq_unit_arrays *y);

#endif
