/* Rotary position embedding: of 2 half dimensions of a head, from `first` on, dimension i and
 * dimension i + half are turned together, or 2 i and 2 i + 1, by an angle that is position times
 * frequency i. The other dimensions stay as they are.
 *
 * Source: transformers' modeling_rope_utils. frequency_i = theta^(-i / half), changed for contexts
 * longer than the one a model was first trained with:
 *
 *     linear    divided by `factor`
 *     llama3    by how often it turns within the original context: at most low_frequency times,
 *               divided by `factor`; at least high_frequency times, kept; blended between them
 *     longrope  divided by short_factor[i], or by long_factor[i] in sequences longer than the
 *               original context; cos and sin times attention_factor in both cases
 *     yarn      divided by `factor` from the dimension on that turns beta_slow times within the
 *               original context, kept up to the one that turns beta_fast times, blended linearly
 *               between them; cos and sin times attention_factor
 */
#ifndef SNRQ_ROPE_H
#define SNRQ_ROPE_H

#include "io/config.h"

/* cos and sin of the rotation angles: [tokens, half] each. */
typedef struct snrq_rope {
    int64_t tokens, half, first;
    bool pairs;           /* neighbours turn together */
    float *cosine, *sine; /* owned */
} snrq_rope;

/* The angles of all layers of a model: most turn by the first. */
typedef struct snrq_ropes {
    snrq_rope whole, local;
} snrq_ropes;

/* For sequences of `tokens` tokens. Not collective. SNRQ_INTERNAL without memory; free *out anyway.
 */
snrq_status snrq_ropes_create(const snrq_config *config, int64_t tokens, snrq_ropes *out);
void snrq_ropes_free(snrq_ropes *ropes);

/* The angles of a layer, or NULL: its heads do not turn. Borrowed. */
const snrq_rope *snrq_ropes_of(const snrq_ropes *ropes, const snrq_config *config, int64_t layer);

/* Turns a head [head_dim] of the token at `position`, in place. */
static inline void snrq_rope_turn(const snrq_rope *rope, int64_t position, float *head)
{
    const float *cosine = rope->cosine + position * rope->half,
                *sine = rope->sine + position * rope->half;
    head += rope->first;
    if (rope->pairs) {
        for (int64_t i = 0; i < rope->half; i++) {
            float a = head[2 * i], b = head[2 * i + 1];
            head[2 * i] = a * cosine[i] - b * sine[i];
            head[2 * i + 1] = b * cosine[i] + a * sine[i];
        }
        return;
    }
    for (int64_t i = 0; i < rope->half; i++) {
        float a = head[i], b = head[i + rope->half];
        head[i] = a * cosine[i] - b * sine[i];
        head[i + rope->half] = b * cosine[i] + a * sine[i];
    }
}

#endif
