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

/* The dimension that turns so many times within the original context. */
static double yarn_dimension(const snrq_rope_config *r, double turns)
{
    const double two_pi = 6.283185307179586;
    return (double)r->dimensions * log((double)r->original_positions / (turns * two_pi)) /
           (2.0 * log(r->theta));
}

static double yarn_frequency(const snrq_rope_config *r, int64_t i, double frequency)
{
    double low = yarn_dimension(r, r->beta_fast), high = yarn_dimension(r, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, (double)r->dimensions - 1.0);
    if (low == high) high += 0.001;
    double stretched = fmin(fmax(((double)i - low) / (high - low), 0.0), 1.0);
    return frequency / r->factor * stretched + frequency * (1.0 - stretched);
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
    case SNRQ_ROPE_YARN:
        return yarn_frequency(r, i, frequency);
    }
    return frequency;
}

static snrq_status create(const snrq_rope_config *r, int64_t tokens, snrq_rope *out)
{
    int64_t half = r->dimensions / 2;
    *out = (snrq_rope){.tokens = tokens, .half = half, .first = r->first, .pairs = r->pairs};
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

snrq_status snrq_ropes_create(const snrq_config *c, int64_t tokens, snrq_ropes *out)
{
    *out = (snrq_ropes){0};
    SNRQ_TRY(create(&c->rope, tokens, &out->whole));
    return c->local_rope.dimensions > 0 ? create(&c->local_rope, tokens, &out->local) : SNRQ_OK;
}

const snrq_rope *snrq_ropes_of(const snrq_ropes *ropes, const snrq_config *c, int64_t layer)
{
    if (snrq_config_layer(c, layer, SNRQ_LAYER_NO_ROPE)) return NULL;
    return snrq_config_layer(c, layer, SNRQ_LAYER_LOCAL) ? &ropes->local : &ropes->whole;
}

void snrq_ropes_free(snrq_ropes *ropes)
{
    free(ropes->whole.cosine);
    free(ropes->whole.sine);
    free(ropes->local.cosine);
    free(ropes->local.sine);
    *ropes = (snrq_ropes){0};
}
