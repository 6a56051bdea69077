/* Attention; see attention.h. */
#include "pipeline/attention.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "mpi/blas.h"
#include "pipeline/exponential.h"
#include "pipeline/rms_norm.h"

enum { QUERY_ROWS = 64 };

/* Softmax of scores [first, end) of a row; the others become zero. */
static void softmax_row(float *scores, int64_t first, int64_t end, int64_t width)
{
    float top = scores[first], sum = 0.0f;
#pragma omp simd reduction(max : top)
    for (int64_t i = first + 1; i < end; i++) top = scores[i] > top ? scores[i] : top;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = first; i < end; i++) {
        scores[i] = snrq_exp(scores[i] - top);
        sum += scores[i];
    }
    float share = 1.0f / sum;
    for (int64_t i = 0; i < first; i++) scores[i] = 0.0f;
    for (int64_t i = first; i < end; i++) scores[i] *= share;
    for (int64_t i = end; i < width; i++) scores[i] = 0.0f;
}

/* The first key that the query at `position` sees. */
static int64_t first_key(int64_t position, int64_t window)
{
    return window > 0 && position >= window ? position - window + 1 : 0;
}

/* Keys that the queries of one block of rows see together, at most. */
static int64_t most_keys(int64_t tokens, int64_t window)
{
    int64_t together = window + QUERY_ROWS - 1;
    return window > 0 && together < tokens ? together : tokens;
}

/* One query head of one sequence: q, k, v point at the head's first token, with row stride
 * `stride`. Scores [QUERY_ROWS, most_keys]. */
static void attend(const float *q, const float *k, const float *v, int64_t stride, int64_t tokens,
                   int64_t head_dim, int64_t window, float *scores, float *out, int64_t out_stride)
{
    float scale = (float)(1.0 / sqrt((double)head_dim));
    for (int64_t first = 0; first < tokens; first += QUERY_ROWS) {
        int64_t rows = tokens - first < QUERY_ROWS ? tokens - first : QUERY_ROWS;
        int64_t key = first_key(first, window), width = first + rows - key;
        snrq_sgemm(false, true, rows, width, head_dim, scale, q + first * stride, stride,
                   k + key * stride, stride, 0.0f, scores, width);
        for (int64_t r = first; r < first + rows; r++)
            softmax_row(scores + (r - first) * width, first_key(r, window) - key, r + 1 - key,
                        width);
        snrq_sgemm(false, false, rows, head_dim, width, 1.0f, scores, width, v + key * stride,
                   stride, 0.0f, out + first * out_stride, out_stride);
    }
}

/* Normalizes and turns the query and key heads of one token. */
static void prepare_heads(const snrq_attention_settings *s, int64_t position, float *heads)
{
    const snrq_config *c = s->config;
    for (int64_t h = 0; h < c->heads + c->kv_heads; h++) {
        float *head = heads + h * c->head_dim;
        const float *norm = h < c->heads ? s->query_norm : s->key_norm;
        if (norm != NULL) snrq_rms_norm_row(head, norm, c->rms_norm_eps, c->head_dim, head);
        snrq_rope_turn(s->rope, position, head);
    }
}

snrq_status snrq_attention(const snrq_attention_settings *settings, float *qkv, int64_t sequences,
                           int64_t tokens, float *out)
{
    const snrq_config *c = settings->config;
    int64_t d = c->head_dim, window = settings->window;
    int64_t stride = (c->heads + 2 * c->kv_heads) * d, out_stride = c->heads * d;
    size_t score_floats = (size_t)(QUERY_ROWS * most_keys(tokens, window));
    float *scratch = NULL;
    SNRQ_TRY(snrq_allocate((size_t)omp_get_max_threads() * score_floats, sizeof *scratch,
                           "attention scores", &scratch));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < sequences * tokens; i++)
        prepare_heads(settings, i % tokens, qkv + i * stride);
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < sequences * c->heads; unit++) {
        int64_t s = unit / c->heads, h = unit % c->heads, kv = h / (c->heads / c->kv_heads);
        const float *at = qkv + s * tokens * stride;
        attend(at + h * d, at + (c->heads + kv) * d, at + (c->heads + c->kv_heads + kv) * d, stride,
               tokens, d, window, scratch + (size_t)omp_get_thread_num() * score_floats,
               out + s * tokens * out_stride + h * d, out_stride);
    }
    free(scratch);
    return SNRQ_OK;
}
