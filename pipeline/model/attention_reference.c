/* The twin of snrq_attention: the definition, in fp64; see attention.h. */
#include <math.h>

#include "pipeline/model/attention.h"

enum { MOST_DIMENSIONS = 1024 };

/* One query or key head of a token, normalized and turned. */
static void prepared(const snrq_attention_settings *s, const float *head, const float *norm,
                     int64_t position, double *out)
{
    const snrq_config *c = s->config;
    double sum = 0.0;
    for (int64_t i = 0; i < c->head_dim; i++) sum += (double)head[i] * (double)head[i];
    double scale = 1.0 / sqrt(sum / (double)c->head_dim + c->rms_norm_eps);
    for (int64_t i = 0; i < c->head_dim; i++)
        out[i] = (double)head[i] * (norm == NULL ? 1.0 : scale * (double)norm[i]);
    for (int64_t i = 0; i < s->rope->half; i++) {
        double a = out[i], b = out[i + s->rope->half];
        double cosine = (double)s->rope->cosine[position * s->rope->half + i];
        double sine = (double)s->rope->sine[position * s->rope->half + i];
        out[i] = a * cosine - b * sine;
        out[i + s->rope->half] = b * cosine + a * sine;
    }
}

/* out [head_dim] of query head `head` at `position`; qkv is its sequence. */
static void attend(const snrq_attention_settings *s, const float *qkv, int64_t position,
                   int64_t head, float *out)
{
    const snrq_config *c = s->config;
    int64_t d = c->head_dim, stride = (c->heads + 2 * c->kv_heads) * d;
    int64_t kv = c->heads + head / (c->heads / c->kv_heads);
    double query[MOST_DIMENSIONS], key[MOST_DIMENSIONS], sums[MOST_DIMENSIONS] = {0}, total = 0.0;
    prepared(s, qkv + position * stride + head * d, s->query_norm, position, query);
    for (int64_t t = 0; t <= position; t++) {
        if (s->window > 0 && position - t >= s->window) continue;
        double score = 0.0;
        prepared(s, qkv + t * stride + kv * d, s->key_norm, t, key);
        for (int64_t i = 0; i < d; i++) score += query[i] * key[i];
        double weight = exp(score / sqrt((double)d));
        total += weight;
        for (int64_t i = 0; i < d; i++)
            sums[i] += weight * (double)qkv[t * stride + (kv + c->kv_heads) * d + i];
    }
    for (int64_t i = 0; i < d; i++) out[i] = (float)(sums[i] / total);
}

void snrq_attention_reference(const snrq_attention_settings *s, const float *qkv, int64_t sequences,
                              int64_t tokens, float *out)
{
    const snrq_config *c = s->config;
    int64_t stride = (c->heads + 2 * c->kv_heads) * c->head_dim;
    for (int64_t i = 0; i < sequences * tokens; i++)
        for (int64_t h = 0; h < c->heads; h++)
            attend(s, qkv + i / tokens * tokens * stride, i % tokens, h,
                   out + (i * c->heads + h) * c->head_dim);
}
