/* Streams through experts; see expert_stream.h. */
#include "pipeline/model/expert_stream.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"

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

/* First of the tokens [begin, end) of a list that is `token` or later. */
static int64_t position(const int64_t *list, int64_t begin, int64_t end, int64_t token)
{
    while (begin < end) {
        int64_t middle = begin + (end - begin) / 2;
        if (list[middle] < token)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* ---- topping up ---- */

/* Scores and tokens as one number: higher scores first, then lower tokens. */
static uint64_t rank_of(float score, int64_t token)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (UINT32_MAX - (uint64_t)token % UINT32_MAX);
}

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* What an expert may be topped up with on this rank, the best first. */
typedef struct candidates {
    int64_t count, wanted; /* wanted: of all ranks */
    uint64_t *rank;        /* [count] owned */
    uint64_t least;        /* those from this rank on are taken */
} candidates;

/* Tokens of fitted sequences that are not sent to the expert. */
static snrq_status list_candidates(const snrq_stream *s, const snrq_routes *r,
                                   const snrq_expert_tokens *t, int expert, int64_t fitted_tokens,
                                   candidates *out)
{
    int64_t at = t->first[expert];
    out->count = 0;
    SNRQ_TRY(snrq_allocate((size_t)fitted_tokens, sizeof *out->rank, "router scores", &out->rank));
    for (int64_t i = 0; i < fitted_tokens; i++) {
        if (at < t->first[expert + 1] && t->token[at] == i)
            at++;
        else
            out->rank[out->count++] =
                rank_of(r->score[i * r->experts + expert], s->range.begin * s->tokens + i);
    }
    qsort(out->rank, (size_t)out->count, sizeof *out->rank, descending);
    if (out->count > out->wanted) out->count = out->wanted;
    return SNRQ_OK;
}

/* How many candidates have this rank or a higher one. */
static int64_t count_from(const candidates *c, uint64_t rank)
{
    int64_t begin = 0, end = c->count;
    while (begin < end) {
        int64_t middle = begin + (end - begin) / 2;
        if (c->rank[middle] >= rank)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* Finds, bit by bit, the highest rank from which on there are `wanted` candidates on all ranks. */
static snrq_status agree_on_least(const snrq_context *context, int experts, candidates *c)
{
    int64_t *count = NULL;
    SNRQ_TRY(snrq_agree(context,
                        snrq_allocate((size_t)experts, sizeof *count, "router scores", &count)));
    snrq_status status = SNRQ_OK;
    for (int e = 0; e < experts; e++) c[e].least = 0;
    for (int bit = 63; status == SNRQ_OK && bit >= 0; bit--) {
        for (int e = 0; e < experts; e++)
            count[e] = count_from(&c[e], c[e].least | UINT64_C(1) << bit);
        status = snrq_sum_int64(context, count, experts);
        for (int e = 0; e < experts; e++)
            if (count[e] >= c[e].wanted) c[e].least |= UINT64_C(1) << bit;
    }
    free(count);
    return status;
}

/* The tokens that are taken, as a list of their own. */
static snrq_status list_extra(const snrq_stream *s, const snrq_routes *routes, const candidates *c,
                              snrq_expert_tokens *out)
{
    const int experts = (int)routes->experts;
    int64_t total = 0, at = 0;
    for (int e = 0; e < experts; e++) total += c[e].wanted > 0 ? count_from(&c[e], c[e].least) : 0;
    *out = (snrq_expert_tokens){.experts = experts};
    SNRQ_TRY(snrq_allocate((size_t)experts + 1, sizeof *out->first, "experts", &out->first));
    SNRQ_TRY(snrq_allocate((size_t)total, sizeof *out->token, "experts", &out->token));
    SNRQ_TRY(snrq_allocate((size_t)total, sizeof *out->weight, "experts", &out->weight));
    SNRQ_TRY(snrq_allocate((size_t)total, sizeof *out->counted, "experts", &out->counted));
    for (int e = 0; e < experts; e++) {
        int64_t taken = c[e].wanted > 0 ? count_from(&c[e], c[e].least) : 0;
        for (int64_t i = 0; i < taken; i++)
            out->token[at + i] =
                (int64_t)(UINT32_MAX - (c[e].rank[i] & UINT32_MAX)) - s->range.begin * s->tokens;
        qsort(out->token + at, (size_t)taken, sizeof *out->token, ascending);
        for (int64_t i = at; i < at + taken; i++)
            out->counted[i] = routes->weight[out->token[i] * routes->experts + e];
        at += taken;
        out->first[e + 1] = at;
    }
    return SNRQ_OK;
}

/* Tokens of each expert in fitted sequences, over all ranks. */
static snrq_status count_tokens(const snrq_context *context, const snrq_expert_tokens *t,
                                int64_t fitted_tokens, int64_t *count)
{
    for (int e = 0; e < t->experts; e++)
        count[e] = position(t->token, t->first[e], t->first[e + 1], fitted_tokens) - t->first[e];
    return snrq_sum_int64(context, count, t->experts);
}

void snrq_coverage_free(snrq_coverage *coverage)
{
    free(coverage->sent);
    *coverage = (snrq_coverage){0};
}

/* Fills in the rest from coverage->sent. */
static snrq_status describe(int64_t least, int64_t tokens, snrq_coverage *c)
{
    size_t experts = (size_t)c->experts;
    int64_t *sorted = NULL;
    SNRQ_TRY(snrq_allocate(experts, sizeof *sorted, "experts", &sorted));
    memcpy(sorted, c->sent, experts * sizeof *sorted);
    qsort(sorted, experts, sizeof *sorted, ascending);
    c->tokens = tokens;
    c->least = sorted[0];
    c->median = sorted[experts / 2];
    c->most = sorted[experts - 1];
    for (size_t e = 0; e < experts; e++) c->topped_up += sorted[e] < least;
    free(sorted);
    return SNRQ_OK;
}

/* Tops up the experts of the quantized stream; *tokens becomes longer. */
static snrq_status top_up(const snrq_context *context, const snrq_stream *s,
                          const snrq_routes *routes, int64_t fitted_tokens, int64_t all_tokens,
                          int64_t least, snrq_expert_tokens *tokens, snrq_coverage *coverage)
{
    const int experts = tokens->experts;
    const int64_t asked = least;
    int64_t *count = NULL, starved = 0;
    candidates *c = NULL;
    snrq_expert_tokens extra = {0}, joined = {0};
    *coverage = (snrq_coverage){.experts = experts};
    snrq_status status = snrq_allocate((size_t)experts, sizeof *count, "experts", &count);
    coverage->sent = count;
    if (status == SNRQ_OK) status = snrq_allocate((size_t)experts, sizeof *c, "experts", &c);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = count_tokens(context, tokens, fitted_tokens, count);
    if (least > all_tokens) least = all_tokens;
    for (int e = 0; status == SNRQ_OK && e < experts; e++) {
        c[e].wanted = count[e] < least ? least - count[e] : 0;
        starved += c[e].wanted > 0;
    }
    if (status == SNRQ_OK && starved > 0) {
        for (int e = 0; status == SNRQ_OK && e < experts; e++)
            if (c[e].wanted > 0)
                status = list_candidates(s, routes, tokens, e, fitted_tokens, &c[e]);
        status = snrq_agree(context, status);
        if (status == SNRQ_OK) status = agree_on_least(context, experts, c);
        if (status == SNRQ_OK) {
            status = list_extra(s, routes, c, &extra);
            if (status == SNRQ_OK) status = snrq_expert_tokens_join(tokens, &extra, &joined);
            status = snrq_agree(context, status);
        }
    }
    if (status == SNRQ_OK) status = snrq_agree(context, describe(least, all_tokens, coverage));
    if (all_tokens < asked) coverage->short_of = coverage->topped_up;
    if (status == SNRQ_OK && starved > 0) {
        snrq_expert_tokens_free(tokens);
        *tokens = joined;
    }
    for (int e = 0; c != NULL && e < experts; e++) free(c[e].rank);
    snrq_expert_tokens_free(&extra);
    free(c);
    return status;
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
        status = top_up(context, q, &routes, fitted_tokens, fitted * q->tokens, least,
                        &q->experts->tokens, coverage);
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
        out->first[s] = position(t->token, begin, t->first[expert + 1], s * q->tokens) - begin;
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
    out->x = (snrq_activations){sequences, q->tokens, width, out->x_data, out->first};
    out->xf = (snrq_activations){sequences, q->tokens, width, out->xf_data, out->first};
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
        out->x = (snrq_activations){sequences, q->tokens, u->columns, x, NULL};
        out->xf = (snrq_activations){sequences, q->tokens, u->columns, xf, NULL};
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
    *begin = position(t->token, from, to, *begin);
    *end = position(t->token, *begin, to, *end);
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
        p->first[s] = p->expert < 0
                          ? s * p->q->tokens
                          : position(t->token, begin, end, (first + s) * p->q->tokens) - begin;
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
