/* Rotary embedding and attention; see attention.h. */
#include "pipeline/attention.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "mpi/blas.h"
#include "pipeline/exponential.h"

enum { QUERY_ROWS = 64 };

snrq_status snrq_rope_create(const snrq_config *c, int64_t tokens, snrq_rope *out)
{
    int64_t half = c->head_dim / 2;
    *out = (snrq_rope){.tokens = tokens, .half = half};
    SNRQ_TRY(snrq_allocate((size_t)(tokens * half), sizeof(float), "rope cosines", &out->cosine));
    SNRQ_TRY(snrq_allocate((size_t)(tokens * half), sizeof(float), "rope sines", &out->sine));
    for (int64_t i = 0; i < half; i++) {
        double frequency = pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
        for (int64_t t = 0; t < tokens; t++) {
            out->cosine[t * half + i] = (float)cos((double)t * frequency);
            out->sine[t * half + i] = (float)sin((double)t * frequency);
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

static void rotate(const snrq_rope *rope, int64_t token, float *head)
{
    const float *cosine = rope->cosine + token * rope->half,
                *sine = rope->sine + token * rope->half;
    for (int64_t i = 0; i < rope->half; i++) {
        float a = head[i], b = head[i + rope->half];
        head[i] = a * cosine[i] - b * sine[i];
        head[i + rope->half] = b * cosine[i] + a * sine[i];
    }
}

/* Softmax of the first `visible` scores of a row; the rest become zero. */
static void softmax_row(float *scores, int64_t visible, int64_t width)
{
    float top = scores[0], sum = 0.0f;
#pragma omp simd reduction(max : top)
    for (int64_t i = 1; i < visible; i++) top = scores[i] > top ? scores[i] : top;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < visible; i++) {
        scores[i] = snrq_exp(scores[i] - top);
        sum += scores[i];
    }
    float share = 1.0f / sum;
    for (int64_t i = 0; i < visible; i++) scores[i] *= share;
    for (int64_t i = visible; i < width; i++) scores[i] = 0.0f;
}

/* One query head of one sequence: q, k, v point at the head's first token, with row stride
 * `stride`. */
static void attend(const float *q, const float *k, const float *v, int64_t stride, int64_t tokens,
                   int64_t head_dim, float *scores, float *out, int64_t out_stride)
{
    float scale = (float)(1.0 / sqrt((double)head_dim));
    for (int64_t first = 0; first < tokens; first += QUERY_ROWS) {
        int64_t rows = tokens - first < QUERY_ROWS ? tokens - first : QUERY_ROWS;
        int64_t width = first + rows;
        snrq_sgemm(false, true, rows, width, head_dim, scale, q + first * stride, stride, k, stride,
                   0.0f, scores, width);
        for (int64_t r = 0; r < rows; r++) softmax_row(scores + r * width, first + r + 1, width);
        snrq_sgemm(false, false, rows, head_dim, width, 1.0f, scores, width, v, stride, 0.0f,
                   out + first * out_stride, out_stride);
    }
}

snrq_status snrq_attention(const snrq_config *c, const snrq_rope *rope, float *qkv,
                           int64_t sequences, int64_t tokens, float *out)
{
    int64_t d = c->head_dim, rotated = c->heads + c->kv_heads;
    int64_t stride = (c->heads + 2 * c->kv_heads) * d, out_stride = c->heads * d;
    size_t score_floats = (size_t)(QUERY_ROWS * tokens);
    float *scratch = NULL;
    SNRQ_TRY(snrq_allocate((size_t)omp_get_max_threads() * score_floats, sizeof *scratch,
                           "attention scores", &scratch));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < sequences * tokens; i++)
        for (int64_t h = 0; h < rotated; h++) rotate(rope, i % tokens, qkv + i * stride + h * d);
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < sequences * c->heads; unit++) {
        int64_t s = unit / c->heads, h = unit % c->heads, kv = h / (c->heads / c->kv_heads);
        const float *at = qkv + s * tokens * stride;
        attend(at + h * d, at + (c->heads + kv) * d, at + (rotated + kv) * d, stride, tokens, d,
               scratch + (size_t)omp_get_thread_num() * score_floats,
               out + s * tokens * out_stride + h * d, out_stride);
    }
    free(scratch);
    return SNRQ_OK;
}
