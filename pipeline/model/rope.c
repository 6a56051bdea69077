/* Frequencies and angles of the rotary position embedding; see rope.h. */
#include "pipeline/model/rope.h"

#include <math.h>
#include <stdlib.h>

static double llama3_frequency(const snrq_rope_config *r, double frequency)
{
    const double two_pi = 6.283185307179586;
    double turns = (double)r->original_positions * frequency / two_pi;
    double kept = (turns - r->low_frequency) / (r->high_frequency - r->low_frequency);
    if (kept < 0.0) kept = 0.0;
    if (kept > 1.0) kept = 1.0;
    return (1.0 - kept) * frequency / r->factor + kept * frequency;
}

static double frequency_of(const snrq_rope_config *r, int64_t i, int64_t tokens)
{
    double frequency = pow(r->theta, -2.0 * (double)i / (double)r->dimensions);
    switch (r->type) {
    case SNRQ_ROPE_DEFAULT:
        break;
    case SNRQ_ROPE_LINEAR:
        return frequency / r->factor;
    case SNRQ_ROPE_LLAMA3:
        return llama3_frequency(r, frequency);
    case SNRQ_ROPE_LONGROPE:
        return frequency / (tokens > r->original_positions ? r->long_factor : r->short_factor)[i];
    }
    return frequency;
}

snrq_status snrq_rope_create(const snrq_config *c, int64_t tokens, snrq_rope *out)
{
    const snrq_rope_config *r = &c->rope;
    int64_t half = r->dimensions / 2;
    *out = (snrq_rope){.tokens = tokens, .half = half};
    SNRQ_TRY(snrq_allocate((size_t)(tokens * half), sizeof(float), "rope cosines", &out->cosine));
    SNRQ_TRY(snrq_allocate((size_t)(tokens * half), sizeof(float), "rope sines", &out->sine));
    for (int64_t i = 0; i < half; i++) {
        double frequency = frequency_of(r, i, tokens);
        for (int64_t t = 0; t < tokens; t++) {
            double angle = (double)t * frequency;
            out->cosine[t * half + i] = (float)(r->attention_factor * cos(angle));
            out->sine[t * half + i] = (float)(r->attention_factor * sin(angle));
        }
    }
    return SNRQ_OK;
}

void snrq_rope_free(snrq_rope *rope)
{
    free(rope->cosine);
    free(rope->sine);
    *rope = (snrq_rope){0};
}
