/* Cholesky factorization and solve over a process grid; see factor.h.
 *
 * Both go through panels of WIDTH columns, from the left. A panel is brought to every rank, each
 * finishes it for itself, and subtracts what it contributes from the blocks it owns, one block at a
 * time, on all threads. Every call of BLAS has a shape that follows from the block's place in the
 * matrix: the bits depend neither on the grid nor on the number of threads. (Those of ScaLAPACK's
 * pdpotrf and pdtrsm depend on the grid, and they use one thread.)
 *
 * Decisions (is the factor good? which damping next?) are taken from numbers that every rank has in
 * full and alike, so that ranks inside and outside the grid always take the same path.
 */
#include "mpi/algebra/factor.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/blas.h"
#include "mpi/algebra/scalapack.h"

enum { ATTEMPTS = 5, NB = SNRQ_PANEL, WIDTH = 2 * NB };

static const double MOST_RESIDUAL = 1e-10;
static const double LEAST_SECOND_DAMP = 1e-6; /* damp = 0 cannot be multiplied */
static const int ONE = 1;                     /* the first row or column, for ScaLAPACK */

/* Where LAPACK found a minor that is not positive in `info` > 0. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info,
             size_t uplo_length);
void dtrsm_(const char *side, const char *uplo, const char *trans, const char *diag, const int *m,
            const int *n, const double *alpha, const double *a, const int *lda, double *b,
            const int *ldb, size_t side_length, size_t uplo_length, size_t trans_length,
            size_t diag_length);
void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
            const double *alpha, const double *a, const int *lda, const double *b, const int *ldb,
            const double *beta, double *c, const int *ldc, size_t transa_length,
            size_t transb_length);

/* out <- op(A) X on the ranks of the grid; shapes fit. */
static void multiply(const snrq_matrix *a, bool transpose, const snrq_matrix *x, snrq_matrix *out)
{
    if (a->grid->blacs < 0) return;
    int n = (int)a->rows, m = (int)x->columns, threads = snrq_blas_begin();
    double one = 1, zero = 0;
    pdgemm_(transpose ? "T" : "N", "N", &n, &m, &n, &one, a->local, &ONE, &ONE, a->descriptor,
            x->local, &ONE, &ONE, x->descriptor, &zero, out->local, &ONE, &ONE, out->descriptor);
    snrq_blas_end(threads);
}

static snrq_status check_shapes(const snrq_matrix *a, const snrq_matrix *x)
{
    if (a->rows == a->columns && a->rows == x->rows && a->grid == x->grid) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL,
                     "a %lld x %lld matrix does not go with one of %lld x %lld, or "
                     "their process grids differ",
                     (long long)a->rows, (long long)a->columns, (long long)x->rows,
                     (long long)x->columns);
}

/* ---- panel by panel ---- */

/* Columns [begin, begin + width) of a matrix, from row `begin` or from the top on. */
typedef struct panel {
    int64_t begin, width, first_row, rows;
    double *data; /* [width][rows] column-major; owned */
} panel;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static snrq_status panel_create(const snrq_matrix *m, panel *p)
{
    return snrq_agree(m->grid->context,
                      snrq_allocate_scratch((size_t)m->rows * WIDTH, sizeof *p->data,
                                            "panel of a matrix", &p->data));
}

static snrq_status panel_bring(const snrq_matrix *m, int64_t begin, int64_t first_row, panel *p)
{
    p->begin = begin;
    p->width = least(WIDTH, m->columns - begin);
    p->first_row = first_row;
    p->rows = m->rows - first_row;
    return snrq_matrix_broadcast_panel(m, begin, p->width, first_row, p->data);
}

/* The panel's rows from `row` on, in pieces of NB: <- rows times the square's inverse, transposed.
 * square: the triangle on the diagonal, with leading dimension ld. */
static void solve_pieces(const panel *p, int64_t row, const double *square, int64_t ld)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t r = row; r < p->rows; r += NB) {
        const double one = 1.0;
        int m = (int)least(NB, p->rows - r), n = (int)p->width, lda = (int)ld, ldb = (int)p->rows;
        int before = snrq_blas_begin();
        dtrsm_("R", "L", "T", "N", &m, &n, &one, square, &lda, p->data + r, &ldb, 1, 1, 1, 1);
        snrq_blas_end(before);
    }
}

/* One block of `a`, local indices: <- itself minus rows of `left` times rows of `right`,
 * transposed. */
static void subtract_block(snrq_matrix *a, const panel *left, const panel *right, int64_t i,
                           int64_t j)
{
    const double one = 1.0, minus_one = -1.0;
    int64_t row = snrq_matrix_global_row(a, i), column = snrq_matrix_global_column(a, j);
    int m = (int)least(NB, a->local_rows - i), n = (int)least(NB, a->local_columns - j);
    int k = (int)left->width, ldl = (int)left->rows, ldr = (int)right->rows;
    int ldc = (int)a->local_rows, threads = snrq_blas_begin();
    dgemm_("N", "T", &m, &n, &k, &minus_one, left->data + (row - left->first_row), &ldl,
           right->data + (column - right->first_row), &ldr, &one, a->local + j * a->local_rows + i,
           &ldc, 1, 1);
    snrq_blas_end(threads);
}

/* a <- a - left right^T in the columns behind the panels, of which `right` is of L; of a matrix
 * that is factorized only on and below the diagonal. */
static void subtract(snrq_matrix *a, const panel *left, const panel *right, bool lower)
{
    int64_t end = right->begin + right->width;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t j = 0; j < a->local_columns; j += NB)
        for (int64_t i = 0; i < a->local_rows; i += NB) {
            int64_t column = snrq_matrix_global_column(a, j);
            if (column >= end && (!lower || snrq_matrix_global_row(a, i) >= column))
                subtract_block(a, left, right, i, j);
        }
}

/* Zero above the diagonal of the square. */
static void clear_above(const panel *p)
{
    for (int64_t j = 1; j < p->width; j++)
        memset(p->data + j * p->rows, 0, (size_t)j * sizeof *p->data);
}

/* L <- its Cholesky factor; *bad: a panel was not positive definite. */
static snrq_status factorize_panels(snrq_matrix *l, panel *p, int64_t *bad)
{
    for (int64_t begin = 0; begin < l->columns; begin += WIDTH) {
        SNRQ_TRY(panel_bring(l, begin, begin, p));
        int n = (int)p->width, ld = (int)p->rows, info = 0, threads = snrq_blas_begin();
        dpotrf_("L", &n, p->data, &ld, &info, 1);
        snrq_blas_end(threads);
        *bad |= info != 0;
        clear_above(p);
        solve_pieces(p, p->width, p->data, p->rows);
        snrq_matrix_set_panel(l, begin, p->width, begin, p->data);
        subtract(l, p, p, true);
    }
    return SNRQ_OK;
}

static snrq_status solve_panels(const snrq_matrix *l, snrq_matrix *x, panel *of_l, panel *of_x)
{
    for (int64_t begin = 0; begin < l->columns; begin += WIDTH) {
        SNRQ_TRY(panel_bring(l, begin, begin, of_l));
        SNRQ_TRY(panel_bring(x, begin, 0, of_x));
        solve_pieces(of_x, 0, of_l->data, of_l->rows);
        snrq_matrix_set_panel(x, begin, of_x->width, 0, of_x->data);
        subtract(x, of_x, of_l, false);
    }
    return SNRQ_OK;
}

snrq_status snrq_factor_solve_right(const snrq_matrix *l, snrq_matrix *x)
{
    panel of_l = {0}, of_x = {0};
    SNRQ_TRY(check_shapes(l, x));
    SNRQ_TRY(check_shapes(x, l));
    snrq_status status = panel_create(l, &of_l);
    if (status == SNRQ_OK) status = panel_create(x, &of_x);
    if (status == SNRQ_OK) status = solve_panels(l, x, &of_l, &of_x);
    free(of_l.data);
    free(of_x.data);
    return status;
}

int64_t snrq_factor_bytes(int64_t n)
{
    return 3 * n * WIDTH * (int64_t)sizeof(double);
}

/* ---- the factorization ---- */

/* The local element of the diagonal at global index g, or NULL if another rank has it. */
static double *diagonal(snrq_matrix *h, int64_t g)
{
    int64_t row = g / SNRQ_PANEL, column = row;
    const snrq_process_grid *grid = h->grid;
    if (grid->blacs < 0 || row % grid->rows != grid->row || column % grid->columns != grid->column)
        return NULL;
    return h->local + (column / grid->columns * SNRQ_PANEL + g % SNRQ_PANEL) * h->local_rows +
           row / grid->rows * SNRQ_PANEL + g % SNRQ_PANEL;
}

/* l <- the blocks of h on and below the diagonal, and zero above them. */
static void copy_lower(const snrq_matrix *h, snrq_matrix *l)
{
#pragma omp parallel for schedule(dynamic, NB)
    for (int64_t j = 0; j < l->local_columns; j++)
        for (int64_t i = 0; i < l->local_rows; i += NB) {
            int64_t at = j * l->local_rows + i;
            size_t bytes = (size_t)least(NB, l->local_rows - i) * sizeof *l->local;
            if (snrq_matrix_global_row(l, i) / NB >= snrq_matrix_global_column(l, j) / NB)
                memcpy(l->local + at, h->local + at, bytes);
            else
                memset(l->local + at, 0, bytes);
        }
}

/* l <- the Cholesky factor of h; *good on all ranks if there is one. */
static snrq_status factorize(const snrq_matrix *h, snrq_matrix *l, bool *good)
{
    panel p = {0};
    int64_t bad = 0;
    SNRQ_TRY(panel_create(l, &p));
    copy_lower(h, l);
    snrq_status status = factorize_panels(l, &p, &bad);
    free(p.data);
    SNRQ_TRY(status);
    SNRQ_TRY(snrq_sum_int64(h->grid->context, &bad, 1));
    *good = bad == 0;
    return SNRQ_OK;
}

/* Columns that the residual needs, and one of them gathered on every rank. */
typedef struct probe {
    snrq_matrix *x, *hx, *ltx, *llx; /* [n, 1]: x, H x, L^T x, L (L^T x) */
    double *expected, *found;        /* [n] H x and L (L^T x) */
} probe;

static void probe_free(probe *p)
{
    snrq_matrix_destroy(&p->x);
    snrq_matrix_destroy(&p->hx);
    snrq_matrix_destroy(&p->ltx);
    snrq_matrix_destroy(&p->llx);
    free(p->expected);
    free(p->found);
}

/* Items in [-1, 1) from a linear congruential generator with a fixed start. */
static void fill_pseudo_random(int64_t n, double *x)
{
    uint64_t state = 0x5eed;
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (double)(state >> 11) * 0x1p-52 - 1;
    }
}

static snrq_status probe_create(const snrq_matrix *h, probe *p)
{
    snrq_matrix **all[] = {&p->x, &p->hx, &p->ltx, &p->llx};
    for (int k = 0; k < 4; k++) SNRQ_TRY(snrq_matrix_create(h->grid, h->rows, 1, all[k]));
    snrq_status status = snrq_allocate((size_t)h->rows, sizeof(double), "probe", &p->expected);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)h->rows, sizeof(double), "probe", &p->found);
    SNRQ_TRY(snrq_agree(h->grid->context, status));
    fill_pseudo_random(h->rows, p->found);
    snrq_matrix_set_panel(p->x, 0, 1, 0, p->found);
    return SNRQ_OK;
}

/* residual <- ||L L^T x - H x|| / ||H x||, the same on all ranks. */
static snrq_status measure(const snrq_matrix *h, const snrq_matrix *l, probe *p, double *residual)
{
    double error = 0, norm = 0;
    multiply(h, false, p->x, p->hx);
    multiply(l, true, p->x, p->ltx);
    multiply(l, false, p->ltx, p->llx);
    SNRQ_TRY(snrq_matrix_broadcast_panel(p->hx, 0, 1, 0, p->expected));
    SNRQ_TRY(snrq_matrix_broadcast_panel(p->llx, 0, 1, 0, p->found));
    for (int64_t i = 0; i < h->rows; i++) {
        double difference = p->found[i] - p->expected[i];
        error += difference * difference;
        norm += p->expected[i] * p->expected[i];
    }
    *residual = sqrt(error / norm);
    return SNRQ_OK;
}

/* Tries one damping after the other; `original` [n] is the diagonal of H without any. */
static snrq_status climb(snrq_matrix *h, double damp, const double *original, snrq_matrix *l,
                         probe *p, snrq_factor_report *report)
{
    double mean = 0;
    for (int64_t i = 0; i < h->rows; i++) mean += original[i];
    mean /= (double)h->rows;
    for (int attempt = 1; attempt <= ATTEMPTS && isfinite(mean); attempt++) {
        bool good = false;
        *report = (snrq_factor_report){damp * mean, NAN, attempt};
        for (int64_t i = 0; i < h->rows; i++) {
            double *element = diagonal(h, i);
            if (element != NULL) *element = original[i] + report->damping;
        }
        SNRQ_TRY(factorize(h, l, &good));
        if (good) SNRQ_TRY(measure(h, l, p, &report->residual));
        if (report->residual <= MOST_RESIDUAL) return SNRQ_OK;
        damp = fmax(10 * damp, LEAST_SECOND_DAMP);
    }
    return snrq_fail(SNRQ_BAD_DATA,
                     "the Gram matrix (order %lld, mean diagonal %g) is not positive definite even "
                     "with %g added to its diagonal: check the calibration data, or raise --damp",
                     (long long)h->rows, mean, report->damping);
}

snrq_status snrq_factor_cholesky(snrq_matrix *h, double damp, snrq_matrix *l,
                                 snrq_factor_report *report)
{
    const snrq_context *context = h->grid->context;
    double *original = NULL;
    probe p = {0};
    *report = (snrq_factor_report){0, NAN, 0};
    SNRQ_TRY(check_shapes(h, l));
    SNRQ_TRY(check_shapes(l, h));
    snrq_status status = snrq_agree(
        context, snrq_allocate((size_t)h->rows, sizeof *original, "diagonal", &original));
    for (int64_t i = 0; i < h->rows && status == SNRQ_OK; i++) {
        const double *element = diagonal(h, i);
        if (element != NULL) original[i] = *element;
    }
    if (status == SNRQ_OK) status = snrq_collect(context, original, h->rows);
    if (status == SNRQ_OK) status = probe_create(h, &p);
    if (status == SNRQ_OK) status = climb(h, damp, original, l, &p, report);
    probe_free(&p);
    free(original);
    return status;
}
