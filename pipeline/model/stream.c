/* Streams of activations; see stream.h. */
#include "pipeline/model/stream.h"

#include <stdlib.h>
#include <string.h>

/* Sequences are taken through a block in batches of about this many tokens: large enough to widen
 * weights rarely. */
enum { BATCH_TOKENS = 2048 };

int64_t snrq_stream_batch(int64_t sequences, int64_t tokens)
{
    int64_t batch = BATCH_TOKENS / tokens;
    if (batch < 1) batch = 1;
    return batch < sequences ? batch : sequences;
}

static int64_t batch_sequences(const snrq_stream *s)
{
    return snrq_stream_batch(s->range.end - s->range.begin, s->tokens);
}

snrq_range snrq_stream_share(const snrq_context *c, const snrq_windows *windows)
{
    return snrq_share(windows->count, 1, c->size, c->rank);
}

snrq_status snrq_stream_create(snrq_range range, int64_t tokens, int64_t hidden, snrq_stream *out)
{
    *out = (snrq_stream){.range = range, .tokens = tokens, .hidden = hidden};
    return snrq_allocate((size_t)((range.end - range.begin) * tokens * hidden), sizeof(float),
                         "activations", &out->h);
}

void snrq_stream_embed(snrq_stream *s, const snrq_weight *embedding, const snrq_windows *windows)
{
    const int32_t *ids = windows->ids + s->range.begin * s->tokens;
    for (int64_t i = 0; i < (s->range.end - s->range.begin) * s->tokens; i++)
        snrq_weight_widen(embedding, ids[i], 1, s->h + i * s->hidden);
}

void snrq_stream_free(snrq_stream *s)
{
    free(s->h);
    free(s->x);
    memset(s, 0, sizeof *s);
}

snrq_activations snrq_stream_activations(const snrq_stream *s)
{
    return (snrq_activations){s->range.end - s->range.begin, s->tokens, s->columns, s->x};
}

static snrq_status allocate_input(const snrq_stream *s, int64_t columns, float **x)
{
    return snrq_allocate_scratch((size_t)((s->range.end - s->range.begin) * s->tokens * columns),
                                 sizeof **x, "activations", x);
}

snrq_status snrq_stream_begin(snrq_stream *s, const snrq_block *block)
{
    s->columns = block->config->hidden;
    SNRQ_TRY(allocate_input(s, s->columns, &s->x));
    snrq_block_begin(block, s->range.end - s->range.begin, s->tokens, s->h, s->x);
    return SNRQ_OK;
}

/* Squared norms of the rows of each module, per sequence: difference of the streams, and the
 * full-precision output. */
static void measure(const snrq_family *f, snrq_stage stage, int64_t sequences, int64_t tokens,
                    const float *y, const float *y_full, int64_t first_sequence, int64_t total,
                    double *errors)
{
    int64_t stride = f->stage_rows[stage];
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < sequences; s++) {
        int64_t column = 0;
        for (int m = 0; m < f->first[stage + 1] - f->first[stage]; m++) {
            int64_t rows = f->module[f->first[stage] + m].rows;
            double difference = 0.0, norm = 0.0;
            for (int64_t t = s * tokens; t < (s + 1) * tokens; t++)
#pragma omp simd reduction(+ : difference, norm)
                for (int64_t i = t * stride + column; i < t * stride + column + rows; i++) {
                    double e = (double)y_full[i] - (double)y[i];
                    difference += e * e;
                    norm += (double)y_full[i] * (double)y_full[i];
                }
            errors[2 * m * total + first_sequence + s] = difference;
            errors[(2 * m + 1) * total + first_sequence + s] = norm;
            column += rows;
        }
    }
}

/* A stream with the scratch to take one stage. */
typedef struct crossing {
    snrq_stream *stream;
    const snrq_block *block;
    float *next; /* [sequences, tokens, next columns] */
    float *y;    /* one batch of outputs */
} crossing;

static snrq_status start_crossing(snrq_stream *s, const snrq_block *b, snrq_stage stage,
                                  crossing *c)
{
    int64_t next = stage == SNRQ_STAGE_DOWN ? 0 : b->family->stage_columns[stage + 1];
    *c = (crossing){.stream = s, .block = b};
    SNRQ_TRY(allocate_input(s, next, &c->next));
    return snrq_allocate_scratch(
        (size_t)(batch_sequences(s) * s->tokens * b->family->stage_rows[stage]), sizeof(float),
        "module outputs", &c->y);
}

static void finish_crossing(crossing *c, snrq_stage stage)
{
    free(c->y);
    free(c->stream->x);
    c->stream->x = c->next;
    c->stream->columns = stage == SNRQ_STAGE_DOWN ? 0 : c->block->family->stage_columns[stage + 1];
    if (stage == SNRQ_STAGE_DOWN) {
        free(c->stream->x);
        c->stream->x = NULL;
    }
}

static snrq_status cross_apply(const crossing *c, snrq_stage stage, int64_t first, int64_t count)
{
    const snrq_stream *s = c->stream;
    return snrq_block_apply(c->block, stage, count, s->tokens,
                            s->x + first * s->tokens * s->columns, c->y);
}

static snrq_status cross_continue(const crossing *c, snrq_stage stage, int64_t first, int64_t count)
{
    const snrq_stream *s = c->stream;
    int64_t next = stage == SNRQ_STAGE_DOWN ? 0 : c->block->family->stage_columns[stage + 1];
    return snrq_block_continue(c->block, stage, count, s->tokens, c->y,
                               s->h + first * s->tokens * c->block->config->hidden,
                               c->next + first * s->tokens * next);
}

snrq_status snrq_streams_advance(snrq_stream *quantized, const snrq_block *quantized_block,
                                 snrq_stream *full, const snrq_block *full_block, snrq_stage stage,
                                 int64_t total, double *errors)
{
    crossing q = {0}, f = {0};
    int64_t sequences = full->range.end - full->range.begin, batch = batch_sequences(full);
    snrq_status status = start_crossing(quantized, quantized_block, stage, &q);
    if (status == SNRQ_OK) status = start_crossing(full, full_block, stage, &f);
    for (int64_t first = 0; status == SNRQ_OK && first < sequences; first += batch) {
        int64_t count = sequences - first < batch ? sequences - first : batch;
        status = cross_apply(&q, stage, first, count);
        if (status == SNRQ_OK) status = cross_apply(&f, stage, first, count);
        if (status != SNRQ_OK) break;
        measure(full_block->family, stage, count, full->tokens, q.y, f.y, full->range.begin + first,
                total, errors);
        status = cross_continue(&q, stage, first, count);
        if (status == SNRQ_OK) status = cross_continue(&f, stage, first, count);
    }
    if (q.stream != NULL) finish_crossing(&q, stage);
    if (f.stream != NULL) finish_crossing(&f, stage);
    return status;
}

snrq_status snrq_stream_forward(snrq_stream *s, const snrq_block *b)
{
    int64_t sequences = s->range.end - s->range.begin, batch = batch_sequences(s);
    float *x = NULL, *y = NULL;
    snrq_status status = snrq_allocate_scratch((size_t)(batch * s->tokens * b->family->max_columns),
                                               sizeof *x, "stage inputs", &x);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)(batch * s->tokens * b->family->max_rows), sizeof *y,
                                       "module outputs", &y);
    for (int64_t first = 0; status == SNRQ_OK && first < sequences; first += batch) {
        int64_t count = sequences - first < batch ? sequences - first : batch;
        status = snrq_block_forward(b, count, s->tokens,
                                    s->h + first * s->tokens * b->config->hidden, x, y);
    }
    free(y);
    free(x);
    return status;
}
