/* Products and solves of rows against plain fp64, and the same bits wherever a row is. */
#include "mpi/algebra/row_products.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "mpi/algebra/factor.h"
#include "tests/ranks/rank_test.h"

/* Dense matrices here are [columns][rows], column-major, the same on all ranks; rows are [rows][n].
 */

static const double UNIT = 0x1p-24; /* of fp32: half of the last bit of 1 */

static double number(int64_t a, int64_t b, int64_t c)
{
    return rank_test_number(a, b, c);
}

/* A Gram of n / 2 + 1 vectors, most of all in a common direction, and 0.01 on the diagonal: its
 * condition is that of damped ones. */
static double *make_gram(int64_t n)
{
    double *h = calloc((size_t)(n * n), sizeof *h);
    for (int64_t v = 0; v <= n / 2; v++) {
        double common = 2.0 * number(v, 0, 1);
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < n; i++)
                h[j * n + i] += (number(v, i, 2) + common) * (number(v, j, 2) + common) / (double)n;
    }
    for (int64_t i = 0; i < n; i++) h[i * n + i] += 0.01;
    return h;
}

static double *make_square(int64_t n)
{
    double *a = calloc((size_t)(n * n), sizeof *a);
    for (int64_t k = 0; k < n * n; k++) a[k] = number(k, 3, 0);
    return a;
}

static void fill_rows(snrq_range range, int64_t n, float *x)
{
    for (int64_t r = range.begin; r < range.end; r++)
        for (int64_t k = 0; k < n; k++) x[(r - range.begin) * n + k] = (float)number(r, k, 4);
}

static double *cholesky(int64_t n, const double *h)
{
    double *l = calloc((size_t)(n * n), sizeof *l);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = j; i < n; i++) {
            double sum = h[j * n + i];
            for (int64_t k = 0; k < j; k++) sum -= l[k * n + i] * l[k * n + j];
            l[j * n + i] = i == j ? sqrt(sum) : sum / l[j * n + j];
        }
    return l;
}

static snrq_matrix *distribute(const snrq_process_grid *grid, int64_t n, const double *values)
{
    snrq_matrix *m = NULL;
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, n, n, &m), SNRQ_OK);
    snrq_matrix_set_panel(m, 0, n, 0, values);
    return m;
}

/* ---- values ---- */

/* |found - f x A| of an element is at most n u sum |x| |A|. */
static int64_t wrong_products(int64_t n, const double *a, double f, const float *x,
                              const float *found)
{
    int64_t wrong = 0;
    for (int64_t j = 0; j < n; j++) {
        double sum = 0.0, size = 0.0;
        for (int64_t i = 0; i < n; i++) {
            sum += (double)x[i] * a[j * n + i];
            size += fabs((double)x[i] * a[j * n + i]);
        }
        wrong += !(fabs((double)found[j] / f - sum) <= (double)(n + 1) * UNIT * size);
    }
    return wrong;
}

/* The same for x A x^T. */
static bool form_is_right(int64_t n, const double *a, const float *x, double found)
{
    double sum = 0.0, size = 0.0;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < n; i++) {
            double term = (double)x[i] * a[j * n + i] * (double)x[j];
            sum += term;
            size += fabs(term);
        }
    return fabs(found - sum) <= (double)(n + 1) * UNIT * size;
}

/* y <- x L */
static void multiply_factor(int64_t n, const double *l, const float *x, double *y)
{
    for (int64_t j = 0; j < n; j++) {
        y[j] = 0.0;
        for (int64_t i = j; i < n; i++) y[j] += (double)x[i] * l[j * n + i];
    }
}

/* y <- x L^-T */
static void solve_factor(int64_t n, const double *l, const float *x, double *y)
{
    for (int64_t j = 0; j < n; j++) {
        y[j] = (double)x[j];
        for (int64_t k = 0; k < j; k++) y[j] -= y[k] * l[k * n + j];
        y[j] /= l[j * n + j];
    }
}

/* ||found L - x L^-T / f^2|| <= c u sqrt(cond H) ||x L^-T|| / f^2. The condition is at most its
 * trace over 0.01; c is 8: rounding errors of n terms add up as their root does. */
static bool solution_is_right(int64_t n, const double *l, double trace, double f, const float *x,
                              const float *found, double form)
{
    double *y = calloc((size_t)n, sizeof *y), *z = calloc((size_t)n, sizeof *z);
    double error = 0.0, size = 0.0, most = 8.0 * UNIT * sqrt(trace / 0.01);
    solve_factor(n, l, x, y);
    multiply_factor(n, l, found, z);
    for (int64_t j = 0; j < n; j++) {
        error += (f * f * z[j] - y[j]) * (f * f * z[j] - y[j]);
        size += y[j] * y[j];
    }
    free(y);
    free(z);
    return sqrt(error) <= most * sqrt(size) && fabs(f * f * form - size) <= most * size;
}

static void check_values(const snrq_process_grid *grid, int64_t n, int64_t count, double f)
{
    const snrq_context *w = grid->context;
    snrq_range own = snrq_share(count, 8, w->size, w->rank);
    size_t rows = (size_t)(own.end - own.begin), cells = rows * (size_t)n + 1;
    double *h = make_gram(n), *a = make_square(n), *l = cholesky(n, h), trace = 0.0;
    float *x = calloc(cells, sizeof *x), *out = calloc(cells, sizeof *out);
    double *forms = calloc(rows + 1, sizeof *forms);
    snrq_matrix *dh = distribute(grid, n, h), *da = distribute(grid, n, a),
                *dl = distribute(grid, n, l);
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) trace += h[i * n + i];
    fill_rows(own, n, x);
    CU_ASSERT_EQUAL(snrq_row_multiply(da, f, (int64_t)rows, x, out), SNRQ_OK);
    for (size_t r = 0; r < rows; r++)
        wrong += wrong_products(n, a, f, x + r * (size_t)n, out + r * (size_t)n);
    CU_ASSERT_EQUAL(snrq_row_forms(dh, f, (int64_t)rows, x, forms), SNRQ_OK);
    for (size_t r = 0; r < rows; r++)
        wrong += !form_is_right(n, h, x + r * (size_t)n, forms[r] / f);
    memcpy(out, x, cells * sizeof *out);
    CU_ASSERT_EQUAL(snrq_row_solve(dl, f, (int64_t)rows, out, forms), SNRQ_OK);
    for (size_t r = 0; r < rows; r++)
        wrong +=
            !solution_is_right(n, l, trace, f, x + r * (size_t)n, out + r * (size_t)n, forms[r]);
    CU_ASSERT_EQUAL(wrong, 0);
    snrq_matrix_destroy(&dh);
    snrq_matrix_destroy(&da);
    snrq_matrix_destroy(&dl);
    free(h);
    free(a);
    free(l);
    free(x);
    free(out);
    free(forms);
}

/* Orders around panels, pieces of depth and strips; rows of whole tiles, and none on some ranks. */
static void rows_agree_with_their_definitions(void)
{
    const int64_t shapes[][2] = {{1, 1},     {5, 3},     {31, 40},  {128, 13},
                                 {129, 200}, {256, 300}, {257, 30}, {450, 20}};
    int size = rank_test_world->size;
    for (int rows = 1; rows <= 2 && rows <= size; rows++) {
        snrq_process_grid *grid = NULL;
        CU_ASSERT_EQUAL(snrq_process_grid_create(rank_test_world, rows, size / rows, &grid),
                        SNRQ_OK);
        for (int k = 0; k < 8; k++)
            check_values(grid, shapes[k][0], shapes[k][1], k % 2 == 0 ? 1.0 : 0x1p-20);
        snrq_process_grid_destroy(&grid);
    }
}

/* ---- bits ---- */

enum { N = 300, COUNT = 230 };

typedef struct outcome {
    float product[COUNT * N], solution[COUNT * N];
    double form[COUNT], reached[COUNT];
} outcome;

/* Works on the rows of this rank of the context, and gathers all. */
static void compute(const snrq_context *context, outcome *out)
{
    static double gathered[COUNT * N];
    snrq_range own = snrq_share(COUNT, 1, context->size, context->rank);
    int64_t rows = own.end - own.begin;
    double *h = make_gram(N), *a = make_square(N), *l = cholesky(N, h);
    float *x = calloc((size_t)(rows * N) + 1, sizeof *x);
    snrq_process_grid *grid = NULL;
    memset(out, 0, sizeof *out);
    CU_ASSERT_EQUAL(snrq_process_grid_create(context, 1, context->size, &grid), SNRQ_OK);
    snrq_matrix *dh = distribute(grid, N, h), *da = distribute(grid, N, a),
                *dl = distribute(grid, N, l);
    fill_rows(own, N, x);
    CU_ASSERT_EQUAL(snrq_row_multiply(da, 1.0, rows, x, out->product + own.begin * N), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_row_forms(dh, 1.0, rows, x, out->form + own.begin), SNRQ_OK);
    memcpy(out->solution + own.begin * N, x, (size_t)(rows * N) * sizeof *x);
    CU_ASSERT_EQUAL(
        snrq_row_solve(dl, 1.0, rows, out->solution + own.begin * N, out->reached + own.begin),
        SNRQ_OK);
    float *tables[] = {out->product, out->solution};
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < COUNT * N; i++) gathered[i] = (double)tables[k][i];
        snrq_collect(context, gathered, COUNT * N);
        for (int64_t i = 0; i < COUNT * N; i++) tables[k][i] = (float)gathered[i];
    }
    snrq_collect(context, out->form, COUNT);
    snrq_collect(context, out->reached, COUNT);
    snrq_matrix_destroy(&dh);
    snrq_matrix_destroy(&da);
    snrq_matrix_destroy(&dl);
    snrq_process_grid_destroy(&grid);
    free(h);
    free(a);
    free(l);
    free(x);
}

static void bits_do_not_depend_on_ranks_and_threads(void)
{
    static outcome expected, found;
    int before = omp_get_max_threads();
    snrq_context *alone = rank_test_group(1);
    omp_set_num_threads(1);
    compute(alone, &expected);
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        compute(rank_test_world, &found);
        CU_ASSERT_EQUAL(memcmp(&found, &expected, sizeof found), 0);
    }
    omp_set_num_threads(before);
    snrq_context_destroy(&alone);
}

static void matrices_must_be_square(void)
{
    snrq_process_grid *grid = NULL;
    snrq_matrix *wide = NULL;
    float x[12] = {0}, out[12];
    snrq_process_grid_create(rank_test_world, 1, 1, &grid);
    snrq_matrix_create(grid, 10, 12, &wide);
    CU_ASSERT_EQUAL(snrq_row_multiply(wide, 1.0, 1, x, out), SNRQ_INTERNAL);
    snrq_matrix_destroy(&wide);
    snrq_process_grid_destroy(&grid);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(rows_agree_with_their_definitions),
        SNRQ_TEST(bits_do_not_depend_on_ranks_and_threads),
        SNRQ_TEST(matrices_must_be_square),
    };
    return rank_test_main(argc, argv, "row_products", tests, sizeof tests / sizeof *tests);
}
