/* Streams of activations; see stream.h. */
#include "pipeline/model/stream.h"

#include <math.h>
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
    int64_t batch = batch_sequences(out);
    SNRQ_TRY(snrq_allocate((size_t)batch, sizeof *out->span, "spans", &out->span));
    snrq_spans_fill(batch, tokens, out->span);
    return snrq_allocate((size_t)((range.end - range.begin) * tokens * hidden), sizeof(float),
                         "activations", &out->h);
}

void snrq_stream_embed(snrq_stream *s, const snrq_weight *embedding, const snrq_windows *windows)
{
    const int32_t *ids = windows->ids + s->range.begin * s->tokens;
    for (int64_t i = 0; i < (s->range.end - s->range.begin) * s->tokens; i++)
        snrq_weight_widen(embedding, ids[i], 1, s->h + i * s->hidden);
}

static void free_inputs(int count, snrq_stream_input *inputs)
{
    for (int u = 0; u < count; u++) {
        free(inputs[u].first);
        free(inputs[u].x);
    }
    free(inputs);
}

void snrq_stream_free(snrq_stream *s)
{
    free_inputs(s->inputs, s->input);
    free(s->h);
    free(s->span);
    memset(s, 0, sizeof *s);
}

/* A batch of `sequences` sequences. */
static snrq_layout layout_of(const snrq_stream *s, int64_t sequences)
{
    return (snrq_layout){sequences * s->tokens, sequences, s->span};
}

/* Row of a unit's input where sequence s of this rank begins. */
static int64_t input_begin(const snrq_stream *s, const snrq_stream_input *input, int64_t sequence)
{
    return input->first != NULL ? input->first[sequence] : sequence * s->tokens;
}

snrq_activations snrq_stream_activations(const snrq_stream *s, int unit)
{
    const snrq_stream_input *in = &s->input[unit];
    return (snrq_activations){s->range.end - s->range.begin, s->tokens, in->columns, in->x,
                              in->first};
}

snrq_activations snrq_stream_residual(const snrq_stream *s)
{
    return (snrq_activations){s->range.end - s->range.begin, s->tokens, s->hidden, s->h, NULL};
}

/* Room for the inputs of `step`, whose units read all tokens; *count = 0 after the last step. */
static snrq_status allocate_inputs(const snrq_stream *s, const snrq_family *f, int step, int *count,
                                   snrq_stream_input **out)
{
    int64_t tokens = (s->range.end - s->range.begin) * s->tokens;
    *count = 0;
    *out = NULL;
    if (step == f->steps) return SNRQ_OK;
    const snrq_step *next = &f->step[step];
    SNRQ_TRY(snrq_allocate((size_t)(next->end - next->first), sizeof **out, "unit inputs", out));
    for (int u = next->first; u < next->end; u++) {
        snrq_stream_input *input = &(*out)[(*count)++];
        input->columns = f->unit[u].columns;
        SNRQ_TRY(snrq_allocate_scratch((size_t)(tokens * input->columns), sizeof(float),
                                       "activations", &input->x));
    }
    return SNRQ_OK;
}

/* Where a batch that begins with sequence `first` reads or writes the inputs. */
static void batch_inputs(const snrq_stream *s, const snrq_stream_input *inputs, int count,
                         int64_t first, float **x)
{
    for (int u = 0; u < count; u++)
        x[u] = inputs[u].x + input_begin(s, &inputs[u], first) * inputs[u].columns;
}

snrq_status snrq_stream_begin(snrq_stream *s, const snrq_block *block)
{
    float **x = NULL;
    snrq_status status = allocate_inputs(s, block->family, 0, &s->inputs, &s->input);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)s->inputs, sizeof *x, "unit inputs", &x);
    if (status == SNRQ_OK) {
        batch_inputs(s, s->input, s->inputs, 0, x);
        snrq_block_begin(block, (s->range.end - s->range.begin) * s->tokens, s->h, x);
    }
    free(x);
    return status;
}

/* The largest magnitude. Without their sign, floats are ordered as their bits are as integers,
 * which compare many at a time. */
static float largest_of(const float *x, int64_t count)
{
    int32_t most = 0;
    float largest;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    memcpy(&largest, &most, sizeof largest);
    return largest;
}

/* The measures of each module of a unit, per sequence. x: the unit's input in the quantized stream,
 * y, y_full [tokens of the batch, unit rows] its outputs in both; tokens of sequence s of the batch
 * are rows [begin(s), begin(s + 1)) of them. `measures` begin with the unit's first module. */
static void measure(const snrq_family *f, const snrq_unit_shape *unit, const snrq_stream *stream,
                    const snrq_stream_input *input, int64_t first, int64_t count, const float *x,
                    const float *y, const float *y_full, int64_t total, double *measures)
{
    int64_t stride = unit->rows, start = input_begin(stream, input, first);
#pragma omp parallel for schedule(static)
    for (int64_t s = first; s < first + count; s++) {
        int64_t begin = input_begin(stream, input, s) - start;
        int64_t end = input_begin(stream, input, s + 1) - start;
        float read = largest_of(x + begin * input->columns, (end - begin) * input->columns);
        for (int m = 0; m < unit->end - unit->first; m++) {
            int64_t column = f->module[unit->first + m].row, rows = f->module[unit->first + m].rows;
            double difference = 0.0, norm = 0.0;
            float largest = read;
            for (int64_t t = begin; t < end; t++) {
                largest = fmaxf(largest, largest_of(y + t * stride + column, rows));
#pragma omp simd reduction(+ : difference, norm)
                for (int64_t i = t * stride + column; i < t * stride + column + rows; i++) {
                    double e = (double)y_full[i] - (double)y[i];
                    difference += e * e;
                    norm += (double)y_full[i] * (double)y_full[i];
                }
            }
            double *out = measures + SNRQ_MEASURES * m * total + stream->range.begin + s;
            out[SNRQ_MEASURE_DIFFERENCE * total] = difference;
            out[SNRQ_MEASURE_NORM * total] = norm;
            out[SNRQ_MEASURE_LARGEST * total] = (double)largest;
        }
    }
}

/* A stream with what it needs to take one step. */
typedef struct crossing {
    snrq_stream *stream;
    const snrq_block *block;
    const snrq_step *step;
    int next;                /* units of the next step */
    snrq_stream_input *made; /* [next] their inputs */
    snrq_unit_arrays y;      /* outputs of one batch */
    float **x, **next_x;     /* [units] inputs of a batch, here and in the next step */
} crossing;

static snrq_status start_crossing(snrq_stream *s, const snrq_block *b, int step, crossing *c)
{
    const snrq_family *f = b->family;
    *c = (crossing){.stream = s, .block = b, .step = &f->step[step]};
    SNRQ_TRY(allocate_inputs(s, f, step + 1, &c->next, &c->made));
    SNRQ_TRY(snrq_allocate((size_t)(s->inputs + c->next), sizeof *c->x, "unit inputs", &c->x));
    c->next_x = c->x + s->inputs;
    return snrq_unit_arrays_create(f, step, step + 1, batch_sequences(s) * s->tokens, false, &c->y);
}

/* Leaves the step: the stream has the inputs of the next one. */
static void finish_crossing(crossing *c)
{
    free_inputs(c->stream->inputs, c->stream->input);
    c->stream->inputs = c->next;
    c->stream->input = c->made;
    snrq_unit_arrays_free(&c->y);
    free(c->x);
}

static snrq_status cross_apply(const crossing *c, int64_t first, int64_t count)
{
    const snrq_stream *s = c->stream;
    batch_inputs(s, s->input, s->inputs, first, c->x);
    for (int u = 0; u < s->inputs; u++) {
        const snrq_stream_input *in = &s->input[u];
        int64_t tokens = input_begin(s, in, first + count) - input_begin(s, in, first);
        SNRQ_TRY(snrq_block_apply(c->block, c->step->first + u, tokens, c->x[u], c->y.of[u]));
    }
    return SNRQ_OK;
}

static snrq_status cross_continue(const crossing *c, int step, int64_t first, int64_t count)
{
    const snrq_stream *s = c->stream;
    const snrq_layout layout = layout_of(s, count);
    batch_inputs(s, c->made, c->next, first, c->next_x);
    return snrq_block_continue(c->block, step, &layout, c->y.of,
                               s->h + first * s->tokens * s->hidden, c->next_x);
}

static void measure_step(const crossing *q, const crossing *f, int64_t first, int64_t count,
                         int64_t total, double *measures)
{
    const snrq_family *family = f->block->family;
    for (int u = 0; u < f->stream->inputs; u++) {
        const snrq_unit_shape *unit = &family->unit[f->step->first + u];
        int before = unit->first - family->unit[f->step->first].first; /* modules of the step */
        measure(family, unit, f->stream, &f->stream->input[u], first, count, q->x[u], q->y.of[u],
                f->y.of[u], total, measures + SNRQ_MEASURES * before * total);
    }
}

snrq_status snrq_streams_advance(snrq_stream *quantized, const snrq_block *quantized_block,
                                 snrq_stream *full, const snrq_block *full_block, int step,
                                 int64_t total, double *measures)
{
    crossing q = {0}, f = {0};
    int64_t sequences = full->range.end - full->range.begin, batch = batch_sequences(full);
    snrq_status status = start_crossing(quantized, quantized_block, step, &q);
    if (status == SNRQ_OK) status = start_crossing(full, full_block, step, &f);
    for (int64_t first = 0; status == SNRQ_OK && first < sequences; first += batch) {
        int64_t count = sequences - first < batch ? sequences - first : batch;
        status = cross_apply(&q, first, count);
        if (status == SNRQ_OK) status = cross_apply(&f, first, count);
        if (status != SNRQ_OK) break;
        measure_step(&q, &f, first, count, total, measures);
        status = cross_continue(&q, step, first, count);
        if (status == SNRQ_OK) status = cross_continue(&f, step, first, count);
    }
    if (q.stream != NULL) finish_crossing(&q);
    if (f.stream != NULL) finish_crossing(&f);
    return status;
}

snrq_status snrq_stream_forward(snrq_stream *s, const snrq_block *b)
{
    const snrq_family *f = b->family;
    int64_t sequences = s->range.end - s->range.begin, batch = batch_sequences(s);
    snrq_unit_arrays x = {0}, y = {0};
    snrq_status status = snrq_unit_arrays_create(f, 0, f->steps, batch * s->tokens, true, &x);
    if (status == SNRQ_OK)
        status = snrq_unit_arrays_create(f, 0, f->steps, batch * s->tokens, false, &y);
    for (int64_t first = 0; status == SNRQ_OK && first < sequences; first += batch) {
        int64_t count = sequences - first < batch ? sequences - first : batch;
        const snrq_layout layout = layout_of(s, count);
        status = snrq_block_forward(b, &layout, s->h + first * s->tokens * s->hidden, &x, &y);
    }
    snrq_unit_arrays_free(&y);
    snrq_unit_arrays_free(&x);
    return status;
}
