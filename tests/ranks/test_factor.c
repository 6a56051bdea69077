/* Cholesky factors on every grid, and the ladder of dampings. */
#include "mpi/algebra/factor.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "tests/ranks/rank_test.h"

/* Dense tables here are [columns][rows], column-major, the same on all ranks. */

static double *zeros(int64_t count)
{
    return calloc((size_t)count, sizeof(double));
}

/* A Gram of `vectors` random vectors of length n, plus `shift` on the diagonal; scales of columns
 * differ. */
static double *gram_of(int64_t n, int64_t vectors, double shift)
{
    double *h = zeros(n * n);
    for (int64_t v = 0; v < vectors; v++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < n; i++)
                h[j * n + i] += rank_test_number(v, i, 1) * rank_test_number(v, j, 1) *
                                (double)((i % 5 + 1) * (j % 5 + 1));
    for (int64_t i = 0; i < n; i++) h[i * n + i] += shift;
    return h;
}

static double mean_diagonal(int64_t n, const double *h)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += h[i * n + i];
    return sum / (double)n;
}

/* The textbook Cholesky factor, lower, the rest zero. */
static double *naive_cholesky(int64_t n, const double *h)
{
    double *l = zeros(n * n);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = j; i < n; i++) {
            double sum = h[j * n + i];
            for (int64_t k = 0; k < j; k++) sum -= l[k * n + i] * l[k * n + j];
            l[j * n + i] = i == j ? sqrt(sum) : sum / l[j * n + j];
        }
    return l;
}

static double norm_of_difference(int64_t count, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t k = 0; k < count; k++) sum += (x[k] - y[k]) * (x[k] - y[k]);
    return sqrt(sum);
}

static snrq_matrix *distribute(const snrq_process_grid *grid, int64_t rows, int64_t columns,
                               const double *values)
{
    snrq_matrix *m = NULL;
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, rows, columns, &m), SNRQ_OK);
    snrq_matrix_set_panel(m, 0, columns, 0, values);
    return m;
}

static double *gather(const snrq_matrix *m)
{
    double *all = zeros(m->rows * m->columns);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(m, 0, m->columns, 0, all), SNRQ_OK);
    return all;
}

static void check_cholesky(const snrq_process_grid *grid, int64_t n)
{
    double *h = gram_of(n, n / 2 + 1, 0), lambda = 0.01 * mean_diagonal(n, h);
    snrq_matrix *dh = distribute(grid, n, n, h), *dl = distribute(grid, n, n, h);
    snrq_factor_report report;
    CU_ASSERT_EQUAL(snrq_factor_cholesky(dh, 0.01, dl, &report), SNRQ_OK);
    for (int64_t i = 0; i < n; i++) h[i * n + i] += lambda;
    double *expected = naive_cholesky(n, h), *found = gather(dl), *damped = gather(dh);
    int64_t not_zero = 0;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < j; i++) not_zero += found[j * n + i] != 0;
    CU_ASSERT_EQUAL(not_zero, 0);
    /* Condition about 1e3 here, fp64: 1e-13 expected. */
    CU_ASSERT_TRUE(norm_of_difference(n * n, found, expected) <= 1e-11 * sqrt((double)n * h[0]));
    CU_ASSERT_TRUE(norm_of_difference(n * n, damped, h) <= 1e-12 * lambda * (double)n);
    CU_ASSERT_EQUAL(report.attempts, 1);
    CU_ASSERT_TRUE(fabs(report.damping - lambda) <= 1e-12 * lambda);
    CU_ASSERT_TRUE(report.residual < 1e-13);
    free(h);
    free(expected);
    free(found);
    free(damped);
    snrq_matrix_destroy(&dh);
    snrq_matrix_destroy(&dl);
}

static void cholesky_on(const snrq_process_grid *grid)
{
    const int64_t sizes[] = {1, 100, 128, 129, 300};
    for (int k = 0; k < 5; k++) check_cholesky(grid, sizes[k]);
}

static void cholesky_agrees_with_the_textbook(void)
{
    rank_test_on_every_grid(cholesky_on);
}

/* Factorizes h with damp; returns the status and what every rank must agree on. */
static snrq_status try_damp(const snrq_process_grid *grid, int64_t n, const double *h, double damp,
                            snrq_factor_report *report)
{
    snrq_matrix *dh = distribute(grid, n, n, h), *dl = distribute(grid, n, n, h);
    snrq_status status = snrq_factor_cholesky(dh, damp, dl, report);
    double most = report->damping, least = -report->damping;
    snrq_max_double(grid->context, &most, 1);
    snrq_max_double(grid->context, &least, 1);
    CU_ASSERT_EQUAL(most, -least);
    if (status == SNRQ_OK) { /* h keeps the matrix that was factorized: no damping is left of failed
                                attempts */
        double *damped = gather(dh);
        int64_t wrong = 0;
        for (int64_t i = 0; i < n; i++)
            wrong += damped[i * n + i] != h[i * n + i] + report->damping;
        CU_ASSERT_EQUAL(wrong, 0);
        free(damped);
    }
    snrq_matrix_destroy(&dh);
    snrq_matrix_destroy(&dl);
    return status;
}

static void ladder_on(const snrq_process_grid *grid)
{
    const int64_t n = 150;
    snrq_factor_report report;
    double *h = gram_of(n, 20, -1e-4); /* rank 20, the other eigenvalues -1e-4 */
    double mean = mean_diagonal(n, h);
    CU_ASSERT_EQUAL(try_damp(grid, n, h, 0, &report), SNRQ_OK);
    CU_ASSERT_TRUE(report.attempts > 1 && report.damping > 1e-4 && report.damping < 1e-2 * mean);
    CU_ASSERT_EQUAL(try_damp(grid, n, h, 2e-8, &report), SNRQ_OK);
    CU_ASSERT_TRUE(report.attempts > 1 && report.damping > 1e-4);
    CU_ASSERT_EQUAL(try_damp(grid, n, h, 0.01, &report), SNRQ_OK);
    CU_ASSERT_EQUAL(report.attempts, 1);
    free(h);
}

static void singular_grams_climb_the_ladder(void)
{
    rank_test_on_every_grid(ladder_on);
}

static void hopeless_on(const snrq_process_grid *grid)
{
    const int64_t n = 150;
    snrq_factor_report report;
    double *h = gram_of(n, 5, 0);
    for (int64_t k = 0; k < n * n; k++) h[k] = -h[k];
    CU_ASSERT_EQUAL(try_damp(grid, n, h, 0.01, &report), SNRQ_BAD_DATA);
    CU_ASSERT_EQUAL(report.attempts, 5);
    h[3 * n + 3] = NAN;
    CU_ASSERT_EQUAL(try_damp(grid, n, h, 0.01, &report), SNRQ_BAD_DATA);
    h[3 * n + 3] = 1;
    h[2 * n + 40] = h[40 * n + 2] = NAN;
    CU_ASSERT_EQUAL(try_damp(grid, n, h, 0.01, &report), SNRQ_BAD_DATA);
    free(h);
}

static void hopeless_grams_are_bad_data_everywhere(void)
{
    rank_test_on_every_grid(hopeless_on);
}

/* A factor, and what a solve with it makes of a matrix. The caller frees both. */
typedef struct solved {
    double *l, *x;
} solved;

static solved solve_on(const snrq_process_grid *grid, int64_t n)
{
    snrq_factor_report report;
    double *h = gram_of(n, 8, 1), *right = gram_of(n, 3, 0);
    snrq_matrix *dh = distribute(grid, n, n, h), *dx = distribute(grid, n, n, right), *dl = NULL;
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, n, n, &dl), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_factor_cholesky(dh, 0.01, dl, &report), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_factor_solve_right(dl, dx), SNRQ_OK);
    solved found = {gather(dl), gather(dx)};
    snrq_matrix_destroy(&dh);
    snrq_matrix_destroy(&dx);
    snrq_matrix_destroy(&dl);
    free(right);
    free(h);
    return found;
}

/* ||X L^T - B|| / ||B||, by plain loops. */
static double solve_error(int64_t n, const solved *s)
{
    double *expected = gram_of(n, 3, 0), error = 0.0, norm = 0.0;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < n; i++) {
            double sum = 0.0;
            for (int64_t k = 0; k <= j; k++) sum += s->x[k * n + i] * s->l[k * n + j];
            error += pow(sum - expected[j * n + i], 2.0);
            norm += pow(expected[j * n + i], 2.0);
        }
    free(expected);
    return sqrt(error / norm);
}

static solved *alone_solved; /* of one rank and one thread */
static const int64_t solved_order = 700;

static void same_bits_on(const snrq_process_grid *grid)
{
    const size_t bytes = (size_t)(solved_order * solved_order) * sizeof(double);
    for (int threads = 1; threads <= 3; threads += 2) {
        omp_set_num_threads(threads);
        solved found = solve_on(grid, solved_order);
        CU_ASSERT_EQUAL(memcmp(found.l, alone_solved->l, bytes), 0);
        CU_ASSERT_EQUAL(memcmp(found.x, alone_solved->x, bytes), 0);
        CU_ASSERT_EQUAL(omp_get_max_threads(), threads);
        free(found.l);
        free(found.x);
    }
}

static void any_grid_and_any_threads_give_the_same_bits(void)
{
    int before = omp_get_max_threads();
    snrq_context *alone = rank_test_group(1);
    snrq_process_grid *grid = NULL;
    omp_set_num_threads(1);
    CU_ASSERT_EQUAL(snrq_process_grid_create(alone, 1, 1, &grid), SNRQ_OK);
    solved expected = solve_on(grid, solved_order);
    alone_solved = &expected;
    CU_ASSERT_TRUE(solve_error(solved_order, &expected) < 1e-13);
    rank_test_on_every_grid(same_bits_on);
    omp_set_num_threads(before);
    free(expected.l);
    free(expected.x);
    snrq_process_grid_destroy(&grid);
    snrq_context_destroy(&alone);
}

static void shapes_that_do_not_fit_are_refused(void)
{
    snrq_process_grid *grid = NULL;
    snrq_matrix *square = NULL, *wide = NULL;
    snrq_factor_report report;
    snrq_process_grid_create(rank_test_world, 1, 1, &grid);
    snrq_matrix_create(grid, 10, 10, &square);
    snrq_matrix_create(grid, 10, 12, &wide);
    CU_ASSERT_EQUAL(snrq_factor_cholesky(square, 0.01, wide, &report), SNRQ_INTERNAL);
    snrq_matrix_destroy(&square);
    snrq_matrix_destroy(&wide);
    snrq_process_grid_destroy(&grid);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(cholesky_agrees_with_the_textbook),
        SNRQ_TEST(singular_grams_climb_the_ladder),
        SNRQ_TEST(hopeless_grams_are_bad_data_everywhere),
        SNRQ_TEST(any_grid_and_any_threads_give_the_same_bits),
        SNRQ_TEST(shapes_that_do_not_fit_are_refused),
    };
    return rank_test_main(argc, argv, "factor", tests, sizeof tests / sizeof *tests);
}
