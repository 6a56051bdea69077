/* Streams of activations; see stream.h. */
#include "pipeline/model/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/model/expert_stream.h"

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

snrq_status snrq_stream_create(snrq_range range, const snrq_windows *windows, int64_t hidden,
                               snrq_stream *out)
{
    int64_t fitted = windows->count - windows->held_out, tokens = windows->length;
    *out = (snrq_stream){.range = range,
                         .alone = {fitted - windows->first_tokens, fitted},
                         .tokens = tokens,
                         .hidden = hidden};
    SNRQ_TRY(snrq_allocate((size_t)(batch_sequences(out) * tokens), sizeof *out->span, "spans",
                           &out->span));
    return snrq_allocate((size_t)((range.end - range.begin) * tokens * hidden), sizeof(float),
                         "activations", &out->h);
}

void snrq_embed_token(const snrq_weight *embedding, double scale, int32_t id, float *h)
{
    const float factor = (float)scale;
    snrq_weight_widen(embedding, id, 1, h);
    for (int64_t i = 0; factor != 1.0f && i < embedding->columns; i++) h[i] *= factor;
}

void snrq_stream_embed(snrq_stream *s, const snrq_weight *embedding, double scale,
                       const snrq_windows *windows)
{
    const int32_t *ids = windows->ids + s->range.begin * s->tokens;
    for (int64_t i = 0; i < (s->range.end - s->range.begin) * s->tokens; i++)
        snrq_embed_token(embedding, scale, ids[i], s->h + i * s->hidden);
}

static void free_inputs(int count, snrq_stream_input *inputs)
{
    for (int u = 0; u < count; u++) free(inputs[u].x);
    free(inputs);
}

void snrq_stream_leave(snrq_stream *s)
{
    free_inputs(s->inputs, s->input);
    s->inputs = 0;
    s->input = NULL;
}

void snrq_stream_free(snrq_stream *s)
{
    free_inputs(s->inputs, s->input);
    snrq_stream_experts_free(&s->experts);
    free(s->carried);
    free(s->h);
    free(s->span);
    memset(s, 0, sizeof *s);
}

/* A batch of `sequences` sequences from local number `first` on: a span each, or one for each token
 * that stands alone. */
static snrq_layout layout_of(const snrq_stream *s, int64_t first, int64_t sequences)
{
    int64_t spans = 0;
    for (int64_t i = 0; i < sequences; i++) {
        int64_t of = s->range.begin + first + i;
        bool alone = of >= s->alone.begin && of < s->alone.end;
        int64_t step = alone ? 1 : s->tokens;
        for (int64_t at = 0; at < s->tokens; at += step)
            s->span[spans++] = (snrq_span){.first = i * s->tokens + at, .tokens = step};
    }
    return (snrq_layout){sequences * s->tokens, spans, s->span};
}

snrq_activations snrq_stream_activations(const snrq_stream *s, int unit)
{
    const snrq_stream_input *in = &s->input[unit];
    return (snrq_activations){
        s->range.end - s->range.begin, s->tokens, in->columns, in->x, NULL, NULL};
}

snrq_activations snrq_stream_residual(const snrq_stream *s)
{
    return (snrq_activations){
        s->range.end - s->range.begin, s->tokens, s->hidden, s->h, NULL, NULL};
}

/* Room for the inputs of `step`; experts read from one. *count = 0 after the last step. */
static snrq_status allocate_inputs(const snrq_stream *s, const snrq_family *f, int step, int *count,
                                   snrq_stream_input **out)
{
    int64_t tokens = (s->range.end - s->range.begin) * s->tokens;
    *count = 0;
    *out = NULL;
    if (step == f->steps) return SNRQ_OK;
    const snrq_step *next = &f->step[step];
    const int units = snrq_step_is_routed(f, step) ? 1 : next->end - next->first;
    SNRQ_TRY(snrq_allocate((size_t)units, sizeof **out, "unit inputs", out));
    for (int u = next->first; u < next->first + units; u++) {
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
    for (int u = 0; u < count; u++) x[u] = inputs[u].x + first * s->tokens * inputs[u].columns;
}

snrq_status snrq_stream_begin(snrq_stream *s, const snrq_block *block)
{
    float **x = NULL;
    size_t carried = (size_t)((s->range.end - s->range.begin) * s->tokens * block->family->carried);
    snrq_status status = allocate_inputs(s, block->family, 0, &s->inputs, &s->input);
    if (status == SNRQ_OK && carried > 0)
        status = snrq_allocate_scratch(carried, sizeof *s->carried, "parts of keys that turn",
                                       &s->carried);
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

/* Adds |full - rounded|^2 and |full|^2. The sums have lanes of their own, for a compiler chooses as
 * many as it likes, differently for each set of instructions. */
static void add_squares(const float *restrict full, const float *restrict rounded, int64_t n,
                        double *difference, double *norm)
{
    enum { LANES = 8 };
    double differences[LANES] = {0.0}, norms[LANES] = {0.0};
    for (int64_t i = 0; i < n; i += LANES) {
        int lanes = n - i < LANES ? (int)(n - i) : LANES;
        for (int k = 0; k < lanes; k++) {
            double e = (double)full[i + k] - (double)rounded[i + k];
            differences[k] += e * e;
            norms[k] += (double)full[i + k] * (double)full[i + k];
        }
    }
    for (int k = 0; k < LANES; k++) {
        *difference += differences[k];
        *norm += norms[k];
    }
}

void snrq_stream_measure(const snrq_family *f, int unit, const snrq_measured *of, int64_t total,
                         double *measures)
{
    const snrq_unit_shape *shape = &f->unit[unit];
    int64_t stride = shape->rows;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < of->sequences; s++) {
        int64_t begin = of->first[s], end = of->first[s + 1];
        float read = largest_of(of->x + begin * shape->columns, (end - begin) * shape->columns);
        for (int m = 0; m < shape->end - shape->first; m++) {
            const snrq_module_shape *module = &f->module[shape->first + m];
            int64_t column = module->row, rows = module->rows;
            double difference = 0.0, norm = 0.0;
            float largest = read;
            for (int64_t t = begin; t < end; t++) {
                largest = fmaxf(largest, largest_of(of->y + t * stride + column, rows));
                int64_t i = t * stride + column;
                add_squares(of->y_full + i, of->y + i, rows, &difference, &norm);
            }
            double *out = measures + SNRQ_MEASURES * m * total + of->sequence + s;
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
    for (int u = 0; u < s->inputs; u++)
        SNRQ_TRY(
            snrq_block_apply(c->block, c->step->first + u, count * s->tokens, c->x[u], c->y.of[u]));
    return SNRQ_OK;
}

static snrq_status cross_continue(const crossing *c, int step, int64_t first, int64_t count)
{
    const snrq_stream *s = c->stream;
    const snrq_layout layout = layout_of(s, first, count);
    float *carried = s->carried;
    batch_inputs(s, c->made, c->next, first, c->next_x);
    if (carried != NULL) carried += first * s->tokens * c->block->family->carried;
    return snrq_block_continue(c->block, step, &layout, c->y.of,
                               s->h + first * s->tokens * s->hidden, c->next_x, carried);
}

/* starts [count + 1] */
static void measure_step(const crossing *q, const crossing *f, int64_t first, int64_t count,
                         int64_t total, const int64_t *starts, double *measures)
{
    const snrq_family *family = f->block->family;
    for (int u = 0; u < f->stream->inputs; u++) {
        int unit = f->step->first + u;
        int before = family->unit[unit].first - family->unit[f->step->first].first;
        const snrq_measured of = {
            count, f->stream->range.begin + first, starts, q->x[u], q->y.of[u], f->y.of[u]};
        snrq_stream_measure(family, unit, &of, total, measures + SNRQ_MEASURES * before * total);
    }
}

/* Nothing is carried beyond the second step. */
static void drop_carried(snrq_stream *s)
{
    free(s->carried);
    s->carried = NULL;
}

snrq_status snrq_streams_advance(snrq_stream *quantized, const snrq_block *quantized_block,
                                 snrq_stream *full, const snrq_block *full_block, int step,
                                 int64_t total, double *measures)
{
    crossing q = {0}, f = {0};
    int64_t sequences = full->range.end - full->range.begin, batch = batch_sequences(full);
    int64_t *starts = NULL;
    if (snrq_step_is_routed(full_block->family, step))
        return snrq_streams_advance_experts(quantized, quantized_block, full, full_block, step,
                                            total, measures);
    snrq_status status = start_crossing(quantized, quantized_block, step, &q);
    if (status == SNRQ_OK) status = start_crossing(full, full_block, step, &f);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)batch + 1, sizeof *starts, "sequences", &starts);
    for (int64_t s = 0; status == SNRQ_OK && s <= batch; s++) starts[s] = s * full->tokens;
    for (int64_t first = 0; status == SNRQ_OK && first < sequences; first += batch) {
        int64_t count = sequences - first < batch ? sequences - first : batch;
        status = cross_apply(&q, first, count);
        if (status == SNRQ_OK) status = cross_apply(&f, first, count);
        if (status != SNRQ_OK) break;
        measure_step(&q, &f, first, count, total, starts, measures);
        status = cross_continue(&q, step, first, count);
        if (status == SNRQ_OK) status = cross_continue(&f, step, first, count);
    }
    if (q.stream != NULL) finish_crossing(&q);
    if (f.stream != NULL) finish_crossing(&f);
    if (step > 0) {
        drop_carried(quantized);
        drop_carried(full);
    }
    free(starts);
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
        const snrq_layout layout = layout_of(s, first, count);
        status = snrq_block_forward(b, &layout, s->h + first * s->tokens * s->hidden, &x, &y);
    }
    snrq_unit_arrays_free(&y);
    snrq_unit_arrays_free(&x);
    return status;
}

snrq_status snrq_sequences_forward(const snrq_block *b, int64_t sequences, int64_t tokens, float *h)
{
    const snrq_family *f = b->family;
    int64_t batch = snrq_stream_batch(sequences, tokens);
    snrq_unit_arrays x = {0}, y = {0};
    snrq_span *span = NULL;
    snrq_status status = snrq_unit_arrays_create(f, 0, f->steps, batch * tokens, true, &x);
    if (status == SNRQ_OK)
        status = snrq_unit_arrays_create(f, 0, f->steps, batch * tokens, false, &y);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)batch, sizeof *span, "spans", &span);
    for (int64_t s = 0; status == SNRQ_OK && s < sequences; s += batch) {
        int64_t count = sequences - s < batch ? sequences - s : batch;
        const snrq_layout layout = {count * tokens, count, span};
        snrq_spans_fill(count, tokens, span);
        status = snrq_block_forward(b, &layout, h + s * tokens * b->config->hidden, &x, &y);
    }
    free(span);
    snrq_unit_arrays_free(&y);
    snrq_unit_arrays_free(&x);
    return status;
}
