/* Experts, backward; see experts_backward.h. */
#include "pipeline/model/experts_backward.h"

#include <stdlib.h>
#include <string.h>

#include "pipeline/model/block_backward.h"
#include "pipeline/model/experts.h"

/* The tokens of one expert; NULL: all, with weight 1. */
typedef struct visitors {
    int64_t count;
    const int64_t *token;
    const float *weight;
    int expert; /* -1: the one that all see */
} visitors;

typedef struct work {
    const snrq_block *block;
    int64_t sequences;
    const int64_t *first;
    const float *x, *g;
    float *g_x, *g_weight; /* g_weight [rows, experts] */
    int64_t *begin;        /* [sequences + 1] where the visitors of each sequence begin */
    const snrq_gradient_sums *sums;
    /* of the visitors: */
    float *in, *gate_up, *middle, *y, *g_gate_up;
} work;

static snrq_status allocate_work(work *w, int step, int64_t most)
{
    const snrq_family *f = w->block->family;
    int64_t hidden = w->block->config->hidden, widest = 0;
    for (int u = f->step[step].first; u < f->step[step].end; u++)
        widest = f->unit[u].rows > widest ? f->unit[u].rows : widest;
    float **const array[] = {&w->in, &w->gate_up, &w->middle, &w->y, &w->g_gate_up};
    const int64_t width[] = {hidden, widest, widest / 2, hidden, widest};
    size_t rows = (size_t)w->first[w->sequences], experts = (size_t)f->experts;
    SNRQ_TRY(snrq_allocate((size_t)w->sequences + 1, sizeof *w->begin, "sequences", &w->begin));
    SNRQ_TRY(snrq_allocate(rows * experts, sizeof(float), "gradients of routes", &w->g_weight));
    for (size_t i = 0; i < sizeof array / sizeof *array; i++)
        SNRQ_TRY(snrq_allocate_scratch((size_t)(most * width[i]), sizeof(float),
                                       "activations of an expert", array[i]));
    return SNRQ_OK;
}

static void free_work(work *w)
{
    free(w->begin);
    free(w->g_weight);
    free(w->in);
    free(w->gate_up);
    free(w->middle);
    free(w->y);
    free(w->g_gate_up);
}

/* y <- the gradient of the expert's outputs, from the outputs in y; and that of its weights. */
static void backward_weights(const work *w, const visitors *v)
{
    int64_t hidden = w->block->config->hidden;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < v->count; i++) {
        int64_t token = v->token != NULL ? v->token[i] : i;
        const float p = v->weight != NULL ? v->weight[i] : 1.0f, *g = w->g + token * hidden;
        float *y = w->y + i * hidden;
        double sum = 0.0;
        for (int64_t k = 0; k < hidden; k++) {
            sum += (double)g[k] * (double)y[k];
            y[k] = p * g[k];
        }
        if (v->expert >= 0) w->g_weight[token * w->block->family->experts + v->expert] = (float)sum;
    }
}

/* g_x, which may be x, of a unit. */
static snrq_status backward_unit(const work *w, int unit, const float *x, const float *g_y,
                                 int64_t count, float *g_x)
{
    const snrq_unit_shape *u = &w->block->family->unit[unit];
    SNRQ_TRY(snrq_gradient_sums_add(w->sums, unit, w->sequences, w->begin, x, g_y));
    return snrq_linear_backward(w->block->module + u->first, u->end - u->first, g_y, count, u->rows,
                                g_x);
}

/* One expert: units `up` and `down`. */
static snrq_status backward_expert(const work *w, int up, int down, const visitors *v)
{
    const snrq_block *b = w->block;
    int64_t hidden = b->config->hidden, width = b->family->unit[down].columns;
    if (v->count == 0) return SNRQ_OK;
    for (int64_t s = 0; s <= w->sequences; s++)
        w->begin[s] = v->token != NULL ? snrq_token_position(v->token, 0, v->count, w->first[s])
                                       : w->first[s];
    snrq_gather_rows(w->x, hidden, v->token, v->count, w->in);
    SNRQ_TRY(snrq_block_apply(b, up, v->count, w->in, w->gate_up));
    snrq_gated_activation(b->config->activation, v->count, width, w->gate_up, w->middle);
    SNRQ_TRY(snrq_block_apply(b, down, v->count, w->middle, w->y));
    backward_weights(w, v);
    SNRQ_TRY(backward_unit(w, down, w->middle, w->y, v->count, w->middle));
    snrq_gated_backward(b->config->activation, v->count, width, w->gate_up, w->middle,
                        w->g_gate_up);
    SNRQ_TRY(backward_unit(w, up, w->in, w->g_gate_up, v->count, w->in));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < v->count; i++) {
        float *to = w->g_x + (v->token != NULL ? v->token[i] : i) * hidden;
        for (int64_t k = 0; k < hidden; k++) to[k] += w->in[i * hidden + k];
    }
    return SNRQ_OK;
}

/* g_x += what comes through the router. */
static snrq_status backward_router(const work *w, const snrq_routes *routes)
{
    const snrq_block *b = w->block;
    const snrq_experts_config *e = &b->config->experts;
    const snrq_weight router = {.rows = e->count,
                                .columns = b->config->hidden,
                                .dtype = SNRQ_F32,
                                .dense = (const unsigned char *)b->vector[SNRQ_ROUTER]};
    int64_t rows = routes->tokens, hidden = b->config->hidden;
    float *logits = NULL, *g_x = NULL;
    snrq_status status =
        snrq_allocate_scratch((size_t)(rows * e->count), sizeof *logits, "router", &logits);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)(rows * hidden), sizeof *g_x, "router", &g_x);
    if (status == SNRQ_OK) status = snrq_linear_apply(&router, 1, w->x, rows, logits, e->count);
    for (int64_t t = 0; status == SNRQ_OK && t < rows; t++)
        snrq_choose_experts_backward(e, logits + t * e->count, routes->expert + t * e->chosen,
                                     w->g_weight + t * e->count, logits + t * e->count);
    if (status == SNRQ_OK) status = snrq_linear_backward(&router, 1, logits, rows, e->count, g_x);
    for (int64_t i = 0; status == SNRQ_OK && i < rows * hidden; i++) w->g_x[i] += g_x[i];
    free(logits);
    free(g_x);
    return status;
}

static snrq_status backward_all(work *w, int step, const snrq_routes *routes,
                                const snrq_expert_tokens *tokens)
{
    const snrq_family *f = w->block->family;
    int64_t rows = w->first[w->sequences], most = f->everyone ? rows : 0;
    for (int e = 0; e < f->experts; e++)
        if (tokens->first[e + 1] - tokens->first[e] > most)
            most = tokens->first[e + 1] - tokens->first[e];
    SNRQ_TRY(allocate_work(w, step, most));
    memset(w->g_x, 0, (size_t)(rows * w->block->config->hidden) * sizeof *w->g_x);
    for (int k = 0; k < f->experts + f->everyone; k++) {
        int64_t at = k < f->experts ? tokens->first[k] : 0;
        const visitors routed = {k < f->experts ? tokens->first[k + 1] - at : 0, tokens->token + at,
                                 tokens->weight + at, k};
        const visitors everyone = {rows, NULL, NULL, -1};
        SNRQ_TRY(backward_expert(w, f->step[step].first + k, f->step[step + 1].first + k,
                                 k < f->experts ? &routed : &everyone));
    }
    return backward_router(w, routes);
}

snrq_status snrq_experts_backward(const snrq_block *b, int step, int64_t sequences,
                                  const int64_t *first, const float *x, const float *g, float *g_x,
                                  const snrq_gradient_sums *sums)
{
    snrq_routes routes = {0};
    snrq_expert_tokens tokens = {0};
    work w = {.block = b,
              .sequences = sequences,
              .first = first,
              .x = x,
              .g = g,
              .g_x = g_x,
              .sums = sums};
    snrq_status status = snrq_block_route(b, first[sequences], x, &routes);
    if (status == SNRQ_OK) status = snrq_expert_tokens_create(&routes, &tokens);
    if (status == SNRQ_OK) status = backward_all(&w, step, &routes, &tokens);
    free_work(&w);
    snrq_expert_tokens_free(&tokens);
    snrq_routes_free(&routes);
    return status;
}
