/* Causal grouped-query attention over whole sequences, fp32.
 *
 * Source: transformers' forward passes: queries and keys are normalized (where the family does
 * that) and turned (rope.h), cut off between; scores are scaled, and capped as cap tanh(score /
 * cap); every heads / kv_heads query heads share a key and value head; with a window of w, query i
 * sees the keys j with i - j < w. All numbers are in the configuration.
 */
#ifndef SNRQ_ATTENTION_H
#define SNRQ_ATTENTION_H

#include "pipeline/model/rope.h"

/* What attention does in one block. */
typedef struct snrq_attention_settings {
    const snrq_config *config;          /* borrowed */
    const snrq_rope *rope;              /* NULL: heads do not turn; borrowed */
    const float *query_norm, *key_norm; /* [head_dim], or of all heads, or NULL; borrowed */
    int64_t window;                     /* keys a query sees, itself included; 0: all before it */
} snrq_attention_settings;

/* Tokens that follow each other: rows [first, first + tokens). They see each other, and before them
 * a prefix, the tokens of rows [prefix_first, prefix_first + prefix_tokens), which other spans may
 * see as well. So what several texts begin with is computed once. */
typedef struct snrq_span {
    int64_t first, tokens;
    int64_t prefix_first, prefix_tokens; /* no prefix: 0, 0 */
} snrq_span;

/* How the rows of a batch belong together: each is in one span. */
typedef struct snrq_layout {
    int64_t rows, spans;
    const snrq_span *span; /* [spans] borrowed */
} snrq_layout;

/* span [sequences] of sequences of `tokens` tokens, one after the other. */
void snrq_spans_fill(int64_t sequences, int64_t tokens, snrq_span *span);

/* Numbers of a token in qkv. */
int64_t snrq_attention_width(const snrq_config *config);

/* out [rows, heads * value_dim] from qkv [rows, snrq_attention_width()], whose query, key and value
 * heads, of head_dim, head_dim and value_dim numbers, lie one after the other; queries and keys are
 * normalized and turned in place. A token's result has the same bits whether what is before it is a
 * prefix or in its own span, where the settings have no window. Time grows with tokens times those
 * that they see; memory with tokens, each prefix counted once for every span. Not collective.
 * SNRQ_INTERNAL without memory. */
snrq_status snrq_attention_spans(const snrq_attention_settings *settings, float *qkv,
                                 const snrq_layout *layout, float *out);

/* The same of whole sequences: out [sequences, tokens, heads * value_dim] from qkv [sequences,
 * tokens, snrq_attention_width()]. */
snrq_status snrq_attention(const snrq_attention_settings *settings, float *qkv, int64_t sequences,
                           int64_t tokens, float *out);

/* Twin of snrq_attention: the definition in plain loops and fp64, one query at a time. For tests.
 */
void snrq_attention_reference(const snrq_attention_settings *settings, const float *qkv,
                              int64_t sequences, int64_t tokens, float *out);

#endif
