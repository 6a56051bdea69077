/* The rounding search against brute force, its reference twin, its objective and itself on other
 * rank counts. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "mpi/algebra/blas.h"
#include "mpi/algebra/factor.h"
#include "pipeline/rounding/format_grid.h"
#include "pipeline/rounding/refine.h"
#include "tests/ranks/rank_test.h"

/* A rounding problem, the same on all ranks: H = A^T A / t + a little, R, and a grid fitted to R.
 */
typedef struct problem {
    int64_t rows, n;
    double *h; /* [n, n] */
    double *l; /* [n, n] column-major lower factor */
    snrq_groups groups;
    snrq_rows all; /* every row, padded */
    snrq_process_grid *grid;
    snrq_matrix *factor, *gram;
} problem;

static uint64_t random_state;

static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

static double normal(void)
{
    return sqrt(-2.0 * log(uniform() + 1e-300)) * cos(6.283185307179586 * uniform());
}

/* Naive Cholesky, column-major. */
static void cholesky(int64_t n, const double *h, double *l)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = j; i < n; i++) {
            double s = h[j * n + i];
            for (int64_t k = 0; k < j; k++) s -= l[k * n + i] * l[k * n + j];
            l[j * n + i] = i == j ? sqrt(s) : s / l[j * n + j];
        }
}

static void fill_gram(problem *p)
{
    int64_t n = p->n, tokens = 2 * n;
    double *a = calloc((size_t)(tokens * n), sizeof *a);
    for (int64_t t = 0; t < tokens; t++) {
        double common = normal();
        for (int64_t j = 0; j < n; j++)
            a[t * n + j] = (normal() + 1.5 * common) * (1.0 + 3.0 * (double)(j % 5 == 0));
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = i == j ? 0.05 : 0.0;
            for (int64_t t = 0; t < tokens; t++) s += a[t * n + i] * a[t * n + j] / (double)tokens;
            p->h[i * n + j] = s;
        }
    free(a);
}

static void make_problem(problem *out, uint64_t seed, int64_t rows, int64_t n, int bits,
                         int64_t group_size, bool symmetric)
{
    *out = (problem){.rows = rows, .n = n};
    random_state = seed;
    out->h = calloc((size_t)(n * n), sizeof *out->h);
    out->l = calloc((size_t)(n * n), sizeof *out->l);
    fill_gram(out);
    cholesky(n, out->h, out->l);
    int32_t *order = calloc((size_t)n, sizeof *order);
    for (int64_t k = 0; k < n; k++) order[k] = (int32_t)k;
    CU_ASSERT_EQUAL_FATAL(snrq_groups_create(order, n, group_size, true, &out->groups), SNRQ_OK);
    free(order);
    CU_ASSERT_EQUAL_FATAL(snrq_rows_create(rows, bits, &out->groups, &out->all), SNRQ_OK);
    double *d2 = calloc((size_t)n, sizeof *d2);
    for (int64_t j = 0; j < n; j++) d2[j] = out->l[j * n + j] * out->l[j * n + j];
    snrq_rule rule = {.bits = bits,
                      .symmetric = symmetric,
                      .either_sign = symmetric, /* half of the scales are negative then */
                      .grid = symmetric ? SNRQ_QUANT_GRID_HESSIAN : SNRQ_QUANT_GRID_MINMAX,
                      .scale_type = SNRQ_F32};
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t k = 0; k < n; k++) out->all.target[r * n + k] = (float)normal();
        CU_ASSERT_EQUAL_FATAL(snrq_quant_grid_fit(&rule, &out->groups, out->all.target + r * n, d2,
                                                  out->all.scales + r * out->groups.count,
                                                  out->all.zeros + r * out->groups.count),
                              SNRQ_OK);
    }
    free(d2);
    CU_ASSERT_EQUAL_FATAL(snrq_process_grid_create(rank_test_world, 1, 1, &out->grid), SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(snrq_matrix_create(out->grid, n, n, &out->factor), SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(snrq_matrix_create(out->grid, n, n, &out->gram), SNRQ_OK);
    snrq_matrix_set_panel(out->factor, 0, n, 0, out->l);
    snrq_matrix_set_panel(out->gram, 0, n, 0, out->h);
}

static void free_problem(problem *p)
{
    snrq_matrix_destroy(&p->factor);
    snrq_matrix_destroy(&p->gram);
    snrq_process_grid_destroy(&p->grid);
    snrq_rows_free(&p->all);
    snrq_groups_free(&p->groups);
    free(p->h);
    free(p->l);
}

/* Objective of row r of `rows` in fp64. */
static double objective(const problem *p, const snrq_rows *rows, int64_t r)
{
    double sum = 0.0;
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double a = (double)snrq_rows_value(rows, r, i) - (double)rows->target[r * p->n + i];
            double b = (double)snrq_rows_value(rows, r, j) - (double)rows->target[r * p->n + j];
            sum += a * p->h[i * p->n + j] * b;
        }
    return sum;
}

/* The cheapest of all 2^(b n) roundings of row r. */
static double brute_force(const problem *p, int64_t r)
{
    int64_t levels = 1 << p->all.bits, count = 1;
    double best = INFINITY;
    for (int64_t k = 0; k < p->n; k++) count *= levels;
    uint8_t *codes = p->all.codes + r * p->n;
    for (int64_t index = 0; index < count; index++) {
        int64_t rest = index;
        for (int64_t k = 0; k < p->n; k++, rest /= levels) codes[k] = (uint8_t)(rest % levels);
        double cost = objective(p, &p->all, r);
        best = cost < best ? cost : best;
    }
    return best;
}

static void cost_equals_objective(void)
{
    problem p;
    make_problem(&p, 1, 70, 150, 3, 32, true);
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 4, &p.all), SNRQ_OK);
    for (int64_t r = 0; r < p.rows; r++) {
        double o = objective(&p, &p.all, r);
        /* fp32 recursion over 150 columns: a few 1e-6 relative */
        CU_ASSERT(fabs(p.all.costs[r] - o) <= 2e-5 * o);
    }
    free_problem(&p);
}

static void exhaustive_beam_is_brute_force(void)
{
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        problem p;
        make_problem(&p, 2, 40, 4, 2, 4, symmetric != 0);
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 256, &p.all), SNRQ_OK);
        for (int64_t r = 0; r < p.rows; r++) {
            double found = p.all.costs[r], best = brute_force(&p, r);
            CU_ASSERT(fabs(found - best) <= 1e-5 * best);
        }
        free_problem(&p);
    }
}

static void beam_one_is_greedy(void)
{
    problem p;
    make_problem(&p, 3, 64, 200, 3, 64, true);
    uint8_t *codes = calloc((size_t)p.n, 1);
    double cost = 0, same = 0;
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 1, &p.all), SNRQ_OK);
    for (int64_t r = 0; r < p.rows; r++) {
        CU_ASSERT_EQUAL_FATAL(
            snrq_search_reference(p.l, SNRQ_ROUND_FEEDBACK, 1, &p.all, r, codes, &cost), SNRQ_OK);
        same += memcmp(codes, p.all.codes + r * p.n, (size_t)p.n) == 0;
    }
    /* fp32 against fp64: a near tie may flip, and sends that row another way */
    CU_ASSERT(same >= 0.95 * (double)p.rows);
    free(codes);
    free_problem(&p);
}

static void search_equals_its_reference(void)
{
    for (int beam = 2; beam <= 16; beam *= 2) {
        problem p;
        make_problem(&p, 4 + (uint64_t)beam, 40, 300, beam == 4 ? 2 : 3, 64, beam != 8);
        uint8_t *codes = calloc((size_t)p.n, 1);
        double cost = 0, same = 0;
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, beam, &p.all), SNRQ_OK);
        for (int64_t r = 0; r < p.rows; r++) {
            CU_ASSERT_EQUAL_FATAL(
                snrq_search_reference(p.l, SNRQ_ROUND_FEEDBACK, beam, &p.all, r, codes, &cost),
                SNRQ_OK);
            same += memcmp(codes, p.all.codes + r * p.n, (size_t)p.n) == 0;
            CU_ASSERT(fabs(p.all.costs[r] - cost) <= 0.05 * cost);
        }
        CU_ASSERT(same >= 0.9 * (double)p.rows);
        free(codes);
        free_problem(&p);
    }
}

/* Every format, with scales and minima that it can store: rows against their twins. */
static void formats_equal_their_references(void)
{
    enum { N = 256 };
    for (int i = 0; i < 2 * SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i / 2];
        int beam = i % 2 == 0 ? 1 : i % 4 == 1 ? 8 : 5;
        problem p;
        double d2[N], cost = 0, same = 0;
        float minima[N];
        uint8_t codes[N];
        snrq_rule rule = {.grid = SNRQ_QUANT_GRID_HESSIAN};
        snrq_rule_set_format(&rule, f);
        make_problem(&p, 100 + (uint64_t)i, f->shared_rows > 0 ? 6 : 40, N, f->bits, f->group,
                     true);
        snrq_rows_set_format(&p.all, f);
        CU_ASSERT_EQUAL_FATAL(snrq_rows_add_minima(&p.all), SNRQ_OK);
        for (int k = 0; k < N; k++) d2[k] = p.l[k * N + k] * p.l[k * N + k];
        float largest = 0.0f;
        for (int64_t k = 0; k < p.rows * N; k++) largest = fmaxf(largest, fabsf(p.all.target[k]));
        p.all.tensor_scale = snrq_weight_format_tensor_scale(f, largest);
        for (int64_t g = 0; g < p.rows * p.groups.count && f->shared_rows > 0; g++)
            p.all.scales[g] = snrq_weight_format_block_scale(f, largest);
        memset(p.all.zeros, snrq_weight_format_zero(f), (size_t)(p.rows * p.groups.count));
        for (int64_t r = 0; r < p.rows && f->shared_rows == 0; r++) {
            CU_ASSERT_EQUAL_FATAL(snrq_format_grid_fit(&rule, &p.groups, p.all.target + r * N, d2,
                                                       p.all.tensor_scale,
                                                       p.all.scales + r * p.groups.count, minima),
                                  SNRQ_OK);
            snrq_rows_set_minima(&p.all, r, minima);
        }
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, beam, &p.all), SNRQ_OK);
        for (int64_t r = 0; r < p.rows; r++) {
            CU_ASSERT_EQUAL_FATAL(
                snrq_search_reference(p.l, SNRQ_ROUND_FEEDBACK, beam, &p.all, r, codes, &cost),
                SNRQ_OK);
            same += memcmp(codes, p.all.codes + r * N, N) == 0;
            CU_ASSERT(fabs(p.all.costs[r] - cost) <= 0.05 * cost);
            CU_ASSERT(fabs(p.all.costs[r] - objective(&p, &p.all, r)) <= 1e-4 * cost);
        }
        /* Levels of E4M3 near 0 cost the same but for bits that keys of the beam leave out. */
        if (f->shared_rows > 0 && beam > 1) same = (double)p.rows;
        if (same < 0.85 * (double)p.rows) fprintf(stderr, "%s, beam %d: %g\n", f->name, beam, same);
        CU_ASSERT(same >= 0.85 * (double)p.rows);
        free_problem(&p);
    }
}

static double sum_of_costs(const problem *p, int beam)
{
    double sum = 0;
    CU_ASSERT_EQUAL_FATAL(snrq_search(p->factor, SNRQ_ROUND_FEEDBACK, beam, (snrq_rows *)&p->all),
                          SNRQ_OK);
    for (int64_t r = 0; r < p->rows; r++) sum += p->all.costs[r];
    return sum;
}

static void beam_is_never_worse_than_greedy_in_sum(void)
{
    for (int bits = 2; bits <= 4; bits++) {
        problem p;
        make_problem(&p, 5 + (uint64_t)bits, 64, 192, bits, 64, true);
        double greedy = sum_of_costs(&p, 1);
        for (int beam = 2; beam <= 32; beam += beam < 4 ? 1 : 7)
            CU_ASSERT(sum_of_costs(&p, beam) < greedy);
        free_problem(&p);
    }
}

static void order_of_rows_does_not_matter(void)
{
    problem p;
    make_problem(&p, 12, 128, 200, 3, 64, false);
    size_t n = (size_t)p.n, groups = (size_t)p.groups.count;
    for (int beam = 1; beam <= 8; beam += 7) {
        snrq_rows turned;
        CU_ASSERT_EQUAL_FATAL(snrq_rows_create(p.rows, 3, &p.groups, &turned), SNRQ_OK);
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, beam, &p.all), SNRQ_OK);
        for (size_t r = 0, s = 37; r < (size_t)p.rows; r++, s = (s + 51) % (size_t)p.rows) {
            memcpy(turned.target + s * n, p.all.target + r * n, n * sizeof(float));
            memcpy(turned.scales + s * groups, p.all.scales + r * groups, groups * sizeof(float));
            memcpy(turned.zeros + s * groups, p.all.zeros + r * groups, groups);
        }
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, beam, &turned), SNRQ_OK);
        for (size_t r = 0, s = 37; r < (size_t)p.rows; r++, s = (s + 51) % (size_t)p.rows) {
            CU_ASSERT_EQUAL(memcmp(turned.codes + s * n, p.all.codes + r * n, n), 0);
            CU_ASSERT_EQUAL(memcmp(&turned.costs[s], &p.all.costs[r], sizeof(double)), 0);
        }
        snrq_rows_free(&turned);
    }
    free_problem(&p);
}

static void wider_beam_is_better_in_sum(void)
{
    problem p;
    make_problem(&p, 6, 128, 256, 3, 128, true);
    double before = INFINITY;
    for (int beam = 1; beam <= 16; beam *= 4) {
        double sum = sum_of_costs(&p, beam);
        CU_ASSERT(sum < before);
        before = sum;
    }
    free_problem(&p);
}

static void grid_values_come_back_unchanged(void)
{
    problem p;
    make_problem(&p, 7, 64, 130, 4, 26, false);
    for (int64_t r = 0; r < p.rows; r++)
        for (int64_t k = 0; k < p.n; k++) {
            p.all.codes[r * p.n + k] = (uint8_t)(uniform() * 16);
            p.all.target[r * p.n + k] = snrq_rows_value(&p.all, r, k);
        }
    uint8_t *wanted = malloc((size_t)(p.rows * p.n));
    memcpy(wanted, p.all.codes, (size_t)(p.rows * p.n));
    for (int beam = 1; beam <= 4; beam += 3) {
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, beam, &p.all), SNRQ_OK);
        CU_ASSERT_EQUAL(memcmp(wanted, p.all.codes, (size_t)(p.rows * p.n)), 0);
    }
    free(wanted);
    free_problem(&p);
}

static void rtn_takes_the_nearest_value(void)
{
    problem p;
    make_problem(&p, 8, 64, 100, 3, 25, true);
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_NEAREST, 8, &p.all), SNRQ_OK);
    for (int64_t i = 0; i < p.rows * p.n; i++) {
        int64_t r = i / p.n, k = i % p.n, g = r * p.groups.count + p.groups.of_position[k];
        float distance = fabsf(snrq_rows_value(&p.all, r, k) - p.all.target[i]);
        for (int code = 0; code < 8; code++) {
            float other = p.all.scales[g] * (float)(code - p.all.zeros[g]);
            CU_ASSERT(distance <= fabsf(other - p.all.target[i]) * 1.000001f);
        }
    }
    for (int64_t r = 0; r < p.rows; r++)
        CU_ASSERT(fabs(p.all.costs[r] - objective(&p, &p.all, r)) <= 2e-5 * p.all.costs[r]);
    free_problem(&p);
}

static void refinement_never_raises_the_objective(void)
{
    problem p;
    make_problem(&p, 9, 128, 260, 2, 65, true);
    double *before = calloc((size_t)p.rows, sizeof *before), gained = 0;
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 1, &p.all), SNRQ_OK);
    memcpy(before, p.all.costs, (size_t)p.rows * sizeof *before);
    CU_ASSERT_EQUAL_FATAL(snrq_refine(p.gram, 3, &p.all, NULL), SNRQ_OK);
    for (int64_t r = 0; r < p.rows; r++) {
        CU_ASSERT(p.all.costs[r] <= before[r]);
        CU_ASSERT(fabs(p.all.costs[r] - objective(&p, &p.all, r)) <= 1e-4 * p.all.costs[r]);
        gained += before[r] - p.all.costs[r];
    }
    CU_ASSERT(gained > 0.0);
    free(before);
    free_problem(&p);
}

/* Each rank searches its share of the tiles; together they must equal one rank that searches all.
 */
static void result_does_not_depend_on_who_owns_a_row(void)
{
    problem p;
    make_problem(&p, 10, 320, 200, 3, 64, true);
    snrq_range mine =
        snrq_share(p.rows, SNRQ_TILE_ROWS, rank_test_world->size, rank_test_world->rank);
    snrq_rows part;
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 8, &p.all), SNRQ_OK);
    CU_ASSERT_EQUAL_FATAL(snrq_rows_create(mine.end - mine.begin, 3, &p.groups, &part), SNRQ_OK);
    for (int64_t r = 0; r < mine.end - mine.begin; r++) {
        int64_t g = p.groups.count, from = mine.begin + r;
        memcpy(part.target + r * p.n, p.all.target + from * p.n, (size_t)p.n * sizeof(float));
        memcpy(part.scales + r * g, p.all.scales + from * g, (size_t)g * sizeof(float));
        memcpy(part.zeros + r * g, p.all.zeros + from * g, (size_t)g);
    }
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 8, &part), SNRQ_OK);
    for (int64_t r = 0; r < mine.end - mine.begin; r++) {
        CU_ASSERT_EQUAL(
            memcmp(part.codes + r * p.n, p.all.codes + (mine.begin + r) * p.n, (size_t)p.n), 0);
        CU_ASSERT_EQUAL(memcmp(&part.costs[r], &p.all.costs[mine.begin + r], sizeof(double)), 0);
    }
    snrq_rows_free(&part);
    free_problem(&p);
}

/* Widths around those of a strip of columns and a panel, and beams that are no power of two or more
 * than a vector holds. */
static void odd_sizes_equal_their_reference(void)
{
    static const int64_t widths[] = {1, 15, 17, 127, 129, 145, 100, 100, 100, 100};
    static const int beams[] = {3, 5, 7, 9, 11, 13, 17, 32, 40, 100};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        problem p;
        int beam = beams[i];
        make_problem(&p, 20 + i, 20, widths[i], 2 + (int)(i % 3), 24, i % 2 == 0);
        uint8_t *codes = calloc((size_t)p.n, 1);
        double cost = 0, same = 0;
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, beam, &p.all), SNRQ_OK);
        for (int64_t r = 0; r < p.rows; r++) {
            CU_ASSERT_EQUAL_FATAL(
                snrq_search_reference(p.l, SNRQ_ROUND_FEEDBACK, beam, &p.all, r, codes, &cost),
                SNRQ_OK);
            const double near = 1e-4 * cost + 1e-10; /* a weight alone may lie on its grid */
            same += fabs(p.all.costs[r] - cost) <= near;
            CU_ASSERT(fabs(p.all.costs[r] - objective(&p, &p.all, r)) <= near);
        }
        /* fp32 against fp64: a near tie may send a row another way */
        CU_ASSERT(same >= 0.9 * (double)p.rows);
        free(codes);
        free_problem(&p);
    }
}

/* Costs are kept in units of the row: tiny and huge weights round like others. */
static void scale_of_a_row_does_not_matter(void)
{
    problem p;
    make_problem(&p, 30, 64, 160, 3, 32, true);
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 8, &p.all), SNRQ_OK);
    uint8_t *wanted = malloc((size_t)(p.rows * p.n));
    memcpy(wanted, p.all.codes, (size_t)(p.rows * p.n));
    for (int64_t r = 0; r < p.rows; r++) {
        float factor = r % 2 == 0 ? 0x1p-60f : 0x1p50f;
        for (int64_t k = 0; k < p.n; k++) p.all.target[r * p.n + k] *= factor;
        for (int64_t g = 0; g < p.groups.count; g++) p.all.scales[r * p.groups.count + g] *= factor;
    }
    CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 8, &p.all), SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(wanted, p.all.codes, (size_t)(p.rows * p.n)), 0);
    free(wanted);
    free_problem(&p);
}

static void result_does_not_depend_on_threads(void)
{
    problem p;
    make_problem(&p, 31, 320, 200, 3, 64, true);
    uint8_t *wanted = malloc((size_t)(p.rows * p.n));
    double *costs = malloc((size_t)p.rows * sizeof *costs);
    int before = omp_get_max_threads();
    for (int beam = 1; beam <= 6; beam += 5)
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, beam, &p.all),
                                  SNRQ_OK);
            if (threads == 1) {
                memcpy(wanted, p.all.codes, (size_t)(p.rows * p.n));
                memcpy(costs, p.all.costs, (size_t)p.rows * sizeof *costs);
            }
            CU_ASSERT_EQUAL(memcmp(wanted, p.all.codes, (size_t)(p.rows * p.n)), 0);
            CU_ASSERT_EQUAL(memcmp(costs, p.all.costs, (size_t)p.rows * sizeof *costs), 0);
        }
    omp_set_num_threads(before);
    free(costs);
    free(wanted);
    free_problem(&p);
}

/* Bits of codes and costs are those of a search that keeps nothing, when the panels are filled and
 * when they are used: then L may be gone. */
static void kept_panels_change_nothing(void)
{
    const int64_t widths[] = {1, 17, 128, 129, 300};
    for (int i = 0; i < 5; i++) {
        problem p;
        snrq_kept_panels kept;
        make_problem(&p, 21, 70, widths[i], 3, 64, true);
        size_t codes = (size_t)(p.all.rows * p.n), costs = (size_t)p.all.rows;
        uint8_t *right = calloc(codes, 1);
        double *right_costs = calloc(costs, sizeof *right_costs);
        CU_ASSERT_EQUAL_FATAL(snrq_search(p.factor, SNRQ_ROUND_FEEDBACK, 4, &p.all), SNRQ_OK);
        memcpy(right, p.all.codes, codes);
        memcpy(right_costs, p.all.costs, costs * sizeof *right_costs);
        CU_ASSERT_EQUAL_FATAL(snrq_kept_panels_create(p.n, &kept), SNRQ_OK);
        for (int search = 0; search < 3; search++) {
            memset(p.all.codes, 99, codes);
            CU_ASSERT_EQUAL(snrq_search_kept(p.factor, &kept, SNRQ_ROUND_FEEDBACK, 4, &p.all),
                            SNRQ_OK);
            CU_ASSERT_EQUAL(memcmp(p.all.codes, right, codes), 0);
            CU_ASSERT_EQUAL(memcmp(p.all.costs, right_costs, costs * sizeof *right_costs), 0);
            for (int64_t k = 0; k < p.n * p.n; k++) p.l[k] = (double)NAN;
            if (search > 0) snrq_matrix_set_panel(p.factor, 0, p.n, 0, p.l);
        }
        snrq_kept_panels_free(&kept);
        CU_ASSERT_PTR_NULL(kept.u);
        free(right);
        free(right_costs);
        free_problem(&p);
    }
}

int main(int argc, char **argv)
{
    static const snrq_test tests[] = {SNRQ_TEST(cost_equals_objective),
                                      SNRQ_TEST(exhaustive_beam_is_brute_force),
                                      SNRQ_TEST(beam_one_is_greedy),
                                      SNRQ_TEST(search_equals_its_reference),
                                      SNRQ_TEST(formats_equal_their_references),
                                      SNRQ_TEST(beam_is_never_worse_than_greedy_in_sum),
                                      SNRQ_TEST(order_of_rows_does_not_matter),
                                      SNRQ_TEST(wider_beam_is_better_in_sum),
                                      SNRQ_TEST(grid_values_come_back_unchanged),
                                      SNRQ_TEST(rtn_takes_the_nearest_value),
                                      SNRQ_TEST(refinement_never_raises_the_objective),
                                      SNRQ_TEST(result_does_not_depend_on_who_owns_a_row),
                                      SNRQ_TEST(odd_sizes_equal_their_reference),
                                      SNRQ_TEST(scale_of_a_row_does_not_matter),
                                      SNRQ_TEST(result_does_not_depend_on_threads),
                                      SNRQ_TEST(kept_panels_change_nothing)};
    return rank_test_main(argc, argv, "search", tests, sizeof tests / sizeof *tests);
}
