/* Attention, backward; see attention_backward.h.
 *
 * A unit of work is a key head of a sequence: its query heads one after the other, each in blocks
 * of QUERIES tokens with all keys that any of them sees.
 */
#include "pipeline/model/attention_backward.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/blas.h"
#include "pipeline/model/exponential.h"
#include "pipeline/model/rms_norm.h"

enum { QUERIES = 128 };

typedef struct work {
    const snrq_attention_settings *settings;
    int64_t tokens, width, group; /* width: of a token in qkv */
    const float *qkv, *prepared, *g_out;
    float *g_qkv;
} work;

/* Of a thread: [QUERIES, tokens] each. */
typedef struct scratch {
    float *scores, *g_scores, *slope;
} scratch;

/* Keys that a block of queries sees together. */
typedef struct tile {
    int64_t query, queries, key, keys;
} tile;

/* Keys [*begin, *end) of the tile that a query sees. */
static void seen_keys(const work *w, int64_t query, const tile *t, int64_t *begin, int64_t *end)
{
    int64_t window = w->settings->window;
    int64_t first = window > 0 && query >= window ? query - window + 1 : 0;
    *begin = first - t->key;
    *end = query + 1 - t->key;
}

/* Scores of the keys that are seen -> probabilities. slope: of the cap, if there is one. */
static void softmax_row(const snrq_config *c, int64_t count, float *scores, float *slope)
{
    const float cap = (float)c->attention_cap;
    float largest = -FLT_MAX;
    double sum = 0.0;
    if (cap > 0.0f) {
#pragma omp simd
        for (int64_t k = 0; k < count; k++) {
            float part = snrq_tanh(scores[k] / cap);
            slope[k] = 1.0f - part * part;
            scores[k] = cap * part;
        }
    }
#pragma omp simd reduction(max : largest)
    for (int64_t k = 0; k < count; k++) largest = scores[k] > largest ? scores[k] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < count; k++) {
        scores[k] = snrq_exp(scores[k] - largest);
        sum += (double)scores[k];
    }
    const float part = (float)(1.0 / sum);
#pragma omp simd
    for (int64_t k = 0; k < count; k++) scores[k] *= part;
}

/* g <- the gradient of a row of scores, from that of its probabilities p. */
static void backward_row(const snrq_config *c, int64_t count, const float *p, const float *slope,
                         float *g)
{
    double along = 0.0;
#pragma omp simd reduction(+ : along)
    for (int64_t k = 0; k < count; k++) along += (double)p[k] * (double)g[k];
    const float mean = (float)along;
#pragma omp simd
    for (int64_t k = 0; k < count; k++) g[k] = p[k] * (g[k] - mean);
    if (c->attention_cap > 0.0)
        for (int64_t k = 0; k < count; k++) g[k] *= slope[k];
}

/* Scores become probabilities, and gradients of those gradients of scores; 0 where a query does not
 * see a key. */
static void backward_scores(const work *w, const tile *t, const scratch *s)
{
    for (int64_t r = 0; r < t->queries; r++) {
        float *p = s->scores + r * t->keys, *g = s->g_scores + r * t->keys;
        float *slope = s->slope + r * t->keys;
        int64_t begin, end;
        seen_keys(w, t->query + r, t, &begin, &end);
        softmax_row(w->settings->config, end - begin, p + begin, slope + begin);
        backward_row(w->settings->config, end - begin, p + begin, slope + begin, g + begin);
        memset(p, 0, (size_t)begin * sizeof *p);
        memset(g, 0, (size_t)begin * sizeof *g);
        memset(p + end, 0, (size_t)(t->keys - end) * sizeof *p);
        memset(g + end, 0, (size_t)(t->keys - end) * sizeof *g);
    }
}

/* Arrays of a sequence: rows of `width`, or of the outputs. */
typedef struct arrays {
    const float *q, *k, *v, *g_out; /* of the heads at hand */
    float *g_q, *g_k, *g_v;
    int64_t out_width;
} arrays;

/* A block of queries of a head; adds to what other blocks gave to keys and values, but for the
 * first one. */
static void backward_tile(const work *w, const arrays *a, const tile *t, scratch *s)
{
    const snrq_config *c = w->settings->config;
    int64_t d = c->head_dim, dv = c->value_dim, n = w->width, m = t->queries, keys = t->keys;
    const float scale = (float)c->attention_scale;
    const float *q = a->q + t->query * n, *k = a->k + t->key * n, *v = a->v + t->key * n;
    const float *g_out = a->g_out + t->query * a->out_width;
    snrq_sgemm(false, true, m, keys, d, scale, q, n, k, n, 0.0f, s->scores, keys);
    snrq_sgemm(false, true, m, keys, dv, 1.0f, g_out, a->out_width, v, n, 0.0f, s->g_scores, keys);
    backward_scores(w, t, s);
    snrq_sgemm(true, false, keys, dv, m, 1.0f, s->scores, keys, g_out, a->out_width, 1.0f,
               a->g_v + t->key * n, n);
    snrq_sgemm(false, false, m, d, keys, scale, s->g_scores, keys, k, n, 0.0f,
               a->g_q + t->query * n, n);
    snrq_sgemm(true, false, keys, d, m, scale, s->g_scores, keys, q, n, 1.0f, a->g_k + t->key * n,
               n);
}

/* All that a key head of a sequence gives. */
static void backward_head(const work *w, int64_t sequence, int64_t head, scratch *s)
{
    const snrq_config *c = w->settings->config;
    int64_t d = c->head_dim, dv = c->value_dim, window = w->settings->window;
    int64_t at = sequence * w->tokens * w->width, out_width = c->heads * dv;
    int64_t key = (c->heads + head) * d, value = (c->heads + c->kv_heads) * d + head * dv;
    for (int64_t h = head * w->group; h < (head + 1) * w->group; h++) {
        const arrays a = {.q = w->prepared + at + h * d,
                          .k = w->prepared + at + key,
                          .v = w->prepared + at + value,
                          .g_out = w->g_out + sequence * w->tokens * out_width + h * dv,
                          .g_q = w->g_qkv + at + h * d,
                          .g_k = w->g_qkv + at + key,
                          .g_v = w->g_qkv + at + value,
                          .out_width = out_width};
        for (int64_t query = 0; query < w->tokens; query += QUERIES) {
            int64_t left = w->tokens - query, queries = left < QUERIES ? left : QUERIES;
            int64_t first = window > 0 && query >= window ? query - window + 1 : 0;
            const tile t = {query, queries, first, query + queries - first};
            backward_tile(w, &a, &t, s);
        }
    }
}

/* ---- through what was done to queries and keys ---- */

/* Turns the gradient of a head back. */
static void turn_back(const snrq_rope *rope, int64_t position, float *g)
{
    const float *cosine = rope->cosine + position * rope->half;
    const float *sine = rope->sine + position * rope->half;
    const int64_t step = rope->pairs ? 2 : 1, apart = rope->pairs ? 1 : rope->half;
    for (int64_t i = 0; i < rope->half; i++) {
        float *first = g + rope->first + step * i, a = first[0], b = first[apart];
        first[0] = a * cosine[i] + b * sine[i];
        first[apart] = b * cosine[i] - a * sine[i];
    }
}

/* Of `count` numbers of heads, how many a norm takes together. */
static int64_t normed_together(const snrq_config *c, int64_t count)
{
    return c->head_norms == SNRQ_NORM_OF_ALL_HEADS ? count : c->head_dim;
}

/* 0 where a normalized number was cut off. */
static void cut_gradient(const snrq_config *c, const float *weight, const float *in, int64_t count,
                         float *normed, float *g)
{
    const float most = (float)c->qkv_clip;
    int64_t together = normed_together(c, count);
    memcpy(normed, in, (size_t)count * sizeof *normed);
    for (int64_t i = 0; weight != NULL && i < count; i += together)
        snrq_rms_norm_row(in + i, weight, c->rms_norm_eps, together, normed + i);
    for (int64_t i = 0; i < count; i++)
        if (fabsf(normed[i]) > most) g[i] = 0.0f;
}

/* g of `count` numbers of query or key heads: from what they became to what their norm gave. */
static void backward_heads(const work *w, const float *weight, int64_t position, const float *in,
                           int64_t count, float *normed, float *g)
{
    const snrq_config *c = w->settings->config;
    for (int64_t i = 0; w->settings->rope != NULL && i < count; i += c->head_dim)
        turn_back(w->settings->rope, position, g + i);
    if (c->qkv_clip > 0.0) cut_gradient(c, weight, in, count, normed, g);
}

/* The same through the norm. */
static void backward_head_norms(const work *w, const float *weight, const float *in, int64_t count,
                                float *g)
{
    const snrq_config *c = w->settings->config;
    int64_t together = normed_together(c, count);
    for (int64_t i = 0; weight != NULL && i < count; i += together)
        snrq_rms_norm_backward_row(in + i, weight, c->rms_norm_eps, together, g + i, g + i);
}

/* The gradient of a token's qkv, but for the norms of heads. */
static void backward_token(const work *w, int64_t row, float *normed)
{
    const snrq_attention_settings *s = w->settings;
    const snrq_config *c = s->config;
    int64_t queries = c->heads * c->head_dim, keys = c->kv_heads * c->head_dim;
    int64_t position = row % w->tokens;
    const float *in = w->qkv + row * w->width;
    float *g = w->g_qkv + row * w->width;
    backward_heads(w, s->query_norm, position, in, queries, normed, g);
    backward_heads(w, s->key_norm, position, in + queries, keys, normed, g + queries);
    if (c->qkv_clip > 0.0)
        cut_gradient(c, NULL, in + queries + keys, c->kv_heads * c->value_dim, normed,
                     g + queries + keys);
}

/* Adds the gradient of a norm's weight; its `count` numbers of a token begin at `at`. */
static snrq_status add_head_norm(const work *w, int64_t sequences, snrq_vector norm, int64_t at,
                                 int64_t count, const snrq_gradient_sums *sums)
{
    const int64_t together = normed_together(w->settings->config, count);
    const snrq_normed_rows rows = {.count = together,
                                   .heads = count / together,
                                   .h_stride = w->width,
                                   .g_stride = w->width,
                                   .h = w->qkv + at,
                                   .g = w->g_qkv + at,
                                   .eps = w->settings->config->rms_norm_eps};
    int64_t *first = NULL;
    if (sums->parameters == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)sequences + 1, sizeof *first, "sequences", &first));
    for (int64_t s = 0; s <= sequences; s++) first[s] = s * w->tokens;
    snrq_status status = snrq_gradient_sums_add_norm(sums, norm, &rows, sequences, first);
    free(first);
    return status;
}

/* Through the norms of heads, and their gradients. */
static snrq_status backward_norms(const work *w, int64_t sequences, const snrq_gradient_sums *sums)
{
    const snrq_attention_settings *s = w->settings;
    const int64_t queries = s->config->heads * s->config->head_dim;
    const int64_t keys = s->config->kv_heads * s->config->head_dim;
    if (s->query_norm == NULL && s->key_norm == NULL) return SNRQ_OK;
    SNRQ_TRY(add_head_norm(w, sequences, SNRQ_QUERY_NORM, 0, queries, sums));
    SNRQ_TRY(add_head_norm(w, sequences, SNRQ_KEY_NORM, queries, keys, sums));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < sequences * w->tokens; r++) {
        const float *in = w->qkv + r * w->width;
        float *g = w->g_qkv + r * w->width;
        backward_head_norms(w, s->query_norm, in, queries, g);
        backward_head_norms(w, s->key_norm, in + queries, keys, g + queries);
    }
    return SNRQ_OK;
}

snrq_status snrq_attention_backward(const snrq_attention_settings *settings, const float *qkv,
                                    const float *prepared, int64_t sequences, int64_t tokens,
                                    const float *g_out, float *g_qkv,
                                    const snrq_gradient_sums *sums)
{
    const snrq_config *c = settings->config;
    const work w = {
        settings, tokens, snrq_attention_width(c), c->heads / c->kv_heads, qkv, prepared,
        g_out,    g_qkv};
    int64_t rows = sequences * tokens, each = QUERIES * tokens;
    int64_t floats = 3 * each > w.width ? 3 * each : w.width;
    float *memory = NULL;
    SNRQ_TRY(snrq_allocate_scratch((size_t)(omp_get_max_threads() * floats), sizeof *memory,
                                   "attention scores", &memory));
    memset(g_qkv, 0, (size_t)(rows * w.width) * sizeof *g_qkv);
#pragma omp parallel
    {
        float *mine = memory + omp_get_thread_num() * floats;
        scratch s = {mine, mine + each, mine + 2 * each};
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < sequences * c->kv_heads; i++)
            backward_head(&w, i / c->kv_heads, i % c->kv_heads, &s);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) backward_token(&w, r, mine);
    }
    free(memory);
    return backward_norms(&w, sequences, sums);
}
