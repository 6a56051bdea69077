/* Passages through a model; see score.h. */
#include "pipeline/evaluate/score.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"
#include "mpi/log.h"
#include "mpi/timers.h"
#include "pipeline/evaluate/head.h"
#include "pipeline/model/stream.h"

enum {
    BATCH_TOKENS = 2048, /* go through a block at a time: enough to widen weights rarely */
    LEAST_OF_A_PASS = 8192,
    SECONDS_BETWEEN_LINES = 5
};
static const int64_t bytes_of_a_pass = (int64_t)512 << 20; /* of hidden states */

/* A model on its way through its blocks. */
typedef struct subject {
    const snrq_model *model;
    const char *name; /* for people */
    float *h;         /* [tokens of the pass, hidden] */
    /* Angles of positions; the second for passages that are longer than where longrope changes. */
    snrq_ropes ropes[2];
} subject;

/* Passages [first, end) of this rank, with all of their tokens in memory. */
typedef struct pass {
    int64_t first, end, tokens;
} pass;

typedef struct run {
    const snrq_scorer *scorer;
    const snrq_passages *passages;
    snrq_answers *answers;
    int64_t passes, number; /* of all ranks; which one this is */
    pass now;
    subject subject[2];
    int subjects;
    double started, told; /* when; when the last line was printed */
} run;

/* ---- memory ---- */

snrq_status snrq_answers_create(int64_t questions, int64_t each, snrq_answers *out)
{
    size_t count = (size_t)questions;
    *out = (snrq_answers){0};
    SNRQ_TRY(snrq_allocate(count, sizeof(double), "log-probabilities", &out->logprob));
    SNRQ_TRY(snrq_allocate(count, sizeof(double), "first choices", &out->first));
    SNRQ_TRY(snrq_allocate(count, sizeof(double), "divergences", &out->kl));
    SNRQ_TRY(snrq_allocate(count, sizeof(double), "agreements", &out->same_first));
    if (each == 0) return SNRQ_OK;
    return snrq_allocate((size_t)each, sizeof(double), "log-probabilities", &out->each);
}

void snrq_answers_free(snrq_answers *a)
{
    free(a->logprob);
    free(a->first);
    free(a->kl);
    free(a->same_first);
    free(a->each);
    *a = (snrq_answers){0};
}

static int64_t tokens_of_a_pass(const snrq_config *c)
{
    int64_t tokens = bytes_of_a_pass / (c->hidden * (int64_t)sizeof(float));
    return tokens > LEAST_OF_A_PASS ? tokens : LEAST_OF_A_PASS;
}

double snrq_score_bytes(const snrq_scorer *s, int64_t tokens, int64_t longest)
{
    const snrq_config *c = &s->model->config;
    int64_t most = tokens_of_a_pass(c), batch = longest > BATCH_TOKENS ? longest : BATCH_TOKENS;
    double width = (double)(2 * c->intermediate + c->hidden), subjects = s->reference ? 2.0 : 1.0;
    if (tokens > most) tokens = most;
    return subjects * ((double)(tokens * c->hidden) * sizeof(float) + snrq_head_bytes(c)) +
           2.0 * (double)batch * width * sizeof(float);
}

/* ---- passes and batches ---- */

static int64_t longrope_from(const snrq_config *c)
{
    return c->rope.type == SNRQ_ROPE_LONGROPE ? c->rope.original_positions : INT64_MAX;
}

static bool is_long(const snrq_config *c, const snrq_passage *p)
{
    return p->longest > longrope_from(c);
}

static pass next_pass(const run *r, int64_t first)
{
    int64_t most = tokens_of_a_pass(&r->scorer->model->config);
    pass p = {first, first, 0};
    while (p.end < r->passages->count &&
           (p.tokens == 0 || p.tokens + r->passages->passage[p.end].ids <= most))
        p.tokens += r->passages->passage[p.end++].ids;
    return p;
}

/* Passages from `first` on that go through a block together, and how many tokens they have. */
static int64_t batch_end(const run *r, const snrq_config *c, int64_t first, int64_t *tokens)
{
    const snrq_passage *passage = r->passages->passage;
    int64_t end = first;
    *tokens = 0;
    while (end < r->now.end && is_long(c, &passage[end]) == is_long(c, &passage[first]) &&
           (end == first || *tokens + passage[end].ids <= BATCH_TOKENS))
        *tokens += passage[end++].ids;
    return end;
}

/* Spans of passages [first, end) with rows counted over all of them. */
static void lay_out(const run *r, int64_t first, int64_t end, snrq_span *span, snrq_layout *out)
{
    *out = (snrq_layout){.span = span};
    for (int64_t i = first; i < end; i++) {
        const snrq_passage *p = &r->passages->passage[i];
        for (int64_t s = 0; s < p->spans; s++) {
            snrq_span *to = &span[out->spans++];
            *to = r->passages->span[p->span + s];
            to->first += out->rows;
            to->prefix_first += out->rows;
        }
        out->rows += p->ids;
    }
}

/* ---- forward ---- */

static snrq_status make_ropes(const run *r, subject *s)
{
    const snrq_config *c = &s->model->config;
    int64_t longest[2] = {0, 0};
    for (int64_t i = 0; i < r->passages->count; i++) {
        const snrq_passage *p = &r->passages->passage[i];
        int64_t *most = &longest[is_long(c, p)];
        *most = p->longest > *most ? p->longest : *most;
    }
    for (int k = 0; k < 2; k++)
        if (longest[k] > 0) SNRQ_TRY(snrq_ropes_create(c, longest[k], &s->ropes[k]));
    return SNRQ_OK;
}

/* h = embeddings of the tokens of the pass. */
static snrq_status embed(const run *r, subject *s)
{
    int64_t hidden = s->model->config.hidden;
    const snrq_passage *passage = r->passages->passage;
    snrq_table embedding;
    SNRQ_TRY(snrq_model_load_embedding(r->scorer->context, s->model, &embedding));
    snrq_status status = snrq_allocate_scratch((size_t)(r->now.tokens * hidden), sizeof(float),
                                               "hidden states", &s->h);
    const int32_t *ids = r->now.tokens > 0 ? r->passages->ids + passage[r->now.first].id : NULL;
    for (int64_t i = 0; status == SNRQ_OK && i < r->now.tokens; i++)
        snrq_embed_token(&embedding.weight, s->model->config.embedding_scale, ids[i],
                         s->h + i * hidden);
    status = snrq_agree(r->scorer->context, status);
    snrq_table_free(&embedding);
    return status;
}

static snrq_status forward_block(const run *r, subject *s, int64_t layer, snrq_block block)
{
    const snrq_config *c = &s->model->config;
    const snrq_family *f = block.family;
    int64_t most = 0, spans = 0, tokens, at = 0;
    snrq_unit_arrays x = {0}, y = {0};
    snrq_span *span = NULL;
    for (int64_t first = r->now.first, end; first < r->now.end; first = end) {
        int64_t count = 0;
        end = batch_end(r, c, first, &tokens);
        for (int64_t i = first; i < end; i++) count += r->passages->passage[i].spans;
        most = tokens > most ? tokens : most;
        spans = count > spans ? count : spans;
    }
    snrq_status status = snrq_unit_arrays_create(f, 0, f->steps, most, true, &x);
    if (status == SNRQ_OK) status = snrq_unit_arrays_create(f, 0, f->steps, most, false, &y);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)spans, sizeof *span, "spans", &span);
    for (int64_t first = r->now.first, end; status == SNRQ_OK && first < r->now.end; first = end) {
        snrq_layout layout;
        end = batch_end(r, c, first, &tokens);
        lay_out(r, first, end, span, &layout);
        block.rope = snrq_ropes_of(&s->ropes[is_long(c, &r->passages->passage[first])], c, layer);
        status = snrq_block_forward(&block, &layout, s->h + at * c->hidden, &x, &y);
        at += tokens;
    }
    free(span);
    snrq_unit_arrays_free(&y);
    snrq_unit_arrays_free(&x);
    return status;
}

/* `done` of `layers` blocks of the subject are through. */
static void tell(run *r, int which, int64_t done, int64_t layers)
{
    double now = snrq_now();
    char left[32], of_passes[64] = "";
    bool last = done == layers && r->number + 1 == r->passes;
    if (r->scorer->quiet || (now - r->told < SECONDS_BETWEEN_LINES && !last)) return;
    r->told = now;
    double parts = (double)(r->passes * r->subjects);
    double share =
        ((double)(r->number * r->subjects + which) + (double)done / (double)layers) / parts;
    snrq_clock_text((now - r->started) * (1.0 - share) / share, left, sizeof left);
    if (r->passes > 1)
        snprintf(of_passes, sizeof of_passes, " of pass %lld/%lld", (long long)r->number + 1,
                 (long long)r->passes);
    snrq_note(r->scorer->context, "%s: block %lld/%lld%s done, left %s", r->subject[which].name,
              (long long)done, (long long)layers, of_passes, left);
}

static snrq_status forward(run *r, int which)
{
    const snrq_context *c = r->scorer->context;
    subject *s = &r->subject[which];
    SNRQ_TRY(embed(r, s));
    for (int64_t layer = 0; layer < s->model->config.layers; layer++) {
        snrq_loaded_block block = {0};
        snrq_status status = snrq_model_load_block(c, s->model, layer, &s->ropes[0], &block);
        if (status == SNRQ_OK) status = snrq_agree(c, forward_block(r, s, layer, block.block));
        snrq_loaded_block_free(&block);
        SNRQ_TRY(status);
        tell(r, which, layer + 1, s->model->config.layers);
    }
    return SNRQ_OK;
}

/* ---- questions ---- */

/* Rows of the head that are collected, and what is asked of them. */
typedef struct harvest {
    snrq_head *head; /* [subjects] */
    int64_t rows, targets, first_target;
    snrq_head_target *target;         /* [SNRQ_HEAD_ROWS] */
    snrq_head_comparison *comparison; /* [SNRQ_HEAD_ROWS] */
    int32_t *slot;                    /* [tokens of a passage] row of the head, or -1 */
} harvest;

/* Answers what is collected, targets first_target and following. */
static snrq_status answer(const run *r, harvest *h)
{
    bool compare = r->subjects > 1;
    snrq_answers *a = r->answers;
    if (h->targets == 0) return SNRQ_OK;
    SNRQ_TRY(snrq_head_apply(&h->head[0], compare ? &h->head[1] : NULL, h->rows, h->target,
                             h->targets, compare ? h->comparison : NULL));
    for (int64_t t = 0; t < h->targets; t++) {
        int64_t q = r->passages->target[h->first_target + t].question;
        a->logprob[q] += h->target[t].logprob;
        a->first[q] += h->target[t].first;
        if (a->each != NULL) a->each[h->first_target + t] = h->target[t].logprob;
        if (!compare) continue;
        a->kl[q] += h->comparison[h->target[t].row].kl;
        a->same_first[q] += h->comparison[h->target[t].row].same_first;
    }
    h->first_target += h->targets;
    h->rows = h->targets = 0;
    return SNRQ_OK;
}

/* Row of the head for row `row` of a passage whose hidden states begin at token `at` of the pass.
 */
static int64_t take_row(const run *r, harvest *h, int64_t at, int64_t row)
{
    if (h->slot[row] >= 0) return h->slot[row];
    for (int k = 0; k < r->subjects; k++) {
        int64_t hidden = r->subject[k].model->config.hidden;
        memcpy(h->head[k].hidden + h->rows * hidden, r->subject[k].h + (at + row) * hidden,
               (size_t)hidden * sizeof(float));
    }
    h->slot[row] = (int32_t)h->rows;
    return h->rows++;
}

static snrq_status harvest_all(const run *r, harvest *h)
{
    int64_t at = 0;
    for (int64_t i = r->now.first; i < r->now.end; i++) {
        const snrq_passage *p = &r->passages->passage[i];
        memset(h->slot, -1, (size_t)p->ids * sizeof *h->slot);
        for (int64_t t = p->target; t < p->target + p->targets; t++) {
            if (h->targets == SNRQ_HEAD_ROWS) {
                SNRQ_TRY(answer(r, h));
                memset(h->slot, -1, (size_t)p->ids * sizeof *h->slot);
            }
            const snrq_target *target = &r->passages->target[t];
            int64_t row = take_row(r, h, at, target->row);
            h->target[h->targets++] = (snrq_head_target){.row = row, .id = target->id};
        }
        at += p->ids;
    }
    return answer(r, h);
}

static snrq_status allocate_harvest(const run *r, harvest *h)
{
    int64_t longest = 0;
    for (int64_t i = r->now.first; i < r->now.end; i++)
        longest = r->passages->passage[i].ids > longest ? r->passages->passage[i].ids : longest;
    h->first_target = r->now.first < r->now.end ? r->passages->passage[r->now.first].target : 0;
    SNRQ_TRY(snrq_allocate(SNRQ_HEAD_ROWS, sizeof *h->target, "targets", &h->target));
    SNRQ_TRY(snrq_allocate(SNRQ_HEAD_ROWS, sizeof *h->comparison, "comparisons", &h->comparison));
    return snrq_allocate((size_t)longest, sizeof *h->slot, "rows", &h->slot);
}

static snrq_status ask(const run *r)
{
    const snrq_context *c = r->scorer->context;
    snrq_head head[2] = {{0}, {0}};
    harvest h = {.head = head};
    snrq_status status = SNRQ_OK;
    for (int k = 0; k < r->subjects && status == SNRQ_OK; k++)
        status = snrq_head_load(c, r->subject[k].model, &head[k]);
    if (status == SNRQ_OK) {
        status = allocate_harvest(r, &h);
        if (status == SNRQ_OK) status = harvest_all(r, &h);
        status = snrq_agree(c, status);
    }
    free(h.target);
    free(h.comparison);
    free(h.slot);
    for (int k = 0; k < r->subjects; k++) snrq_head_free(&head[k]);
    return status;
}

/* ---- all of it ---- */

static snrq_status run_pass(run *r)
{
    snrq_status status = SNRQ_OK;
    for (int k = 0; k < r->subjects && status == SNRQ_OK; k++) status = forward(r, k);
    if (status == SNRQ_OK) status = ask(r);
    for (int k = 0; k < r->subjects; k++) {
        free(r->subject[k].h);
        r->subject[k].h = NULL;
    }
    return status;
}

static snrq_status count_passes(run *r)
{
    double most = 0;
    for (int64_t at = 0; at < r->passages->count; most++) at = next_pass(r, at).end;
    SNRQ_TRY(snrq_max_double(r->scorer->context, &most, 1));
    r->passes = (int64_t)most;
    return SNRQ_OK;
}

snrq_status snrq_score(const snrq_scorer *s, const snrq_passages *passages, snrq_answers *answers)
{
    run r = {.scorer = s,
             .passages = passages,
             .answers = answers,
             .subject = {{.model = s->model, .name = "model"},
                         {.model = s->reference, .name = "reference"}},
             .subjects = s->reference != NULL ? 2 : 1,
             .started = snrq_now()};
    r.told = r.started;
    SNRQ_TRY(count_passes(&r));
    snrq_status status = SNRQ_OK;
    for (int k = 0; k < r.subjects && status == SNRQ_OK; k++)
        status = make_ropes(&r, &r.subject[k]);
    status = snrq_agree(s->context, status);
    for (r.number = 0; status == SNRQ_OK && r.number < r.passes; r.number++) {
        r.now = next_pass(&r, r.now.end);
        status = run_pass(&r);
    }
    for (int k = 0; k < r.subjects; k++)
        for (int i = 0; i < 2; i++) snrq_ropes_free(&r.subject[k].ropes[i]);
    return status;
}
