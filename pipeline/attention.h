/* Rotary position embedding and causal grouped-query attention over whole sequences, fp32.
 *
 * Source: transformers' Llama forward: rotate_half pairs dimension i with i + head_dim / 2; scores
 * are scaled by head_dim^-1/2; every heads / kv_heads query heads share a key and value head.
 */
#ifndef SNRQ_ATTENTION_H
#define SNRQ_ATTENTION_H

#include "io/config.h"

/* cos and sin of the rotation angles: [tokens, head_dim / 2] each. */
typedef struct snrq_rope {
    int64_t tokens, half;
    float *cosine, *sine; /* owned */
} snrq_rope;

snrq_status snrq_rope_create(const snrq_config *config, int64_t tokens, snrq_rope *out);
void snrq_rope_free(snrq_rope *rope);

/* out [sequences, tokens, heads * head_dim] from qkv [sequences, tokens, (heads + 2 kv_heads) *
 * head_dim] with the query, key and value heads one after the other; queries and keys are rotated
 * in place. Memory: one block of scores per thread. Not collective. */
snrq_status snrq_attention(const snrq_config *config, const snrq_rope *rope, float *qkv,
                           int64_t sequences, int64_t tokens, float *out);

#endif
