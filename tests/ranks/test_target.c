/* Targets, strengths and figures of rounded modules against their definitions in docs/method.md,
 * computed densely in fp64 and in the original order of columns. H, D and E are given. */
#include <math.h>
#include <string.h>

#include "pipeline/rounding/rounding.h"
#include "tests/ranks/rank_test.h"

enum { MOST_MODULES = 5 };

/* Stacks of modules: rows where each begins. Row counts are no multiples of a tile. */
typedef struct stack_rows {
    int modules;
    int64_t first[MOST_MODULES + 1];
} stack_rows;

static const stack_rows ONE = {1, {0, 70}}, TWO = {2, {0, 50, 131}}, THREE = {3, {0, 64, 65, 150}},
                        FIVE = {5, {0, 70, 75, 139, 140, 203}};
static const double BEFORE[MOST_MODULES] = {0.3, 1.5, -0.5, 0.0, 0.25}; /* alpha chained */

enum { ZERO_MODULE = 3 }; /* of FIVE: no weight there */

typedef struct problem {
    const char *name;
    int64_t n, tokens;
    const stack_rows *rows;
    snrq_rule rule;
    double shift; /* this share of mean(diag H) is taken off the diagonal of live inputs */
} problem;

#define BASE(M, B, DAMP)                                                                           \
    .method = (M), .bits = (B), .scale_type = SNRQ_F32, .beam = 1, .damp = (DAMP)
#define STRENGTH(MODE, VALUE) .alpha_mode = SNRQ_ALPHA_##MODE, .alpha_value = (VALUE)

/* n = 300 are three blocks of a distributed matrix. */
static const problem PROBLEMS[] = {
    {"rtn", 37, 60, &ONE, {BASE(SNRQ_RTN, 3, 0.01), .group_size = 16, .symmetric = true}, 0},
    {"ldlq", 130, 150, &TWO, {BASE(SNRQ_LDLQ, 3, 0.01), STRENGTH(FIXED, 0.5)}, 0},
    {"gptq, permuted",
     37,
     60,
     &THREE,
     {BASE(SNRQ_GPTQ, 4, 0.02), .group_size = 8, .permuted_groups = true, .symmetric = true},
     0},
    {"gptaq", 37, 60, &TWO, {BASE(SNRQ_GPTAQ, 4, 0.01), .group_size = 8, STRENGTH(FIXED, 0.25)}, 0},
    {"snrq, fixed",
     300,
     320,
     &FIVE,
     {BASE(SNRQ_SNRQ, 3, 0.01), .group_size = 64, .symmetric = true, .either_sign = true,
      .grid = SNRQ_QUANT_GRID_HESSIAN, STRENGTH(FIXED, 0.5)},
     0},
    {"snrq, sampled",
     130,
     100,
     &FIVE,
     {BASE(SNRQ_SNRQ, 4, 0.05), .group_size = 32, .natural_order = true, STRENGTH(SAMPLED, 5)},
     0},
    {"snrq, chained",
     130,
     100,
     &FIVE,
     {BASE(SNRQ_SNRQ, 5, 0.01), .group_size = 32, STRENGTH(CHAINED, 0)},
     0},
    {"snrq, corr", 130, 200, &FIVE, {BASE(SNRQ_SNRQ, 3, 0.01), STRENGTH(CORR, 0)}, 0},
    {"ksnrq, all of it",
     130,
     200,
     &FIVE,
     {.method = SNRQ_KSNRQ,
      .bits = 3,
      .group_size = 32,
      .symmetric = true,
      .scale_type = SNRQ_F16,
      .grid = SNRQ_QUANT_GRID_HESSIAN,
      .beam = 4,
      .refine = 2,
      .regrid = 2,
      .damp = 0.01,
      STRENGTH(CHAINED, 0)},
     0},
    {"ksnrq, mse",
     37,
     60,
     &TWO,
     {.method = SNRQ_KSNRQ,
      .bits = 2,
      .group_size = 16,
      .permuted_groups = true,
      .scale_type = SNRQ_BF16,
      .grid = SNRQ_QUANT_GRID_MSE,
      .beam = 3,
      .damp = 0.01,
      STRENGTH(CORR, 0)},
     0},
    {"snrq, shrunken H",
     130,
     100,
     &FIVE,
     {BASE(SNRQ_SNRQ, 3, 0.01), .group_size = 32, .shrink = 0.3, STRENGTH(FIXED, 0.5)},
     0},
    {"snrq, with the residual's error",
     300,
     320,
     &ONE,
     {BASE(SNRQ_SNRQ, 3, 0.01), .shrink = 0.1, .compensate = 0.75, STRENGTH(FIXED, 0.25)},
     0},
    {"H not definite", 37, 20, &THREE, {BASE(SNRQ_SNRQ, 4, 0.001), STRENGTH(CORR, 0)}, 0.003},
};
enum { PROBLEMS_COUNT = sizeof PROBLEMS / sizeof *PROBLEMS };

/* ---- the input of a problem: dense, original order, row-major ---- */

typedef struct dense {
    int64_t n, m;
    double *h, *d, *e; /* [n, n] undamped; dead inputs as the method page says */
    double *c;         /* [m, n] */
    float *given;      /* [m, n] the weights */
    double *w;         /* [m, n] the same, those of dead inputs zero */
} dense;

static bool is_dead(int64_t column)
{
    return column % 9 == 4;
}

/* A token of X, with a part that all columns share, and of dX, which goes with it in part. */
static void make_token(int64_t n, int64_t t, double *x, double *dx)
{
    double common = rank_test_number(t, 1, 1);
    for (int64_t j = 0; j < n; j++) {
        double size = 1.0 + (double)(j % 3);
        x[j] = is_dead(j) ? 0.0 : size * (rank_test_number(t, j, 2) + 0.5 * common);
        dx[j] = is_dead(j) ? 0.0 : 0.3 * x[j] + 0.2 * size * rank_test_number(t, j, 3);
        if (j > 0) dx[j] += 0.2 * x[j - 1] * !is_dead(j);
    }
}

static double mean_diagonal(int64_t n, const double *h)
{
    double sum = 0.0;
    for (int64_t j = 0; j < n; j++) sum += h[j * n + j] / (double)n;
    return sum;
}

static void make_grams(const problem *p, dense *out)
{
    int64_t n = p->n;
    double *x = calloc((size_t)n, sizeof *x), *dx = calloc((size_t)n, sizeof *dx);
    for (int64_t t = 0; t < p->tokens; t++) {
        make_token(n, t, x, dx);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                out->h[i * n + j] += x[i] * x[j] / 4.0;
                out->d[i * n + j] += dx[i] * x[j] / 4.0;
                out->e[i * n + j] += dx[i] * dx[j] / 4.0;
            }
    }
    double off = p->shift * mean_diagonal(n, out->h);
    for (int64_t j = 0; j < n; j++) out->h[j * n + j] = is_dead(j) ? 1.0 : out->h[j * n + j] - off;
    free(x);
    free(dx);
}

static void dense_create(const problem *p, dense *out)
{
    size_t n = (size_t)p->n, m = (size_t)p->rows->first[p->rows->modules];
    *out = (dense){.n = p->n,
                   .m = (int64_t)m,
                   .h = calloc(n * n, sizeof(double)),
                   .d = calloc(n * n, sizeof(double)),
                   .e = calloc(n * n, sizeof(double)),
                   .c = calloc(m * n, sizeof(double)),
                   .given = calloc(m * n, sizeof(float)),
                   .w = calloc(m * n, sizeof(double))};
    make_grams(p, out);
    for (int64_t r = 0; r < out->m; r++)
        for (int64_t j = 0; j < p->n; j++) {
            bool zero =
                p->rows == &FIVE && r >= FIVE.first[ZERO_MODULE] && r < FIVE.first[ZERO_MODULE + 1];
            float w = zero ? 0.0f : (float)(0.1 * rank_test_number(r, j, 4));
            out->given[r * p->n + j] = w;
            out->w[r * p->n + j] = is_dead(j) ? 0.0 : (double)w;
            out->c[r * p->n + j] = is_dead(j) ? 0.0 : 0.2 * rank_test_number(r, j, 5);
        }
}

static void dense_free(dense *a)
{
    free(a->h);
    free(a->d);
    free(a->e);
    free(a->c);
    free(a->given);
    free(a->w);
}

static void dense_row(const void *source, int64_t row, float *out)
{
    const dense *a = source;
    memcpy(out, a->given + row * a->n, (size_t)a->n * sizeof *out);
}

/* ---- the twin ---- */

typedef struct twin {
    double damping;
    double *damped;    /* [n, n] H + damping I */
    double *wd, *wdh;  /* [m, n] W D, or W D + (b / a) C, and that times H^-1 */
    double *whw, *wew; /* [m] diagonals of W H W^T, H undamped, and W E W^T */
    double alpha[MOST_MODULES];
    double *target; /* [m, n] R */
} twin;

/* The inverse by Gauss and Jordan, with row pivots. */
static double *inverse(int64_t n, const double *a)
{
    int64_t width = 2 * n;
    double *t = calloc((size_t)(n * width), sizeof *t), *out = calloc((size_t)(n * n), sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        memcpy(t + i * width, a + i * n, (size_t)n * sizeof *t);
        t[i * width + n + i] = 1.0;
    }
    for (int64_t k = 0; k < n; k++) {
        int64_t pivot = k;
        for (int64_t i = k; i < n; i++)
            if (fabs(t[i * width + k]) > fabs(t[pivot * width + k])) pivot = i;
        for (int64_t j = 0; j < width; j++) {
            double kept = t[k * width + j];
            t[k * width + j] = t[pivot * width + j];
            t[pivot * width + j] = kept;
        }
        double scale = 1.0 / t[k * width + k];
        for (int64_t j = k; j < width; j++) t[k * width + j] *= scale;
        for (int64_t i = 0; i < n; i++) {
            double factor = t[i * width + k];
            if (i == k || factor == 0.0) continue;
            for (int64_t j = k; j < width; j++) t[i * width + j] -= factor * t[k * width + j];
        }
    }
    for (int64_t i = 0; i < n; i++) memcpy(out + i * n, t + i * width + n, (size_t)n * sizeof *out);
    free(t);
    return out;
}

/* [m, n] = A [m, n] B [n, n] */
static double *product(int64_t m, int64_t n, const double *a, const double *b)
{
    double *out = calloc((size_t)(m * n), sizeof *out);
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) out[r * n + j] += a[r * n + i] * b[i * n + j];
    return out;
}

static double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0.0;
    for (int64_t k = 0; k < n; k++) sum += x[k] * y[k];
    return sum;
}

/* [m] = the diagonal of A B A^T */
static double *quadratic_forms(int64_t m, int64_t n, const double *a, const double *b)
{
    double *ab = product(m, n, a, b), *out = calloc((size_t)m, sizeof *out);
    for (int64_t r = 0; r < m; r++) out[r] = dot(n, ab + r * n, a + r * n);
    free(ab);
    return out;
}

static double clamped(double x)
{
    return x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x;
}

/* The strength of a module whose method shifts its target, or takes a mismatch into account. */
static double strength(const problem *p, int module, const twin *t)
{
    int64_t begin = p->rows->first[module], count = p->rows->first[module + 1] - begin;
    double reachable = dot(count * p->n, t->wdh + begin * p->n, t->wd + begin * p->n), energy = 0.0;
    for (int64_t r = begin; r < begin + count; r++) energy += t->wew[r];
    if (p->rule.method < SNRQ_GPTAQ) return 0.0;
    switch (p->rule.alpha_mode) {
    case SNRQ_ALPHA_FIXED:
        return p->rule.alpha_value;
    case SNRQ_ALPHA_SAMPLED:
        return 1.0;
    case SNRQ_ALPHA_CHAINED:
        return BEFORE[module];
    case SNRQ_ALPHA_AUTO: /* of no problem */
    case SNRQ_ALPHA_CORR:
        break;
    }
    /* H of many tokens reaches a part, far from where it would be clamped. */
    if (p->tokens > p->n && energy > 0.0)
        CU_ASSERT_TRUE(reachable > 0.05 * energy && reachable < 0.95 * energy);
    return energy > 0.0 ? clamped(reachable / energy) : 0.0;
}

/* The damping of a problem whose H is not definite is tenfold: by construction once is too little,
 * and ten times is enough. */
static void twin_create(const problem *p, const dense *a, twin *t)
{
    int64_t n = a->n, m = a->m;
    bool shifts = p->rule.method >= SNRQ_SNRQ;
    t->damping = (p->shift > 0.0 ? 10.0 : 1.0) * p->rule.damp * (1.0 + p->rule.shrink) *
                 mean_diagonal(n, a->h);
    t->damped = calloc((size_t)(n * n), sizeof *t->damped);
    memcpy(t->damped, a->h, (size_t)(n * n) * sizeof *t->damped);
    for (int64_t j = 0; j < n; j++)
        t->damped[j * n + j] += p->rule.shrink * a->h[j * n + j] + t->damping;
    double *inverted = inverse(n, t->damped);
    t->wd = product(m, n, a->w, a->d);
    for (int64_t at = 0; at < m * n && p->rule.compensate > 0.0; at++)
        t->wd[at] += p->rule.compensate / p->rule.alpha_value * a->c[at];
    t->wdh = product(m, n, t->wd, inverted);
    t->whw = quadratic_forms(m, n, a->w, a->h);
    t->wew = quadratic_forms(m, n, a->w, a->e);
    t->target = calloc((size_t)(m * n), sizeof *t->target);
    for (int k = 0; k < p->rows->modules; k++) {
        t->alpha[k] = strength(p, k, t);
        for (int64_t at = p->rows->first[k] * n; at < p->rows->first[k + 1] * n; at++)
            t->target[at] = a->w[at] + (shifts ? t->alpha[k] * t->wdh[at] : 0.0);
    }
    free(inverted);
}

static void twin_free(twin *t)
{
    free(t->damped);
    free(t->wd);
    free(t->wdh);
    free(t->whw);
    free(t->wew);
    free(t->target);
}

/* ---- a problem in the hands of the program ---- */

typedef struct setup {
    dense dense;
    snrq_statistics statistics;
    snrq_stack stack;
    const char *names[MOST_MODULES];
    snrq_rounding rounding;
} setup;

/* A Gram in decision order. */
static snrq_matrix *distribute(const snrq_statistics *s, const double *values)
{
    int64_t n = s->columns;
    snrq_matrix *out = NULL;
    double *column = calloc((size_t)n, sizeof *column);
    CU_ASSERT_EQUAL(snrq_matrix_create(s->process_grid, n, n, &out), SNRQ_OK);
    for (int64_t l = 0; l < n; l++) {
        for (int64_t k = 0; k < n; k++) column[k] = values[(int64_t)s->order[k] * n + s->order[l]];
        snrq_matrix_set_panel(out, l, 1, 0, column);
    }
    free(column);
    return out;
}

/* C^T, rows in decision order. */
static snrq_matrix *distribute_residual(const snrq_statistics *s, const dense *a)
{
    snrq_matrix *out = NULL;
    double *column = calloc((size_t)a->n, sizeof *column);
    CU_ASSERT_EQUAL(snrq_matrix_create(s->process_grid, a->n, a->m, &out), SNRQ_OK);
    for (int64_t r = 0; r < a->m; r++) {
        for (int64_t k = 0; k < a->n; k++) column[k] = a->c[r * a->n + s->order[k]];
        snrq_matrix_set_panel(out, r, 1, 0, column);
    }
    free(column);
    return out;
}

static void setup_create(const problem *p, setup *u)
{
    static const char *const names[] = {"q", "k", "v", "gate", "up"};
    const int size = rank_test_world->size;
    const snrq_process_shape shape = {size >= 4 ? 2 : 1, size >= 4 ? 2 : size};
    memset(u, 0, sizeof *u);
    dense_create(p, &u->dense);
    double *diagonal = calloc((size_t)p->n, sizeof *diagonal);
    for (int64_t j = 0; j < p->n; j++) diagonal[j] = is_dead(j) ? 0.0 : u->dense.h[j * p->n + j];
    u->statistics = (snrq_statistics){.columns = p->n, .tokens = p->tokens};
    CU_ASSERT_EQUAL(snrq_statistics_order(&p->rule, diagonal, &u->statistics), SNRQ_OK);
    free(diagonal);
    CU_ASSERT_EQUAL(snrq_statistics_start(rank_test_world, shape, &u->statistics), SNRQ_OK);
    u->statistics.h = distribute(&u->statistics, u->dense.h);
    if (snrq_rule_needs_d(&p->rule)) u->statistics.d = distribute(&u->statistics, u->dense.d);
    if (snrq_rule_needs_e(&p->rule)) u->statistics.e = distribute(&u->statistics, u->dense.e);
    if (p->rule.compensate > 0.0) u->statistics.c = distribute_residual(&u->statistics, &u->dense);
    u->statistics.strengths = snrq_strengths_choose(&p->rule, p->n, p->tokens);
    memcpy(u->names, names, sizeof names);
    u->stack = (snrq_stack){p->rows->modules, p->rows->first, u->names, "stack", BEFORE,
                            dense_row,        &u->dense,      NULL,     0};
    CU_ASSERT_EQUAL(
        snrq_rounding_create(rank_test_world, &p->rule, &u->statistics, &u->stack, &u->rounding),
        SNRQ_OK);
}

static void setup_free(setup *u)
{
    snrq_rounding_free(&u->rounding);
    snrq_statistics_free(&u->statistics);
    dense_free(&u->dense);
}

/* ---- checks of the target's parts ---- */

/* e = a row in decision order, times unit, minus that of the twin, in original order. */
static void row_error(const snrq_statistics *s, const float *found, double unit,
                      const double *expected, double *e)
{
    for (int64_t k = 0; k < s->columns; k++) {
        int64_t j = s->order[k];
        e[j] = unit * (double)found[k] - expected[j];
    }
}

/* x A x^T */
static double form(int64_t n, const double *x, const double *a)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * dot(n, x, a + i * n);
    return sum;
}

static bool is_near(double found, double expected, double share)
{
    return fabs(found - expected) <= share * fabs(expected);
}

/* Sums of n products in fp32 are good to some sqrt(n) 2^-24 of the length of their terms, of which
 * less than 0.9 cancels here: 1e-5 with room. Solves are good to 2^-24 times the root of the
 * condition of H, at most 1e5, in the length whose square is x H x^T: 2e-5, and as much again for
 * the way there. */
static void check_parts(const setup *u, const twin *t)
{
    const snrq_target_parts *parts = &u->rounding.target;
    int64_t n = u->dense.n, wrong = 0;
    double *e = calloc((size_t)n, sizeof *e);
    for (int64_t r = parts->range.begin; r < parts->range.end; r++) {
        int64_t local = r - parts->range.begin;
        const double *wd = t->wd + r * n, *wdh = t->wdh + r * n;
        for (int64_t k = 0; k < n; k++)
            wrong += (double)parts->w[local * n + k] != u->dense.w[r * n + u->statistics.order[k]];
        wrong += !is_near(parts->whw[local], t->whw[r], 1e-5);
        wrong += parts->wew != NULL && !is_near(parts->wew[local], t->wew[r], 1e-5);
        if (parts->wd == NULL) continue;
        wrong += !is_near(parts->reached[local], dot(n, wdh, wd), 1e-5);
        row_error(&u->statistics, parts->wd + local * n, parts->unit, wd, e);
        wrong += !(dot(n, e, e) <= 1e-10 * dot(n, wd, wd));
        row_error(&u->statistics, parts->wdh + local * n, 1.0, wdh, e);
        wrong += !(form(n, e, t->damped) <= 4e-5 * 4e-5 * dot(n, wdh, wd));
    }
    free(e);
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(parts->wd != NULL, snrq_rule_shifts_target(u->rounding.rule));
    CU_ASSERT_EQUAL(parts->wdh != NULL, parts->wd != NULL);
    CU_ASSERT_EQUAL(parts->reached != NULL, parts->wd != NULL);
    CU_ASSERT_EQUAL(parts->wew != NULL, snrq_rule_needs_e(u->rounding.rule));
}

/* The damping once on the diagonal of the H that is kept, and L L^T that matrix. */
static void check_damping(const problem *p, const setup *u, const twin *t)
{
    const snrq_statistics *s = &u->statistics;
    const snrq_factor_report *report = &u->rounding.target.factor;
    int64_t n = s->columns, wrong = 0;
    double *h = calloc((size_t)(n * n), sizeof *h), *l = calloc((size_t)(n * n), sizeof *l);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(s->h, 0, n, 0, h), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(u->rounding.target.l, 0, n, 0, l), SNRQ_OK);
    double mean = mean_diagonal(n, t->damped);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = j; i < n; i++) {
            double expected = t->damped[(int64_t)s->order[i] * n + s->order[j]], sum = 0.0;
            for (int64_t k = 0; k <= j; k++) sum += l[k * n + i] * l[k * n + j];
            wrong += fabs(h[j * n + i] - expected) > 1e-12 * mean;
            wrong += fabs(sum - expected) > 1e-12 * mean;
        }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_TRUE(is_near(report->damping, t->damping, 1e-12));
    CU_ASSERT_EQUAL(report->attempts, p->shift > 0.0 ? 2 : 1);
    free(h);
    free(l);
}

static void check_alphas(const problem *p, const setup *u, const twin *t)
{
    for (int k = 0; k < p->rows->modules; k++)
        CU_ASSERT_TRUE(is_near(u->rounding.modules[k].alpha, t->alpha[k], 1e-5));
}

/* The target and W D H^-1 are kept in fp32: the latter in the metric of H, as above, the former to
 * half of its last bit. */
static void check_targets(const setup *u, const twin *t)
{
    const snrq_rounding *w = &u->rounding;
    int64_t n = u->dense.n, wrong = 0;
    double *e = calloc((size_t)n, sizeof *e), *half = calloc((size_t)n, sizeof *half);
    for (int64_t r = w->mine.begin; r < w->mine.end; r++) {
        const double *expected = t->target + r * n;
        row_error(&u->statistics, w->rows.target + (r - w->mine.begin) * n, 1.0, expected, e);
        for (int64_t j = 0; j < n; j++) {
            half[j] = 0x1p-24 * fabs(expected[j]);
            if (fabs(e[j]) <= half[j]) e[j] = 0.0;
        }
        double reached = dot(n, t->wdh + r * n, t->wd + r * n);
        wrong += !(form(n, e, t->damped) <= 4e-5 * 4e-5 * reached + form(n, half, t->damped));
    }
    free(e);
    free(half);
    CU_ASSERT_EQUAL(wrong, 0);
}

static void targets_follow_their_definition(void)
{
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        const problem *p = &PROBLEMS[k];
        setup u;
        twin t;
        setup_create(p, &u);
        twin_create(p, &u.dense, &t);
        CU_ASSERT_EQUAL_FATAL(snrq_rounding_shift(&u.rounding), SNRQ_OK);
        check_parts(&u, &t);
        check_damping(p, &u, &t);
        check_alphas(p, &u, &t);
        CU_ASSERT_EQUAL_FATAL(snrq_rounding_fit(&u.rounding), SNRQ_OK);
        check_targets(&u, &t);
        twin_free(&t);
        setup_free(&u);
    }
}

/* ---- checks of a module's figures ---- */

/* What was rounded to, of all ranks' rows, original order. */
typedef struct outcome {
    double *q;     /* [m, n] weights */
    double *r;     /* [m, n] R as it is kept */
    double *code;  /* [m, n] where the target lies on its grid, in codes */
    double *costs; /* [m] as the search counted them */
} outcome;

static void outcome_create(const setup *u, const twin *t, outcome *out)
{
    const snrq_rounding *w = &u->rounding;
    int64_t n = u->dense.n, m = u->dense.m;
    *out =
        (outcome){calloc((size_t)(m * n), sizeof(double)), calloc((size_t)(m * n), sizeof(double)),
                  calloc((size_t)(m * n), sizeof(double)), calloc((size_t)m, sizeof(double))};
    for (int64_t r = w->mine.begin; r < w->mine.end; r++) {
        int64_t local = r - w->mine.begin;
        out->costs[r] = w->rows.costs[local];
        for (int64_t k = 0; k < n; k++) {
            int64_t at = r * n + u->statistics.order[k];
            int64_t group = local * w->groups.count + w->groups.of_position[k];
            double scale = (double)w->rows.scales[group], zero = (double)w->rows.zeros[group];
            out->q[at] = scale * ((double)w->rows.codes[local * n + k] - zero);
            out->r[at] = (double)w->rows.target[local * n + k];
            out->code[at] = t->target[at] / scale + zero;
        }
    }
    CU_ASSERT_EQUAL(snrq_collect(rank_test_world, out->q, m * n), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_collect(rank_test_world, out->r, m * n), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_collect(rank_test_world, out->code, m * n), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_collect(rank_test_world, out->costs, m), SNRQ_OK);
}

static void outcome_free(outcome *o)
{
    free(o->q);
    free(o->r);
    free(o->code);
    free(o->costs);
}

/* x - y [count]; the caller frees it. */
static double *difference(int64_t count, const double *x, const double *y)
{
    double *out = calloc((size_t)count, sizeof *out);
    for (int64_t k = 0; k < count; k++) out[k] = x[k] - y[k];
    return out;
}

static double sum_of(int64_t count, const double *x)
{
    double sum = 0.0;
    for (int64_t k = 0; k < count; k++) sum += x[k];
    return sum;
}

/* tr((Q - R) H (Q - R)^T) with the damped H and R as it is kept, by module and by row. The search
 * adds up costs of an fp32 recursion over at most 300 columns: a few 1e-6 of a row, a part of it in
 * the mean. */
static void check_objective(const problem *p, const setup *u, const twin *t, const outcome *o)
{
    int64_t n = p->n, m = u->dense.m, wrong = 0;
    double *change = difference(m * n, o->q, o->r);
    double *rows = quadratic_forms(m, n, change, t->damped);

    for (int64_t r = 0; r < m; r++) wrong += !is_near(o->costs[r], rows[r], 2e-5);
    CU_ASSERT_EQUAL(wrong, 0);
    for (int k = 0; k < p->rows->modules; k++) {
        int64_t begin = p->rows->first[k], count = p->rows->first[k + 1] - begin;
        CU_ASSERT_TRUE(
            is_near(u->rounding.modules[k].objective, sum_of(count, rows + begin), 2e-6));
    }
    free(rows);
    free(change);
}

/* ||W X^T - Q X^T|| / ||W X^T||: with the undamped H, in which the weights of dead inputs are zero.
 * 0 for a module without weights. */
static void check_output_error(const problem *p, const setup *u, const twin *t, const outcome *o)
{
    int64_t n = p->n, m = u->dense.m;
    double *change = difference(m * n, o->q, u->dense.w);
    double *rows = quadratic_forms(m, n, change, u->dense.h);
    for (int k = 0; k < p->rows->modules; k++) {
        int64_t begin = p->rows->first[k], count = p->rows->first[k + 1] - begin;
        double output = sum_of(count, t->whw + begin), error = sum_of(count, rows + begin);
        double expected = output > 0.0 ? sqrt(error / output) : 0.0;
        CU_ASSERT_TRUE(is_near(u->rounding.modules[k].output_error, expected, 1e-6));
    }
    free(rows);
    free(change);
}

/* The share of weights whose target lies outside the grid by more than half a step. Largest values
 * of a group lie just there: they may count or not. Returns how many do for sure. */
static int64_t check_clipped(const problem *p, const setup *u, const outcome *o)
{
    int64_t n = p->n, all = 0;
    double half = 0.5, top = (double)((1 << p->rule.bits) - 1);
    for (int k = 0; k < p->rows->modules; k++) {
        int64_t begin = p->rows->first[k] * n, end = p->rows->first[k + 1] * n, sure = 0, most = 0;
        for (int64_t at = begin; at < end; at++) {
            double outside = fmax(-o->code[at], o->code[at] - top) - half;
            sure += outside > 3e-5; /* targets of fp32 differ by 4e-6 of their size */
            most += outside > -3e-5;
        }
        double found = u->rounding.modules[k].clipped * (double)(end - begin);
        CU_ASSERT_TRUE(found >= (double)sure - 1e-6 && found <= (double)most + 1e-6);
        all += sure;
    }
    return all;
}

/* <Q - W, W D> / <W D H^-1, W D>, D as gathered and the damped H, clamped; 0 for a module without
 * weights. Q and what stands here are kept in fp32. */
static void check_next_alpha(const problem *p, const setup *u, const twin *t, const outcome *o)
{
    int64_t n = p->n;
    double *change = difference(u->dense.m * n, o->q, u->dense.w);
    for (int k = 0; k < p->rows->modules; k++) {
        int64_t at = p->rows->first[k] * n, count = p->rows->first[k + 1] * n - at;
        double found = u->rounding.modules[k].alpha_next;
        double above = dot(count, change + at, t->wd + at);
        double below = dot(count, t->wdh + at, t->wd + at);
        if (p->rule.alpha_mode != SNRQ_ALPHA_CHAINED) {
            CU_ASSERT_TRUE(isnan(found));
            continue;
        }
        /* Rounding moves it a little from the strength that was used, of which some are outside. */
        CU_ASSERT_EQUAL(below > 0.0, k != ZERO_MODULE);
        if (k != ZERO_MODULE) CU_ASSERT_TRUE(fabs(above / below - BEFORE[k]) < 0.2);
        double expected = below > 0.0 ? clamped(above / below) : 0.0;
        CU_ASSERT_TRUE(fabs(found - expected) <= 1e-5);
    }
    free(change);
}

static void figures_follow_their_definitions(void)
{
    int64_t clipped = 0;
    for (int k = 0; k < PROBLEMS_COUNT; k++) {
        const problem *p = &PROBLEMS[k];
        setup u;
        twin t;
        outcome o;
        setup_create(p, &u);
        twin_create(p, &u.dense, &t);
        CU_ASSERT_EQUAL_FATAL(snrq_rounding_shift(&u.rounding), SNRQ_OK);
        CU_ASSERT_EQUAL_FATAL(snrq_rounding_fit(&u.rounding), SNRQ_OK);
        CU_ASSERT_EQUAL_FATAL(snrq_rounding_search(&u.rounding), SNRQ_OK);
        CU_ASSERT_EQUAL_FATAL(snrq_rounding_measure(&u.rounding), SNRQ_OK);
        outcome_create(&u, &t, &o);
        check_alphas(p, &u, &t);
        check_objective(p, &u, &t, &o);
        check_output_error(p, &u, &t, &o);
        check_next_alpha(p, &u, &t, &o);
        clipped += check_clipped(p, &u, &o);
        outcome_free(&o);
        twin_free(&t);
        setup_free(&u);
    }
    CU_ASSERT_TRUE(clipped > 100);
}

static void hopeless_grams_are_bad_data_everywhere(void)
{
    problem p = PROBLEMS[PROBLEMS_COUNT - 1];
    setup u;
    p.shift = 50.0;
    setup_create(&p, &u);
    CU_ASSERT_EQUAL(snrq_rounding_shift(&u.rounding), SNRQ_BAD_DATA);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "not positive definite"));
    setup_free(&u);
}

/* ---- alpha corr of given parts ---- */

/* Rows of W D H^-1 D^T W^T and of W E W^T, the modules that they make, and their strengths. */
static void the_reachable_share_is_clamped(void)
{
    const struct {
        double reachable, energy;
    } rows[] = {{1, 4}, {1, 2},  {0.5, 2},      {3, 2},   {-1, 2},  {1, 0},
                {0, 0}, {1, -1}, {1, INFINITY}, {1, NAN}, {NAN, 1}, {5, 1}};
    const struct {
        snrq_range module;
        double alpha;
    } cases[] = {{{0, 1}, 0.25}, {{0, 2}, 2.0 / 6},  {{2, 4}, 3.5 / 4}, {{3, 4}, 1}, {{4, 5}, 0},
                 {{5, 6}, 0},    {{6, 7}, 0},        {{7, 8}, 0},       {{8, 9}, 0}, {{9, 10}, 0},
                 {{10, 11}, 0},  {{0, 5}, 4.5 / 12}, {{11, 12}, 1},     {{5, 5}, 0}};
    enum { COUNT = 12 };
    double reached[COUNT], wew[COUNT];
    const snrq_context *w = rank_test_world;
    snrq_target_parts parts = {
        .range = snrq_share(COUNT, 1, w->size, w->rank), .reached = reached, .wew = wew};
    for (int64_t r = parts.range.begin; r < parts.range.end; r++) {
        reached[r - parts.range.begin] = rows[r].reachable;
        wew[r - parts.range.begin] = rows[r].energy;
    }
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        double alpha = NAN;
        CU_ASSERT_EQUAL(snrq_target_alpha_corr(w, &parts, COUNT, cases[k].module, &alpha), SNRQ_OK);
        CU_ASSERT_TRUE(fabs(alpha - cases[k].alpha) <= 1e-15);
    }
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(targets_follow_their_definition),
        SNRQ_TEST(figures_follow_their_definitions),
        SNRQ_TEST(hopeless_grams_are_bad_data_everywhere),
        SNRQ_TEST(the_reachable_share_is_clamped),
    };
    return rank_test_main(argc, argv, "target", tests, sizeof tests / sizeof *tests);
}
