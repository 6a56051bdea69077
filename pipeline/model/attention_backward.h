/* Attention, backward: from the gradient of what a block's attention gives to that of its queries,
 * keys and values.
 *
 * With P = softmax(S), S = cap tanh(scale Q K' / cap), O = P V, and for the gradients a d in front:
 *
 *     dV = P' dO
 *     dS = P * (dO V' - the sum over its row of P * dO V')
 *     dQ = scale dZ K,  dK = scale dZ' Q,  with dZ = dS (1 - (S / cap)^2), or dS without cap
 *
 * then through what was done to queries and keys before: turned by the opposite angle, 0 where they
 * were cut off, and through their norms.
 */
#ifndef SNRQ_ATTENTION_BACKWARD_H
#define SNRQ_ATTENTION_BACKWARD_H

#include "pipeline/model/attention.h"
#include "pipeline/model/gradient_sums.h"

/* qkv [sequences, tokens, snrq_attention_width()]: as snrq_attention() takes them; prepared: what
 * it leaves there; g_out [sequences, tokens, heads * value_dim]; g_qkv, of the shape of qkv, is
 * written. The gradients of norms of heads are added to sums. No sequence depends on the others.
 * Not collective. SNRQ_INTERNAL without memory. */
snrq_status snrq_attention_backward(const snrq_attention_settings *settings, const float *qkv,
                                    const float *prepared, int64_t sequences, int64_t tokens,
                                    const float *g_out, float *g_qkv,
                                    const snrq_gradient_sums *sums);

#endif
