/* The twin of snrq_attention: the definition, in fp64; see attention.h. */
#include <math.h>

#include "pipeline/model/attention.h"

enum { MOST_DIMENSIONS = 1024 };

static double cut_off(const snrq_config *c, double value)
{
    return c->qkv_clip > 0.0 ? fmin(fmax(value, -c->qkv_clip), c->qkv_clip) : value;
}

/* Head `index` of the `count` query or key heads of a token, normalized, cut off and turned. */
static void prepared(const snrq_attention_settings *s, const float *heads, int64_t count,
                     int64_t index, const float *norm, int64_t position, double *out)
{
    const snrq_config *c = s->config;
    const float *head = heads + index * c->head_dim;
    const bool all = c->head_norms == SNRQ_NORM_OF_ALL_HEADS;
    const float *from = all ? heads : head, *weight = norm;
    int64_t together = all ? count * c->head_dim : c->head_dim;
    double sum = 0.0;
    for (int64_t i = 0; i < together; i++) sum += (double)from[i] * (double)from[i];
    double scale = 1.0 / sqrt(sum / (double)together + c->rms_norm_eps);
    if (norm != NULL && all) weight += index * c->head_dim;
    for (int64_t i = 0; i < c->head_dim; i++)
        out[i] = cut_off(c, (double)head[i] * (norm == NULL ? 1.0 : scale * (double)weight[i]));
    for (int64_t i = 0; s->rope != NULL && i < s->rope->half; i++) {
        int64_t first = s->rope->first + (s->rope->pairs ? 2 * i : i);
        int64_t second = first + (s->rope->pairs ? 1 : s->rope->half);
        double a = out[first], b = out[second];
        double cosine = (double)s->rope->cosine[position * s->rope->half + i];
        double sine = (double)s->rope->sine[position * s->rope->half + i];
        out[first] = a * cosine - b * sine;
        out[second] = b * cosine + a * sine;
    }
}

/* out [value_dim] of query head `head` at `position`; qkv is its sequence. */
static void attend(const snrq_attention_settings *s, const float *qkv, int64_t position,
                   int64_t head, float *out)
{
    const snrq_config *c = s->config;
    int64_t d = c->head_dim, dv = c->value_dim, stride = snrq_attention_width(c);
    int64_t kv = head / (c->heads / c->kv_heads);
    const float *values = qkv + (c->heads + c->kv_heads) * d + kv * dv;
    double query[MOST_DIMENSIONS], key[MOST_DIMENSIONS], sums[MOST_DIMENSIONS] = {0}, total = 0.0;
    prepared(s, qkv + position * stride, c->heads, head, s->query_norm, position, query);
    for (int64_t t = 0; t <= position; t++) {
        if (s->window > 0 && position - t >= s->window) continue;
        double score = 0.0;
        prepared(s, qkv + t * stride + c->heads * d, c->kv_heads, kv, s->key_norm, t, key);
        for (int64_t i = 0; i < d; i++) score += query[i] * key[i];
        score *= c->attention_scale;
        if (c->attention_cap > 0.0) score = c->attention_cap * tanh(score / c->attention_cap);
        double weight = exp(score);
        total += weight;
        for (int64_t i = 0; i < dv; i++)
            sums[i] += weight * cut_off(c, (double)values[t * stride + i]);
    }
    for (int64_t i = 0; i < dv; i++) out[i] = (float)(sums[i] / total);
}

void snrq_attention_reference(const snrq_attention_settings *s, const float *qkv, int64_t sequences,
                              int64_t tokens, float *out)
{
    const snrq_config *c = s->config;
    int64_t stride = snrq_attention_width(c);
    for (int64_t i = 0; i < sequences * tokens; i++)
        for (int64_t h = 0; h < c->heads; h++)
            attend(s, qkv + i / tokens * tokens * stride, i % tokens, h,
                   out + (i * c->heads + h) * c->value_dim);
}
