/* Attention; see attention.h.
 *
 * Symbols: d head_dim; a group is the heads / kv_heads query heads of one key head. The rows of a
 * key head are its queries, token by token and head by head: row r is head r mod group of the group
 * at token r / group. A unit of work is a block of QUERIES rows of one key head of one sequence:
 *
 *     scores [keys][QUERIES]      K Q^T, for the keys that any row of the block sees
 *     softmax over keys           down the columns, so that all rows take a step together
 *     results [QUERIES][d]        scores^T V, divided by the sums of the softmax
 *
 * V of all heads is packed for these products (mpi/algebra/product.h) before.
 */
#include "pipeline/model/attention.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/product.h"
#include "pipeline/model/exponential.h"
#include "pipeline/model/rms_norm.h"

enum { QUERIES = SNRQ_PRODUCT_SLAB, ROWS = SNRQ_PRODUCT_ROWS, COLUMNS = SNRQ_PRODUCT_COLUMNS };

/* Shapes, and what all threads share. */
typedef struct work {
    const snrq_attention_settings *settings;
    int64_t tokens, d, group, stride; /* of a token in qkv */
    int64_t keys, width;              /* tokens and d in whole strips */
    const float *qkv;
    float *v; /* [sequences, kv_heads][width / COLUMNS][keys][COLUMNS] */
    float *out;
} work;

/* What a unit needs for itself. */
typedef struct scratch {
    float *scores;  /* [keys][QUERIES] */
    float *queries; /* [QUERIES / COLUMNS][d][COLUMNS], scaled */
    float *results; /* [QUERIES][width] */
} scratch;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
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

/* Packs value head `head` of a sequence. */
static void pack_values(const work *w, int64_t sequence, int64_t head)
{
    const snrq_config *c = w->settings->config;
    int64_t unit = sequence * c->kv_heads + head;
    const float *v =
        w->qkv + sequence * w->tokens * w->stride + (c->heads + c->kv_heads + head) * w->d;
    float *to = w->v + unit * w->keys * w->width;
    for (int64_t j = 0; j < w->width; j += COLUMNS)
        for (int64_t t = 0; t < w->keys; t++) {
            int64_t there = t < w->tokens ? least(COLUMNS, w->d - j) : 0;
            float *row = to + j * w->keys + t * COLUMNS;
            if (there > 0) memcpy(row, v + t * w->stride + j, (size_t)there * sizeof *row);
            if (there < COLUMNS) memset(row + there, 0, (size_t)(COLUMNS - there) * sizeof *row);
        }
}

/* Packs rows [row, row + count) of the queries of a key head, times d^-1/2. */
static void pack_queries(const work *w, const float *q, int64_t row, int64_t count, scratch *s)
{
    float scale = (float)(1.0 / sqrt((double)w->d));
    float *rows = s->results; /* free until the results come */
    memset(rows, 0, (size_t)(QUERIES * w->d) * sizeof *rows);
    for (int64_t r = 0; r < count; r++) {
        const float *head = q + (row + r) / w->group * w->stride + (row + r) % w->group * w->d;
        for (int64_t i = 0; i < w->d; i++) rows[r * w->d + i] = scale * head[i];
    }
    for (int64_t r = 0; r < QUERIES; r += COLUMNS)
        snrq_product_pack(rows + r * w->d, w->d, COLUMNS, w->d, COLUMNS, s->queries + r * w->d);
}

/* Removes what rows of the block do not see from the scores of key `key`. */
static void mask_key(const work *w, int64_t row, int64_t key, float *scores)
{
    int64_t window = w->settings->window;
    int64_t first = key * w->group, end = window > 0 ? (key + window) * w->group : INT64_MAX;
    for (int64_t r = 0; r < QUERIES; r++)
        if (row + r < first || row + r >= end) scores[r] = -INFINITY;
}

/* scores [count][QUERIES] <- exp(scores - their largest), sums [QUERIES] <- their sums. A row that
 * is not there may see nothing, and gets zeros. */
static void softmax(int64_t count, float *scores, float *sums)
{
    float top[QUERIES];
    for (int i = 0; i < QUERIES; i++) top[i] = -FLT_MAX;
    for (int64_t k = 0; k < count; k++)
#pragma omp simd
        for (int i = 0; i < QUERIES; i++) {
            float x = scores[k * QUERIES + i];
            top[i] = x > top[i] ? x : top[i];
        }
    memset(sums, 0, QUERIES * sizeof *sums);
    for (int64_t k = 0; k < count; k++)
#pragma omp simd
        for (int i = 0; i < QUERIES; i++) {
            float x = scores[k * QUERIES + i], e = snrq_exp(x - top[i]);
            e = x < -FLT_MAX ? 0.0f : e;
            scores[k * QUERIES + i] = e;
            sums[i] += e;
        }
}

/* results [QUERIES][width] <- scores^T V over keys [first, first + count). */
static void sum_values(const work *w, const float *v, int64_t first, int64_t count,
                       const scratch *s)
{
    for (int64_t k = 0; k < count; k += SNRQ_PRODUCT_DEPTH)
        snrq_product_run(&(snrq_product){.rows = QUERIES,
                                         .columns = w->width,
                                         .depth = least(SNRQ_PRODUCT_DEPTH, count - k),
                                         .a = s->scores + k * QUERIES,
                                         .b = v + (first + k) * COLUMNS,
                                         .a_stride = ROWS,
                                         .a_row = 1,
                                         .a_step = QUERIES,
                                         .b_stride = w->keys * COLUMNS,
                                         .add = k > 0,
                                         .c = s->results,
                                         .ldc = w->width});
}

/* Rows [row, row + QUERIES) of key head `head` of a sequence, as far as there are any. */
static void attend(const work *w, int64_t sequence, int64_t head, int64_t row, scratch *s)
{
    const snrq_config *c = w->settings->config;
    int64_t count = least(QUERIES, w->tokens * w->group - row), window = w->settings->window;
    int64_t first_token = row / w->group, end = (row + count - 1) / w->group + 1;
    int64_t first = window > 0 && first_token >= window ? first_token - window + 1 : 0;
    const float *q = w->qkv + sequence * w->tokens * w->stride + head * w->group * w->d;
    const float *k = w->qkv + (sequence * w->tokens + first) * w->stride + (c->heads + head) * w->d;
    const float *v = w->v + (sequence * c->kv_heads + head) * w->keys * w->width;
    float sums[QUERIES];
    pack_queries(w, q, row, count, s);
    int64_t keys = least(snrq_product_padded(end - first, ROWS), w->tokens - first);
    snrq_product_run(&(snrq_product){.rows = keys, /* some of them in vain, but in whole strips */
                                     .columns = QUERIES,
                                     .depth = w->d,
                                     .a = k,
                                     .b = s->queries,
                                     .a_stride = ROWS * w->stride,
                                     .a_row = w->stride,
                                     .a_step = 1,
                                     .b_stride = COLUMNS * w->d,
                                     .c = s->scores,
                                     .ldc = QUERIES});
    for (int64_t key = first; key < end; key++)
        if (key > first_token || (window > 0 && key + window < end))
            mask_key(w, row, key, s->scores + (key - first) * QUERIES);
    softmax(end - first, s->scores, sums);
    sum_values(w, v, first, end - first, s);
    for (int64_t r = 0; r < count; r++) {
        int64_t token = sequence * w->tokens + (row + r) / w->group;
        float *to = w->out + (token * c->heads + head * w->group + (row + r) % w->group) * w->d;
        for (int64_t i = 0; i < w->d; i++) to[i] = s->results[r * w->width + i] / sums[r];
    }
}

static void run(const work *w, int64_t sequences, float *qkv, float *memory, int64_t floats)
{
    const snrq_config *c = w->settings->config;
    int64_t blocks = (w->tokens * w->group + QUERIES - 1) / QUERIES;
#pragma omp parallel
    {
        float *mine = memory + omp_get_thread_num() * floats;
        scratch s = {mine, mine + w->keys * QUERIES, mine + (w->keys + w->d) * QUERIES};
#pragma omp for schedule(static)
        for (int64_t i = 0; i < sequences * w->tokens; i++)
            prepare_heads(w->settings, i % w->tokens, qkv + i * w->stride);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < sequences * c->kv_heads; unit++)
            pack_values(w, unit / c->kv_heads, unit % c->kv_heads);
            /* From the last block of a head up: from long to short. */
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < sequences * c->kv_heads * blocks; unit++) {
            int64_t head = unit / blocks;
            attend(w, head / c->kv_heads, head % c->kv_heads,
                   (blocks - 1 - unit % blocks) * QUERIES, &s);
        }
    }
}

snrq_status snrq_attention(const snrq_attention_settings *settings, float *qkv, int64_t sequences,
                           int64_t tokens, float *out)
{
    const snrq_config *c = settings->config;
    work w = {.settings = settings,
              .tokens = tokens,
              .d = c->head_dim,
              .group = c->heads / c->kv_heads,
              .stride = (c->heads + 2 * c->kv_heads) * c->head_dim,
              .keys = snrq_product_padded(tokens, ROWS),
              .width = snrq_product_padded(c->head_dim, COLUMNS),
              .qkv = qkv,
              .out = out};
    int64_t heads = sequences * c->kv_heads, floats = (w.keys + 2 * w.width) * QUERIES;
    float *memory = NULL;
    snrq_status status = snrq_allocate_scratch((size_t)(heads * w.keys * w.width), sizeof *w.v,
                                               "packed values", &w.v);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)(omp_get_max_threads() * floats), sizeof *memory,
                                       "attention scores", &memory);
    if (status == SNRQ_OK) run(&w, sequences, qkv, memory, floats);
    free(memory);
    free(w.v);
    return status;
}
