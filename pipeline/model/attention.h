/* Causal grouped-query attention over whole sequences, fp32.
 *
 * Source: transformers' forward passes: queries and keys are normalized (where the family does
 * that) and turned (rope.h); scores are scaled by head_dim^-1/2; every heads / kv_heads query heads
 * share a key and value head; with a window of w, query i sees the keys j with i - j < w.
 */
#ifndef SNRQ_ATTENTION_H
#define SNRQ_ATTENTION_H

#include "pipeline/model/rope.h"

/* What attention does in one block. */
typedef struct snrq_attention_settings {
    const snrq_config *config;          /* borrowed */
    const snrq_rope *rope;              /* borrowed */
    const float *query_norm, *key_norm; /* [head_dim], or NULL: no norm; borrowed */
    int64_t window;                     /* keys a query sees, itself included; 0: all before it */
} snrq_attention_settings;

/* out [sequences, tokens, heads * head_dim] from qkv [sequences, tokens, (heads + 2 kv_heads) *
 * head_dim] with the query, key and value heads one after the other; queries and keys are
 * normalized and turned in place. Time grows with tokens times window; memory with tokens. Not
 * collective. SNRQ_INTERNAL without memory. */
snrq_status snrq_attention(const snrq_attention_settings *settings, float *qkv, int64_t sequences,
                           int64_t tokens, float *out);

/* Twin of snrq_attention: the definition in plain loops and fp64, one query at a time. For tests.
 */
void snrq_attention_reference(const snrq_attention_settings *settings, const float *qkv,
                              int64_t sequences, int64_t tokens, float *out);

#endif
