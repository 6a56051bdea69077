/* Experts; see experts.h. */
#include "pipeline/model/experts.h"

#include <stdlib.h>
#include <string.h>

snrq_status snrq_block_route(const snrq_block *b, int64_t rows, const float *x, snrq_routes *out)
{
    return snrq_routes_create(b->config, b->vector[SNRQ_ROUTER], b->vector[SNRQ_ROUTER_BIAS], rows,
                              x, out);
}

void snrq_gather_rows(const float *x, int64_t width, const int64_t *token, int64_t count,
                      float *out)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++)
        memcpy(out + i * width, x + (token != NULL ? token[i] : i) * width,
               (size_t)width * sizeof *out);
}

void snrq_scatter_rows(const float *y, int64_t width, const int64_t *token, const float *weight,
                       int64_t count, float *h)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) {
        const float p = weight != NULL ? weight[i] : 1.0f, *from = y + i * width;
        float *to = h + (token != NULL ? token[i] : i) * width;
        if (p == 0.0f) continue;
#pragma omp simd
        for (int64_t k = 0; k < width; k++) to[k] += p * from[k];
    }
}

/* Room for the tokens of one expert. */
typedef struct room {
    float *x, *gate_up, *middle, *y;
} room;

static snrq_status make_room(const snrq_family *f, int step, int64_t rows, int64_t hidden, room *r)
{
    int64_t widest = 0;
    for (int u = f->step[step].first; u < f->step[step].end; u++)
        widest = f->unit[u].rows > widest ? f->unit[u].rows : widest;
    SNRQ_TRY(snrq_allocate_scratch((size_t)(rows * hidden), sizeof(float), "experts", &r->x));
    SNRQ_TRY(snrq_allocate_scratch((size_t)(rows * widest), sizeof(float), "experts", &r->gate_up));
    SNRQ_TRY(
        snrq_allocate_scratch((size_t)(rows * widest / 2), sizeof(float), "experts", &r->middle));
    return snrq_allocate_scratch((size_t)(rows * hidden), sizeof(float), "experts", &r->y);
}

/* One expert: units `first` and `second`. token NULL: all. */
static snrq_status run_expert(const snrq_block *b, int first, int second, const int64_t *token,
                              const float *weight, int64_t count, const float *x, float *h,
                              const room *r)
{
    int64_t hidden = b->config->hidden, width = b->family->unit[second].columns;
    if (count == 0) return SNRQ_OK;
    snrq_gather_rows(x, hidden, token, count, r->x);
    SNRQ_TRY(snrq_block_apply(b, first, count, r->x, r->gate_up));
    snrq_gated_activation(b->config->activation, count, width, r->gate_up, r->middle);
    SNRQ_TRY(snrq_block_apply(b, second, count, r->middle, r->y));
    snrq_scatter_rows(r->y, hidden, token, weight, count, h);
    return SNRQ_OK;
}

snrq_status snrq_experts_forward(const snrq_block *b, int step, int64_t rows, const float *x,
                                 float *h)
{
    const snrq_family *f = b->family;
    snrq_routes routes = {0};
    snrq_expert_tokens tokens = {0};
    room r = {0};
    int64_t most = f->everyone ? rows : 0;
    snrq_status status = snrq_block_route(b, rows, x, &routes);
    if (status == SNRQ_OK) status = snrq_expert_tokens_create(&routes, &tokens);
    for (int e = 0; status == SNRQ_OK && e < f->experts; e++) {
        int64_t count = tokens.first[e + 1] - tokens.first[e];
        most = count > most ? count : most;
    }
    if (status == SNRQ_OK) status = make_room(f, step, most, b->config->hidden, &r);
    for (int k = 0; status == SNRQ_OK && k < f->experts + f->everyone; k++) {
        int first = f->step[step].first + k, second = f->step[step + 1].first + k;
        int64_t at = k < f->experts ? tokens.first[k] : 0;
        status = k < f->experts ? run_expert(b, first, second, tokens.token + at,
                                             tokens.weight + at, tokens.first[k + 1] - at, x, h, &r)
                                : run_expert(b, first, second, NULL, NULL, rows, x, h, &r);
    }
    free(r.x);
    free(r.gate_up);
    free(r.middle);
    free(r.y);
    snrq_expert_tokens_free(&tokens);
    snrq_routes_free(&routes);
    return status;
}
