/* Rotary position embedding: dimension i of a head and dimension i + half are turned together, by
 * an angle that is position times frequency i. The dimensions beyond 2 half stay as they are.
 *
 * Source: transformers' modeling_rope_utils. frequency_i = theta^(-i / half), changed for contexts
 * longer than the one a model was first trained with:
 *
 *     linear    divided by `factor`
 *     llama3    by how often it turns within the original context: at most low_frequency times,
 *               divided by `factor`; at least high_frequency times, kept; blended between them
 *     longrope  divided by short_factor[i], or by long_factor[i] in sequences longer than the
 *               original context; cos and sin times attention_factor in both cases
 */
#ifndef SNRQ_ROPE_H
#define SNRQ_ROPE_H

#include "io/config.h"

/* cos and sin of the rotation angles: [tokens, half] each. */
typedef struct snrq_rope {
    int64_t tokens, half;
    float *cosine, *sine; /* owned */
} snrq_rope;

/* For sequences of `tokens` tokens. Not collective. SNRQ_INTERNAL without memory; free *out anyway.
 */
snrq_status snrq_rope_create(const snrq_config *config, int64_t tokens, snrq_rope *out);
void snrq_rope_free(snrq_rope *rope);

/* Turns a head [head_dim] of the token at `position`, in place. */
static inline void snrq_rope_turn(const snrq_rope *rope, int64_t position, float *head)
{
    const float *cosine = rope->cosine + position * rope->half,
                *sine = rope->sine + position * rope->half;
    for (int64_t i = 0; i < rope->half; i++) {
        float a = head[i], b = head[i + rope->half];
        head[i] = a * cosine[i] - b * sine[i];
        head[i + rope->half] = b * cosine[i] + a * sine[i];
    }
}

#endif
