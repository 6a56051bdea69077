/* Cholesky factorization and solve over a process grid; see factor.h.
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

enum { ATTEMPTS = 5 };

static const double MOST_RESIDUAL = 1e-10;
static const double LEAST_SECOND_DAMP = 1e-6; /* damp = 0 cannot be multiplied */
static const int ONE = 1;                     /* the first row or column, for ScaLAPACK */

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

snrq_status snrq_factor_solve_right(const snrq_matrix *l, snrq_matrix *x)
{
    const double one = 1.0;
    SNRQ_TRY(check_shapes(l, x));
    SNRQ_TRY(check_shapes(x, l));
    SNRQ_TRY(snrq_call_check(l->grid->context, SNRQ_HERE, "solves from the right, order %lld",
                             (long long)l->rows));
    if (l->grid->blacs >= 0) {
        int n = (int)l->rows, threads = snrq_blas_begin();
        pdtrsm_("R", "L", "T", "N", &n, &n, &one, l->local, &ONE, &ONE, l->descriptor, x->local,
                &ONE, &ONE, x->descriptor, 1, 1, 1, 1);
        snrq_blas_end(threads);
    }
    return SNRQ_OK;
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

/* l <- the Cholesky factor of h; true on all ranks if ScaLAPACK succeeded. */
static snrq_status factorize(const snrq_matrix *h, snrq_matrix *l, bool *good)
{
    int64_t bad = 0;
    SNRQ_TRY(
        snrq_call_check(h->grid->context, SNRQ_HERE, "factorizes, order %lld", (long long)h->rows));
    if (h->grid->blacs >= 0) {
        int n = (int)h->rows, info = 0, threads = snrq_blas_begin();
        memcpy(l->local, h->local, (size_t)(h->local_rows * h->local_columns) * sizeof *l->local);
        pdpotrf_("L", &n, l->local, &ONE, &ONE, l->descriptor, &info, 1);
        snrq_blas_end(threads);
        bad = info != 0;
    }
    for (int64_t j = 0; j < l->local_columns; j++)
        for (int64_t i = 0; i < l->local_rows; i++) {
            if (snrq_matrix_global_row(l, i) >= snrq_matrix_global_column(l, j)) break;
            l->local[j * l->local_rows + i] = 0;
        }
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
