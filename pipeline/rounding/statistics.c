/* Gathering a unit's statistics; see statistics.h. */
#include "pipeline/rounding/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct ranked {
    double diagonal;
    int32_t column;
} ranked;

static int ascending(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->diagonal != y->diagonal) return x->diagonal < y->diagonal ? -1 : 1;
    return x->column < y->column ? -1 : x->column > y->column;
}

snrq_status snrq_statistics_order(const snrq_rule *rule, const double *diagonal, snrq_statistics *s)
{
    size_t n = (size_t)s->columns;
    ranked *list = NULL;
    SNRQ_TRY(snrq_allocate(n, sizeof *s->order, "decision order", &s->order));
    SNRQ_TRY(snrq_allocate(n, 1, "dead inputs", &s->dead));
    SNRQ_TRY(snrq_allocate(n, sizeof *list, "decision order", &list));
    for (int64_t j = 0; j < s->columns; j++)
        list[j] = (ranked){diagonal[j] == 0.0 ? 1.0 : diagonal[j], (int32_t)j};
    /* rtn does not look at the data, hence has no order but the natural one. */
    if (!rule->natural_order && rule->method != SNRQ_RTN) qsort(list, n, sizeof *list, ascending);
    for (int64_t k = 0; k < s->columns; k++) {
        s->order[k] = list[k].column;
        s->dead[k] = diagonal[list[k].column] == 0.0;
        s->dead_inputs += s->dead[k];
    }
    free(list);
    return SNRQ_OK;
}

snrq_status snrq_statistics_start(const snrq_context *c, snrq_process_shape shape,
                                  snrq_statistics *s)
{
    if (shape.rows == 0) snrq_process_grid_shape(s->columns, c->size, &shape.rows, &shape.columns);
    return snrq_process_grid_create(c, shape.rows, shape.columns, &s->process_grid);
}

/* What a unit is gathered with, and for whom. */
typedef struct gathering {
    const snrq_context *context; /* of the ranks that have input */
    const snrq_team *team;       /* that gets the result */
    const snrq_rule *rule;
    snrq_process_shape shape;
    const snrq_unit_input *in;
    const snrq_statistics *like; /* whose order is taken, or NULL */
    snrq_gram_request request;   /* of H; what the others have in common with it */
} gathering;

/* The outcome of a step that is agreed within the team. Collective over all ranks. */
static snrq_status agree_beyond(const gathering *g, snrq_status of_team)
{
    return snrq_team_is_whole(g->context, g->team) ? of_team : snrq_agree(g->context, of_team);
}

static snrq_status start(const gathering *g, snrq_statistics *s)
{
    snrq_status status = SNRQ_OK;
    if (g->team->context != NULL) status = snrq_statistics_start(g->team->context, g->shape, s);
    return agree_beyond(g, status);
}

/* Adds up a Gram of `columns` columns for the team. */
static snrq_status reduce(const gathering *g, const snrq_gram_request *request, int64_t columns,
                          snrq_statistics *s, snrq_matrix **out)
{
    snrq_status status = SNRQ_OK;
    if (g->team->context != NULL)
        status = snrq_matrix_create(s->process_grid, s->columns, columns, out);
    SNRQ_TRY(agree_beyond(g, status));
    return snrq_gram_reduce(request, *out);
}

/* The mismatch of a dead input does not count. */
static void silence_dead(const snrq_statistics *s, double *mismatch_norms)
{
    for (int64_t k = 0; k < s->columns; k++)
        if (s->dead[k]) mismatch_norms[s->order[k]] = 0.0;
}

static snrq_status reduce_mismatch(const gathering *g, double *mismatch_norms, snrq_statistics *s)
{
    const snrq_unit_input *in = g->in;
    snrq_gram_request request = g->request;
    SNRQ_TRY(snrq_gram_norms(g->context, in->xf, in->x, in->alphas, mismatch_norms));
    silence_dead(s, mismatch_norms);
    request.a = in->xf;
    request.a_minus = in->x;
    request.a_norms = mismatch_norms;
    request.scale = in->alphas;
    request.symmetric = false;
    SNRQ_TRY(reduce(g, &request, s->columns, s, &s->d));
    if (!snrq_rule_needs_e(g->rule)) return SNRQ_OK;
    request.b = in->xf;
    request.b_minus = in->x;
    request.b_norms = mismatch_norms;
    request.symmetric = true;
    return reduce(g, &request, s->columns, s, &s->e);
}

/* C^T, for a unit that writes to the residual stream. */
static snrq_status reduce_residual(const gathering *g, snrq_statistics *s)
{
    const snrq_unit_input *in = g->in;
    snrq_gram_request request = g->request;
    double *norms = NULL;
    if (!snrq_rule_compensates(g->rule) || in->h == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_agree(
        g->context, snrq_allocate((size_t)in->h->columns, sizeof *norms, "column norms", &norms)));
    request.b = in->hf;
    request.b_minus = in->h;
    request.b_norms = norms;
    request.column_order = NULL;
    request.symmetric = false;
    request.factor /= in->residual_scale;
    snrq_status status = snrq_gram_norms(g->context, in->hf, in->h, NULL, norms);
    if (status == SNRQ_OK) status = reduce(g, &request, in->h->columns, s, &s->c);
    free(norms);
    return status;
}

/* The order of other statistics; no input is taken for dead. */
static snrq_status order_like(const snrq_statistics *like, snrq_statistics *s)
{
    const size_t n = (size_t)s->columns;
    SNRQ_TRY(snrq_allocate(n, sizeof *s->order, "decision order", &s->order));
    SNRQ_TRY(snrq_allocate(n, 1, "dead inputs", &s->dead));
    memcpy(s->order, like->order, n * sizeof *s->order);
    return SNRQ_OK;
}

static snrq_status gather(gathering *g, double *norms, double *mismatch_norms, snrq_statistics *s)
{
    const snrq_unit_input *in = g->in;
    double factor = 2.0 / (double)in->sequences_global;
    SNRQ_TRY(snrq_gram_norms(g->context, in->x, NULL, NULL, norms));
    for (int64_t j = 0; j < s->columns; j++) mismatch_norms[j] = factor * norms[j];
    SNRQ_TRY(snrq_agree(g->context, g->like != NULL
                                        ? order_like(g->like, s)
                                        : snrq_statistics_order(g->rule, mismatch_norms, s)));
    SNRQ_TRY(start(g, s));
    g->request = (snrq_gram_request){.a = in->x,
                                     .b = in->x,
                                     .a_norms = norms,
                                     .b_norms = norms,
                                     .factor = factor,
                                     .row_order = s->order,
                                     .column_order = s->order,
                                     .symmetric = true};
    if (!snrq_team_is_whole(g->context, g->team)) {
        g->request.context = g->context;
        g->request.first = g->team->first;
    }
    SNRQ_TRY(reduce(g, &g->request, s->columns, s, &s->h));
    if (s->h != NULL) snrq_matrix_add_diagonal(s->h, 1.0, s->dead);
    if (!snrq_rule_needs_d(g->rule)) return SNRQ_OK;
    SNRQ_TRY(reduce_residual(g, s));
    return reduce_mismatch(g, mismatch_norms, s);
}

snrq_status snrq_statistics_gather_like(const snrq_context *c, const snrq_team *team,
                                        const snrq_rule *rule, snrq_process_shape shape,
                                        const snrq_unit_input *in, const snrq_statistics *like,
                                        snrq_statistics *s)
{
    size_t n = (size_t)in->x->columns;
    const snrq_process_shape by_size = {0, 0};
    gathering g = {.context = c,
                   .team = team,
                   .rule = rule,
                   .shape = snrq_team_is_whole(c, team) ? shape : by_size,
                   .in = in,
                   .like = like};
    double *norms = NULL;
    memset(s, 0, sizeof *s);
    s->columns = in->x->columns;
    s->tokens = snrq_activations_tokens(in->x);
    snrq_status status = snrq_agree(c, snrq_allocate(2 * n, sizeof *norms, "column norms", &norms));
    if (status == SNRQ_OK) status = snrq_sum_int64(c, &s->tokens, 1);
    if (s->tokens > 0) s->per_token = 0.5 * (double)in->sequences_global / (double)s->tokens;
    if (in->distinct_global > 0 && s->tokens > in->distinct_global) s->tokens = in->distinct_global;
    s->strengths = snrq_strengths_choose(rule, s->columns, s->tokens);
    if (status == SNRQ_OK) status = gather(&g, norms, norms + n, s);
    free(norms);
    if (status != SNRQ_OK) snrq_statistics_free(s);
    return status;
}

snrq_status snrq_statistics_gather(const snrq_context *c, const snrq_team *team,
                                   const snrq_rule *rule, snrq_process_shape shape,
                                   const snrq_unit_input *in, snrq_statistics *s)
{
    return snrq_statistics_gather_like(c, team, rule, shape, in, NULL, s);
}

void snrq_statistics_free(snrq_statistics *s)
{
    snrq_matrix_destroy(&s->h);
    snrq_matrix_destroy(&s->d);
    snrq_matrix_destroy(&s->e);
    snrq_matrix_destroy(&s->c);
    snrq_process_grid_destroy(&s->process_grid);
    free(s->order);
    free(s->dead);
    memset(s, 0, sizeof *s);
}

/* splitmix64: a stream of 64-bit values from any state. */
static uint64_t next_bits(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in (0, 1). */
static double next_uniform(uint64_t *state)
{
    return ((double)(next_bits(state) >> 11) + 0.5) * 0x1p-53;
}

/* Gamma(shape, 1) by Marsaglia and Tsang (ACM TOMS 26, 2000); shapes below one by the boost
 * Gamma(a) = Gamma(a + 1) U^(1/a). */
static double next_gamma(uint64_t *state, double shape)
{
    if (shape < 1.0) {
        double boosted = next_gamma(state, shape + 1.0);
        return boosted * pow(next_uniform(state), 1.0 / shape);
    }
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double radius = sqrt(-2.0 * log(next_uniform(state)));
        double normal = radius * cos(6.283185307179586 * next_uniform(state));
        double v = 1.0 + c * normal;
        if (v <= 0.0) continue;
        v = v * v * v;
        if (log(next_uniform(state)) < 0.5 * normal * normal + d - d * v + d * log(v)) return d * v;
    }
}

void snrq_sampled_alphas(double beta, uint64_t seed, snrq_range sequences, double *alphas)
{
    for (int64_t s = sequences.begin; s < sequences.end; s++) {
        uint64_t state = seed;
        state = next_bits(&state) ^ (uint64_t)s;
        double a = next_gamma(&state, beta), b = next_gamma(&state, beta);
        double u = a / (a + b);
        alphas[s - sequences.begin] = u < 0.5 ? u : 1.0 - u;
    }
}
