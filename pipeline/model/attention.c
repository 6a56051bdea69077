/* Attention; see attention.h.
 *
 * Symbols: d head_dim; dv value_dim; a group is the heads / kv_heads query heads of one key head.
 * The rows of a key head are its queries, token by token and head by head: row r is head r mod
 * group of the group at token r / group of a span. The keys of a span are those of its prefix, then
 * its own; a token's position is its key's number. A unit of work is a block of QUERIES rows of one
 * key head of one span:
 *
 *     scores [keys][QUERIES]      K Q^T, for the keys that any row of the block sees
 *     softmax over keys           down the columns, so that all rows take a step together
 *     results [QUERIES][dv]       scores^T V, divided by the sums of the softmax
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
    const snrq_layout *layout;
    int64_t d, dv, group, stride; /* of a token in qkv */
    int64_t width;                /* dv in whole strips */
    int64_t most_keys;            /* of a span */
    const float *qkv;
    float *v;          /* of span s from v_begin[s] on:
                          [kv_heads][width / COLUMNS][keys in whole strips][COLUMNS] */
    int64_t *v_begin;  /* [spans] */
    int64_t *position; /* [rows] */
    int64_t units;
    struct unit *unit; /* [units] */
    float *out;
} work;

/* A block of queries. */
typedef struct unit {
    const snrq_span *span;
    const float *v; /* of its key head */
    int64_t head, row;
} unit;

/* What a unit needs for itself. */
typedef struct scratch {
    float *scores;  /* [keys][QUERIES] */
    float *queries; /* [QUERIES / COLUMNS][d][COLUMNS], scaled */
    float *results; /* [QUERIES][width], and room for [QUERIES][d] */
} scratch;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t snrq_attention_width(const snrq_config *c)
{
    return (c->heads + c->kv_heads) * c->head_dim + c->kv_heads * c->value_dim;
}

/* Normalizes `count` numbers of heads, all at once or head by head. */
static void normalize(const snrq_config *c, const float *weight, int64_t count, float *heads)
{
    int64_t together = c->head_norms == SNRQ_NORM_OF_ALL_HEADS ? count : c->head_dim;
    for (int64_t i = 0; weight != NULL && i < count; i += together)
        snrq_rms_norm_row(heads + i, weight, c->rms_norm_eps, together, heads + i);
}

/* Normalizes, cuts off and turns the query and key heads of one token; values are cut off. */
static void prepare_heads(const snrq_attention_settings *s, int64_t position, float *heads)
{
    const snrq_config *c = s->config;
    normalize(c, s->query_norm, c->heads * c->head_dim, heads);
    normalize(c, s->key_norm, c->kv_heads * c->head_dim, heads + c->heads * c->head_dim);
    if (c->qkv_clip > 0.0) {
        float most = (float)c->qkv_clip;
        for (int64_t i = 0; i < snrq_attention_width(c); i++)
            heads[i] = fminf(fmaxf(heads[i], -most), most);
    }
    for (int64_t h = 0; s->rope != NULL && h < c->heads + c->kv_heads; h++)
        snrq_rope_turn(s->rope, position, heads + h * c->head_dim);
}

/* Keys of a span in whole strips. */
static int64_t padded_keys(const snrq_span *span)
{
    return snrq_product_padded(span->prefix_tokens + span->tokens, ROWS);
}

/* Row of a key. */
static int64_t key_row(const snrq_span *span, int64_t key)
{
    return key < span->prefix_tokens ? span->prefix_first + key
                                     : span->first + key - span->prefix_tokens;
}

/* Packs value head `head` of a span. */
static void pack_values(const work *w, int64_t span, int64_t head)
{
    const snrq_config *c = w->settings->config;
    const snrq_span *s = &w->layout->span[span];
    int64_t keys = padded_keys(s), count = s->prefix_tokens + s->tokens;
    const float *v = w->qkv + (c->heads + c->kv_heads) * w->d + head * w->dv;
    float *to = w->v + w->v_begin[span] + head * keys * w->width;
    for (int64_t j = 0; j < w->width; j += COLUMNS)
        for (int64_t t = 0; t < keys; t++) {
            int64_t there = t < count ? least(COLUMNS, w->dv - j) : 0;
            float *row = to + j * keys + t * COLUMNS;
            if (there > 0)
                memcpy(row, v + key_row(s, t) * w->stride + j, (size_t)there * sizeof *row);
            if (there < COLUMNS) memset(row + there, 0, (size_t)(COLUMNS - there) * sizeof *row);
        }
}

/* Packs rows [row, row + count) of the queries of a key head, times the scale of scores. */
static void pack_queries(const work *w, const float *q, int64_t row, int64_t count, scratch *s)
{
    float scale = (float)w->settings->config->attention_scale;
    float *rows = s->results; /* free until the results come */
    memset(rows, 0, (size_t)(QUERIES * w->d) * sizeof *rows);
    for (int64_t r = 0; r < count; r++) {
        const float *head = q + (row + r) / w->group * w->stride + (row + r) % w->group * w->d;
        for (int64_t i = 0; i < w->d; i++) rows[r * w->d + i] = scale * head[i];
    }
    for (int64_t r = 0; r < QUERIES; r += COLUMNS)
        snrq_product_pack(rows + r * w->d, w->d, COLUMNS, w->d, COLUMNS, s->queries + r * w->d);
}

/* scores [count][QUERIES] <- cap tanh(scores / cap) */
static void cap_scores(double cap, int64_t count, float *scores)
{
    float most = (float)cap, part = (float)(1.0 / cap);
#pragma omp simd
    for (int64_t i = 0; i < count * QUERIES; i++) scores[i] = most * snrq_tanh(part * scores[i]);
}

/* Removes what rows of the block do not see from the scores of key `key`. */
static void mask_key(const work *w, const unit *u, int64_t key, float *scores)
{
    int64_t window = w->settings->window, own = key - u->span->prefix_tokens, row = u->row;
    int64_t first = own * w->group, end = window > 0 ? (own + window) * w->group : INT64_MAX;
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
static void sum_values(const work *w, const unit *u, int64_t first, int64_t count, const scratch *s)
{
    for (int64_t k = 0; k < count; k += SNRQ_PRODUCT_DEPTH)
        snrq_product_run(&(snrq_product){.rows = QUERIES,
                                         .columns = w->width,
                                         .depth = least(SNRQ_PRODUCT_DEPTH, count - k),
                                         .a = s->scores + k * QUERIES,
                                         .b = u->v + (first + k) * COLUMNS,
                                         .a_stride = ROWS,
                                         .a_row = 1,
                                         .a_step = QUERIES,
                                         .b_stride = padded_keys(u->span) * COLUMNS,
                                         .add = k > 0,
                                         .c = s->results,
                                         .ldc = w->width});
}

/* scores [count][QUERIES] <- K Q^T for keys whose rows follow each other from `row` on. */
static void multiply_keys(const work *w, int64_t head, int64_t row, int64_t count, const scratch *s,
                          float *scores)
{
    const snrq_config *c = w->settings->config;
    snrq_product_run(&(snrq_product){.rows = count,
                                     .columns = QUERIES,
                                     .depth = w->d,
                                     .a = w->qkv + row * w->stride + (c->heads + head) * w->d,
                                     .b = s->queries,
                                     .a_stride = ROWS * w->stride,
                                     .a_row = w->stride,
                                     .a_step = 1,
                                     .b_stride = COLUMNS * w->d,
                                     .c = scores,
                                     .ldc = QUERIES});
}

/* Scores of keys [first, end) of a span, and of some more in vain, so that strips are whole. */
static void score_keys(const work *w, const unit *u, int64_t first, int64_t end, const scratch *s)
{
    const snrq_span *span = u->span;
    int64_t prefix = span->prefix_tokens, own = first > prefix ? first : prefix;
    int64_t count = least(snrq_product_padded(end - own, ROWS), prefix + span->tokens - own);
    if (first < prefix)
        multiply_keys(w, u->head, key_row(span, first), prefix - first, s, s->scores);
    multiply_keys(w, u->head, key_row(span, own), count, s, s->scores + (own - first) * QUERIES);
}

/* The rows of a block, as far as there are any. */
static void attend(const work *w, const unit *u, scratch *s)
{
    const snrq_config *c = w->settings->config;
    const snrq_span *span = u->span;
    int64_t count = least(QUERIES, span->tokens * w->group - u->row);
    int64_t window = w->settings->window;
    int64_t begin = span->prefix_tokens + u->row / w->group; /* position of the first row */
    int64_t end = span->prefix_tokens + (u->row + count - 1) / w->group + 1;
    int64_t first = window > 0 && begin >= window ? begin - window + 1 : 0;
    float sums[QUERIES];
    pack_queries(w, w->qkv + span->first * w->stride + u->head * w->group * w->d, u->row, count, s);
    score_keys(w, u, first, end, s);
    if (c->attention_cap > 0.0) cap_scores(c->attention_cap, end - first, s->scores);
    for (int64_t key = first; key < end; key++)
        if (key > begin || (window > 0 && key + window < end))
            mask_key(w, u, key, s->scores + (key - first) * QUERIES);
    softmax(end - first, s->scores, sums);
    sum_values(w, u, first, end - first, s);
    for (int64_t r = 0; r < count; r++) {
        int64_t token = span->first + (u->row + r) / w->group;
        float *to =
            w->out + (token * c->heads + u->head * w->group + (u->row + r) % w->group) * w->dv;
        for (int64_t i = 0; i < w->dv; i++) to[i] = s->results[r * w->width + i] / sums[r];
    }
}

static void run(const work *w, float *qkv, float *memory, int64_t floats)
{
    const snrq_config *c = w->settings->config;
#pragma omp parallel
    {
        float *mine = memory + omp_get_thread_num() * floats;
        scratch s = {mine, mine + w->most_keys * QUERIES, mine + (w->most_keys + w->d) * QUERIES};
#pragma omp for schedule(static)
        for (int64_t i = 0; i < w->layout->rows; i++)
            prepare_heads(w->settings, w->position[i], qkv + i * w->stride);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < w->layout->spans * c->kv_heads; i++)
            pack_values(w, i / c->kv_heads, i % c->kv_heads);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < w->units; i++) attend(w, &w->unit[i], &s);
    }
}

static int64_t blocks_of(const work *w, const snrq_span *span)
{
    return (span->tokens * w->group + QUERIES - 1) / QUERIES;
}

/* Positions of the rows, and the units: of every head from its last block up, which is from long to
 * short. */
static void list_units(work *w)
{
    const snrq_config *c = w->settings->config;
    unit *next = w->unit;
    for (int64_t s = 0; s < w->layout->spans; s++) {
        const snrq_span *span = &w->layout->span[s];
        for (int64_t t = 0; t < span->tokens; t++)
            w->position[span->first + t] = span->prefix_tokens + t;
        for (int64_t head = 0; head < c->kv_heads; head++)
            for (int64_t block = blocks_of(w, span); block-- > 0;)
                *next++ = (unit){span, w->v + w->v_begin[s] + head * padded_keys(span) * w->width,
                                 head, block * QUERIES};
    }
}

static snrq_status allocate_work(work *w)
{
    const snrq_config *c = w->settings->config;
    const snrq_layout *l = w->layout;
    int64_t floats = 0;
    SNRQ_TRY(snrq_allocate((size_t)l->spans, sizeof *w->v_begin, "packed values", &w->v_begin));
    for (int64_t s = 0; s < l->spans; s++) {
        int64_t keys = padded_keys(&l->span[s]);
        w->v_begin[s] = floats;
        floats += c->kv_heads * keys * w->width;
        w->units += c->kv_heads * blocks_of(w, &l->span[s]);
        w->most_keys = keys > w->most_keys ? keys : w->most_keys;
    }
    SNRQ_TRY(snrq_allocate_scratch((size_t)floats, sizeof *w->v, "packed values", &w->v));
    SNRQ_TRY(snrq_allocate((size_t)l->rows, sizeof *w->position, "positions", &w->position));
    return snrq_allocate((size_t)w->units, sizeof *w->unit, "blocks of queries", &w->unit);
}

snrq_status snrq_attention_spans(const snrq_attention_settings *settings, float *qkv,
                                 const snrq_layout *layout, float *out)
{
    const snrq_config *c = settings->config;
    work w = {.settings = settings,
              .layout = layout,
              .d = c->head_dim,
              .group = c->heads / c->kv_heads,
              .dv = c->value_dim,
              .stride = snrq_attention_width(c),
              .width = snrq_product_padded(c->value_dim, COLUMNS),
              .qkv = qkv,
              .out = out};
    float *memory = NULL;
    snrq_status status = allocate_work(&w);
    int64_t floats = (w.most_keys + w.d + (w.d > w.width ? w.d : w.width)) * QUERIES;
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)(omp_get_max_threads() * floats), sizeof *memory,
                                       "attention scores", &memory);
    if (status == SNRQ_OK) {
        list_units(&w);
        run(&w, qkv, memory, floats);
    }
    free(memory);
    free(w.unit);
    free(w.position);
    free(w.v);
    free(w.v_begin);
    return status;
}

void snrq_spans_fill(int64_t sequences, int64_t tokens, snrq_span *span)
{
    for (int64_t s = 0; s < sequences; s++)
        span[s] = (snrq_span){.first = s * tokens, .tokens = tokens};
}

snrq_status snrq_attention(const snrq_attention_settings *settings, float *qkv, int64_t sequences,
                           int64_t tokens, float *out)
{
    snrq_span *span;
    SNRQ_TRY(snrq_allocate((size_t)sequences, sizeof *span, "spans", &span));
    snrq_spans_fill(sequences, tokens, span);
    const snrq_layout layout = {sequences * tokens, sequences, span};
    snrq_status status = snrq_attention_spans(settings, qkv, &layout, out);
    free(span);
    return status;
}
