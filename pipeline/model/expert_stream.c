/* Streams through experts; see expert_stream.h. */
#include "pipeline/model/expert_stream.h"

#include <stdlib.h>
#include <string.h>

void snrq_stream_experts_free(snrq_stream_experts **experts)
{
    snrq_stream_experts *e = *experts;
    if (e == NULL) return;
    snrq_expert_tokens_free(&e->tokens);
    free(e->middle);
    free(e->middle_all);
    free(e);
    *experts = NULL;
}

static int64_t tokens_of(const snrq_stream *s)
{
    return (s->range.end - s->range.begin) * s->tokens;
}

/* ---- routing ---- */

static snrq_status route_one(snrq_stream *s, const snrq_block *b, snrq_routes *routes)
{
    SNRQ_TRY(snrq_allocate(1, sizeof *s->experts, "experts", &s->experts));
    SNRQ_TRY(snrq_block_route(b, tokens_of(s), s->input[0].x, routes));
    return snrq_expert_tokens_create(routes, &s->experts->tokens);
}

snrq_status snrq_streams_route(const snrq_context *context, int64_t fitted, int64_t least,
                               snrq_stream *q, const snrq_block *q_block, snrq_stream *f,
                               const snrq_block *f_block, snrq_coverage *coverage)
{
    snrq_routes routes = {0}, full_routes = {0};
    int64_t mine = q->range.end < fitted ? q->range.end : fitted;
    int64_t fitted_tokens = mine > q->range.begin ? (mine - q->range.begin) * q->tokens : 0;
    snrq_status status = route_one(q, q_block, &routes);
    if (status == SNRQ_OK) status = route_one(f, f_block, &full_routes);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = snrq_experts_top_up(context, &routes, q->range.begin * q->tokens, fitted_tokens,
                                     fitted * q->tokens, least, &q->experts->tokens, coverage);
    if (status == SNRQ_OK) {
        snrq_expert_tokens both = {0};
        status = snrq_expert_tokens_join(&f->experts->tokens, &q->experts->tokens, &both);
        if (status == SNRQ_OK) {
            snrq_expert_tokens_free(&f->experts->tokens);
            f->experts->tokens = both;
        }
        status = snrq_agree(context, status);
    }
    snrq_routes_free(&routes);
    snrq_routes_free(&full_routes);
    return status;
}

/* ---- what a unit is calibrated on ---- */

/* Rows of what `f` reads that hold the tokens [begin, end) of what `q` reads. */
static void match(const snrq_expert_tokens *q, int64_t begin, int64_t end,
                  const snrq_expert_tokens *f, int64_t at, int64_t *row)
{
    for (int64_t i = begin; i < end; i++) {
        while (f->token[at] < q->token[i]) at++;
        row[i - begin] = at;
    }
}

static void weigh(const float *weight, int64_t count, int64_t width, float *x)
{
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < width; k++) x[i * width + k] *= weight[i];
}

/* Of an expert: the rows of its tokens, copied. */
static snrq_status expert_tokens(const snrq_stream *q, const snrq_stream *f, int expert,
                                 bool middle, int64_t width, bool weighted, snrq_unit_tokens *out)
{
    const snrq_expert_tokens *t = &q->experts->tokens, *tf = &f->experts->tokens;
    int64_t begin = t->first[expert], count = t->first[expert + 1] - begin;
    int64_t sequences = q->range.end - q->range.begin, *row = NULL;
    size_t numbers = (size_t)(count * width);
    SNRQ_TRY(snrq_allocate((size_t)sequences + 1, sizeof *out->first, "sequences", &out->first));
    SNRQ_TRY(snrq_allocate_scratch(numbers, sizeof(float), "tokens of an expert", &out->x_data));
    SNRQ_TRY(snrq_allocate_scratch(numbers, sizeof(float), "tokens of an expert", &out->xf_data));
    for (int64_t s = 0; s <= sequences; s++)
        out->first[s] =
            snrq_token_position(t->token, begin, t->first[expert + 1], s * q->tokens) - begin;
    if (middle) {
        SNRQ_TRY(snrq_allocate((size_t)count, sizeof *row, "tokens of an expert", &row));
        match(t, begin, begin + count, tf, tf->first[expert], row);
        memcpy(out->x_data, q->experts->middle + begin * width, numbers * sizeof(float));
        snrq_gather_rows(f->experts->middle, width, row, count, out->xf_data);
        free(row);
    } else {
        snrq_gather_rows(q->input[0].x, width, t->token + begin, count, out->x_data);
        snrq_gather_rows(f->input[0].x, width, t->token + begin, count, out->xf_data);
    }
    if (weighted) {
        weigh(t->counted + begin, count, width, out->x_data);
        weigh(t->counted + begin, count, width, out->xf_data);
    }
    out->x = (snrq_activations){sequences, q->tokens, width, out->x_data, out->first, NULL};
    out->xf = (snrq_activations){sequences, q->tokens, width, out->xf_data, out->first, NULL};
    return SNRQ_OK;
}

snrq_status snrq_streams_tokens(const snrq_stream *q, const snrq_stream *f,
                                const snrq_family *family, int step, int unit, bool weighted,
                                snrq_unit_tokens *out)
{
    const snrq_unit_shape *u = &family->unit[family->step[step].first + unit];
    bool middle = family->step[step].kind == SNRQ_STEP_EXPERTS_OUT;
    int64_t sequences = q->range.end - q->range.begin;
    *out = (snrq_unit_tokens){0};
    if (u->expert >= 0) return expert_tokens(q, f, u->expert, middle, u->columns, weighted, out);
    if (snrq_step_is_routed(family, step)) {
        const float *x = middle ? q->experts->middle_all : q->input[0].x;
        const float *xf = middle ? f->experts->middle_all : f->input[0].x;
        out->x = (snrq_activations){sequences, q->tokens, u->columns, x, NULL, NULL};
        out->xf = (snrq_activations){sequences, q->tokens, u->columns, xf, NULL, NULL};
        return SNRQ_OK;
    }
    out->x = snrq_stream_activations(q, unit);
    out->xf = snrq_stream_activations(f, unit);
    return SNRQ_OK;
}

void snrq_unit_tokens_free(snrq_unit_tokens *t)
{
    free(t->first);
    free(t->x_data);
    free(t->xf_data);
    *t = (snrq_unit_tokens){0};
}

/* ---- the steps ---- */

/* A unit of both streams on its way through a step. */
typedef struct passage {
    snrq_stream *q, *f;
    const snrq_block *q_block, *f_block;
    int step, unit, expert; /* expert -1: it sees all */
    bool middle;            /* it is a [down] */
    int64_t batch;          /* sequences */
    float *x, *xf, *y, *yf, *matched;
    int64_t *row, *first;
} passage;

static snrq_status make_room(passage *p, int64_t rows)
{
    const snrq_family *f = p->f_block->family;
    int64_t in = 0, out = 0;
    for (int u = f->step[p->step].first; u < f->step[p->step].end; u++) {
        in = f->unit[u].columns > in ? f->unit[u].columns : in;
        out = f->unit[u].rows > out ? f->unit[u].rows : out;
    }
    const struct {
        float **to;
        int64_t width;
    } rooms[] = {{&p->x, in}, {&p->xf, in}, {&p->y, out}, {&p->yf, out}, {&p->matched, out}};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        SNRQ_TRY(snrq_allocate_scratch((size_t)(rows * rooms[i].width), sizeof(float), "experts",
                                       rooms[i].to));
    SNRQ_TRY(snrq_allocate((size_t)rows, sizeof *p->row, "experts", &p->row));
    return snrq_allocate((size_t)p->batch + 1, sizeof *p->first, "experts", &p->first);
}

/* Room for the inputs of the [down]s. */
static snrq_status make_middle(snrq_stream *s, const snrq_family *f, int step)
{
    const snrq_unit_shape *first = &f->unit[f->step[step + 1].first];
    const snrq_unit_shape *last = &f->unit[f->step[step + 1].end - 1];
    int64_t tokens = s->experts->tokens.first[f->experts];
    SNRQ_TRY(snrq_allocate_scratch((size_t)(tokens * first->columns), sizeof(float),
                                   "inputs of experts", &s->experts->middle));
    if (!f->everyone) return SNRQ_OK;
    return snrq_allocate_scratch((size_t)(tokens_of(s) * last->columns), sizeof(float),
                                 "inputs of experts", &s->experts->middle_all);
}

/* Rows of a stream's tokens in sequences [first, first + count) that the unit reads: [*begin, *end)
 * of its list, or of all tokens. */
static void rows_of(const passage *p, const snrq_stream *s, int64_t first, int64_t count,
                    int64_t *begin, int64_t *end)
{
    const snrq_expert_tokens *t = &s->experts->tokens;
    *begin = first * s->tokens;
    *end = (first + count) * s->tokens;
    if (p->expert < 0) return;
    int64_t from = t->first[p->expert], to = t->first[p->expert + 1];
    *begin = snrq_token_position(t->token, from, to, *begin);
    *end = snrq_token_position(t->token, *begin, to, *end);
}

/* x [end - begin, columns] and y of these rows of a stream. */
static snrq_status apply(const passage *p, const snrq_stream *s, const snrq_block *b, int64_t begin,
                         int64_t end, float *room, const float **x, float *y)
{
    int64_t columns = b->family->unit[p->unit].columns;
    const float *all = s->input[0].x;
    if (p->middle) all = p->expert >= 0 ? s->experts->middle : s->experts->middle_all;
    *x = all + begin * columns;
    if (!p->middle && p->expert >= 0) {
        snrq_gather_rows(all, columns, s->experts->tokens.token + begin, end - begin, room);
        *x = room;
    }
    return end > begin ? snrq_block_apply(b, p->unit, end - begin, *x, y) : SNRQ_OK;
}

static void leave(const passage *p, snrq_stream *s, const snrq_block *b, int64_t begin, int64_t end,
                  const float *y)
{
    const snrq_expert_tokens *t = &s->experts->tokens;
    int64_t width = b->family->unit[p->unit].rows;
    if (!p->middle) {
        float *to = p->expert >= 0 ? s->experts->middle : s->experts->middle_all;
        snrq_gated_activation(b->config->activation, end - begin, width / 2, y,
                              to + begin * (width / 2));
    } else if (p->expert >= 0)
        snrq_scatter_rows(y, width, t->token + begin, t->weight + begin, end - begin, s->h);
    else
        snrq_scatter_rows(y, width, NULL, NULL, end - begin, s->h + begin * width);
}

static snrq_status pass_batch(passage *p, int64_t first, int64_t count, int64_t total,
                              double *measures)
{
    const snrq_family *f = p->f_block->family;
    const snrq_expert_tokens *t = &p->q->experts->tokens;
    int64_t begin, end, f_begin, f_end, width = f->unit[p->unit].rows;
    const float *x, *xf, *y_full = p->yf;
    rows_of(p, p->q, first, count, &begin, &end);
    rows_of(p, p->f, first, count, &f_begin, &f_end);
    SNRQ_TRY(apply(p, p->q, p->q_block, begin, end, p->x, &x, p->y));
    SNRQ_TRY(apply(p, p->f, p->f_block, f_begin, f_end, p->xf, &xf, p->yf));
    for (int64_t s = 0; s <= count; s++)
        p->first[s] =
            p->expert < 0
                ? s * p->q->tokens
                : snrq_token_position(t->token, begin, end, (first + s) * p->q->tokens) - begin;
    if (p->expert >= 0) {
        match(t, begin, end, &p->f->experts->tokens, f_begin, p->row);
        for (int64_t i = 0; i < end - begin; i++) p->row[i] -= f_begin;
        snrq_gather_rows(p->yf, width, p->row, end - begin, p->matched);
        y_full = p->matched;
    }
    const snrq_measured of = {count, p->f->range.begin + first, p->first, x, p->y, y_full};
    snrq_stream_measure(f, p->unit, &of, total, measures);
    leave(p, p->q, p->q_block, begin, end, p->y);
    leave(p, p->f, p->f_block, f_begin, f_end, p->yf);
    return SNRQ_OK;
}

snrq_status snrq_streams_advance_experts(snrq_stream *q, const snrq_block *q_block, snrq_stream *f,
                                         const snrq_block *f_block, int step, int64_t total,
                                         double *measures)
{
    const snrq_family *family = f_block->family;
    const snrq_step *s = &family->step[step];
    int64_t sequences = f->range.end - f->range.begin;
    passage p = {q, f, q_block, f_block, .step = step};
    p.middle = s->kind == SNRQ_STEP_EXPERTS_OUT;
    p.batch = SNRQ_EXPERT_BATCH / f->tokens > 0 ? SNRQ_EXPERT_BATCH / f->tokens : 1;
    if (p.batch > sequences) p.batch = sequences > 0 ? sequences : 1;
    snrq_status status = make_room(&p, p.batch * f->tokens);
    if (status == SNRQ_OK && !p.middle) status = make_middle(q, family, step);
    if (status == SNRQ_OK && !p.middle) status = make_middle(f, family, step);
    for (p.unit = s->first; status == SNRQ_OK && p.unit < s->end; p.unit++) {
        int before = family->unit[p.unit].first - family->unit[s->first].first;
        p.expert = family->unit[p.unit].expert;
        for (int64_t i = 0; status == SNRQ_OK && i < sequences; i += p.batch)
            status = pass_batch(&p, i, sequences - i < p.batch ? sequences - i : p.batch, total,
                                measures + SNRQ_MEASURES * before * total);
    }
    if (p.middle) {
        snrq_stream_experts_free(&q->experts);
        snrq_stream_experts_free(&f->experts);
        snrq_stream_leave(q);
        snrq_stream_leave(f);
    }
    free(p.x);
    free(p.xf);
    free(p.y);
    free(p.yf);
    free(p.matched);
    free(p.row);
    free(p.first);
    return status;
}
