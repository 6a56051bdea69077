/* Rows times distributed matrices; see row_products.h.
 *
 * A panel is WIDTH columns of the matrix, packed for products (product.h) in one of two ways:
 *
 *     down     C [rows, panel] += X [rows, first..n) A [first..n, panel): depth are rows of A, cut
 *              into pieces of SNRQ_PRODUCT_DEPTH
 *     across   C [rows, first..n) += X [rows, panel) A [first..n, panel)^T: depth are the panel's
 *              columns
 *
 * Solving Y L^T = X, and then Z L = Y, goes panel by panel: what other panels contribute is
 * subtracted, and the rest is multiplied by the inverse of the panel's square on the diagonal.
 */
#include "mpi/algebra/row_products.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/blas.h"
#include "mpi/algebra/panel_feed.h"
#include "mpi/algebra/product.h"

enum {
    WIDTH = 2 * SNRQ_PANEL,
    DEPTH = SNRQ_PRODUCT_DEPTH,
    STRIP = SNRQ_PRODUCT_COLUMNS,
    ROWS = SNRQ_PRODUCT_ROWS,
    TILE = 16 * ROWS /* rows that a thread takes at a time, at most */
};

/* A <- A^-1 of a triangular matrix, column-major. LAPACK. */
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
             size_t uplo_length, size_t diag_length);

typedef struct panel {
    snrq_panel_feed *feed; /* of the matrix */
    double factor;         /* what the matrix is multiplied by */
    int64_t n, begin, width;
    double *columns; /* [SNRQ_PANEL][n] as they came */
    double *square;  /* [width][width] of a factor: its square on the diagonal, or the inverse */
    float *packed;   /* [n][WIDTH] */
    float *inverse;  /* [WIDTH][WIDTH] packed */
} panel;

/* This rank's rows, and what is made of them. */
typedef struct work {
    int64_t rows, tile;
    const float *x; /* [rows, n] */
    float *out;     /* [rows, n] may be x */
    double *forms;  /* [rows] */
    float *scratch; /* [threads][TILE][WIDTH] */
} work;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t end_of(const panel *p)
{
    return p->begin + p->width;
}

static int64_t scratch_floats(void)
{
    return (int64_t)omp_get_max_threads() * TILE * WIDTH;
}

int64_t snrq_row_bytes(int64_t n)
{
    int64_t floats = n * WIDTH + WIDTH * WIDTH + scratch_floats();
    return (n * SNRQ_PANEL + WIDTH * WIDTH) * (int64_t)sizeof(double) +
           floats * (int64_t)sizeof(float);
}

/* ---- panels ---- */

/* out [strips of STRIP columns][depth][STRIP] = factor times columns [count], `stride` apart, of
 * `depth` rows. */
static void pack_down(const double *columns, int64_t stride, int64_t count, int64_t depth,
                      double factor, float *out)
{
    float part[STRIP * DEPTH];
    for (int64_t c = 0; c < count; c += STRIP) {
        int64_t width = least(STRIP, count - c);
        for (int64_t k = 0; k < width; k++)
            for (int64_t i = 0; i < depth; i++)
                part[k * DEPTH + i] = (float)(factor * columns[(c + k) * stride + i]);
        snrq_product_pack(part, DEPTH, width, depth, STRIP, out + c * depth);
    }
}

/* out [depth][STRIP] = factor times `count` rows, at most STRIP, of `depth` columns that are
 * `stride` apart. */
static void pack_across(const double *columns, int64_t stride, int64_t count, int64_t depth,
                        double factor, float *out)
{
    for (int64_t i = 0; i < depth; i++) {
        for (int64_t k = 0; k < count; k++)
            out[i * STRIP + k] = (float)(factor * columns[i * stride + k]);
        for (int64_t k = count; k < STRIP; k++) out[i * STRIP + k] = 0.0f;
    }
}

/* Where pieces and strips of a panel are packed. */
static float *packed_down(const panel *p, int64_t piece, int64_t depth, int64_t column)
{
    return p->packed + piece * snrq_product_padded(p->width, STRIP) + column * depth;
}

/* Rows [first, n) of some columns of the panel, from column `from` on, in p->columns: columns are
 * n - above apart and begin with row `above`. */
static void put_down(const panel *p, int64_t from, int64_t width, int64_t above, int64_t first,
                     double sign)
{
    int64_t stride = p->n - above, pieces = (p->n - first + DEPTH - 1) / DEPTH;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++)
        for (int64_t c = 0; c < width; c += STRIP) {
            int64_t row = first + piece * DEPTH, depth = least(DEPTH, p->n - row);
            pack_down(p->columns + c * stride + row - above, stride, least(STRIP, width - c), depth,
                      sign * p->factor, packed_down(p, piece * DEPTH, depth, from + c));
        }
}

static void put_across(const panel *p, int64_t from, int64_t width, int64_t above, int64_t first,
                       double sign)
{
    int64_t stride = p->n - above;
#pragma omp parallel for schedule(static)
    for (int64_t row = first; row < p->n; row += STRIP)
        pack_across(p->columns + row - above, stride, least(STRIP, p->n - row), width,
                    sign * p->factor, p->packed + (row - first) * p->width + from * STRIP);
}

/* Of a symmetric matrix keeps the lower triangle and half of the diagonal, in the columns of the
 * panel from `from` on, which begin with its first row. */
static void halve(const panel *p, int64_t from, int64_t width)
{
    for (int64_t c = 0; c < width; c++) {
        double *column = p->columns + c * (p->n - p->begin);
        memset(column, 0, (size_t)(from + c) * sizeof *column);
        column[from + c] *= 0.5;
    }
}

/* The square on the diagonal, of the columns from `from` on, which begin with the panel's first
 * row. */
static void put_square(const panel *p, int64_t from, int64_t width)
{
    for (int64_t c = 0; c < width; c++)
        for (int64_t i = 0; i < p->width; i++)
            p->square[(from + c) * p->width + i] =
                p->factor * p->columns[c * (p->n - p->begin) + i];
}

static snrq_status invert_square(panel *p)
{
    int n = (int)p->width, info = 0, threads = snrq_blas_begin();
    dtrtri_("L", "N", &n, p->square, &n, &info, 1, 1);
    snrq_blas_end(threads);
    return info == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "dtrtri returned info = %d", info);
}

typedef enum panel_use { MULTIPLY, FORMS, FORWARD, BACKWARD } panel_use;

/* Puts the columns of the panel at `begin` on their way, SNRQ_PANEL of them from column `from` on.
 */
static snrq_status start(const panel *p, int64_t begin, int64_t from, panel_use use)
{
    int64_t width = least(SNRQ_PANEL, least(WIDTH, p->n - begin) - from);
    return snrq_panel_feed_start(p->feed, begin + from, width, use == MULTIPLY ? 0 : begin);
}

/* Brings columns [begin, begin + WIDTH) to this rank, packed for their use, and puts the panel at
 * `next` on its way, if that is not negative. */
static snrq_status load(panel *p, int64_t begin, int64_t next, panel_use use)
{
    p->begin = begin;
    p->width = least(WIDTH, p->n - begin);
    if (!snrq_panel_feed_expects(p->feed, begin)) SNRQ_TRY(start(p, begin, 0, use));
    for (int64_t from = 0; from < p->width; from += SNRQ_PANEL) {
        int64_t width = least(SNRQ_PANEL, p->width - from), above = use == MULTIPLY ? 0 : begin;
        SNRQ_TRY(snrq_panel_feed_take(p->feed, p->columns));
        if (from + width < p->width)
            SNRQ_TRY(start(p, begin, from + width, use));
        else if (next >= 0)
            SNRQ_TRY(start(p, next, 0, use));
        if (use == FORMS) halve(p, from, width);
        if (use == MULTIPLY || use == FORMS)
            put_down(p, from, width, above, above, 1.0);
        else if (use == FORWARD)
            put_across(p, from, width, above, end_of(p), -1.0);
        else
            put_down(p, from, width, above, end_of(p), -1.0);
        if (use == FORWARD || use == BACKWARD) put_square(p, from, width);
    }
    if (use == MULTIPLY || use == FORMS) return SNRQ_OK;
    SNRQ_TRY(invert_square(p));
    if (use == BACKWARD)
        pack_down(p->square, p->width, p->width, p->width, 1.0, p->inverse);
    else
        for (int64_t c = 0; c < p->width; c += STRIP)
            pack_across(p->square + c, p->width, least(STRIP, p->width - c), p->width, 1.0,
                        p->inverse + c * p->width);
    return SNRQ_OK;
}

static void panel_free(panel *p)
{
    snrq_panel_feed_destroy(&p->feed);
    free(p->columns);
    free(p->square);
    free(p->packed);
    free(p->inverse);
}

static snrq_status panel_create(const snrq_matrix *matrix, double factor, panel *p)
{
    size_t n = (size_t)snrq_product_padded(matrix->rows, STRIP);
    *p = (panel){.factor = factor, .n = matrix->rows};
    SNRQ_TRY(snrq_panel_feed_create(matrix, SNRQ_PANEL, sizeof *p->columns, &p->feed));
    SNRQ_TRY(snrq_allocate_scratch(n * SNRQ_PANEL, sizeof(double), "panel", &p->columns));
    SNRQ_TRY(snrq_allocate_scratch(WIDTH * WIDTH, sizeof(double), "panel", &p->square));
    SNRQ_TRY(snrq_allocate_scratch(n * WIDTH, sizeof(float), "packed panel", &p->packed));
    return snrq_allocate_scratch(WIDTH * WIDTH, sizeof(float), "packed panel", &p->inverse);
}

/* ---- a tile: rows [row, row + count) ---- */

/* c [count, panel] (+)= X [count, first..n) times the panel packed down, X where it lies. */
static void run_down(const panel *p, const float *x, int64_t first, int64_t count, bool add,
                     float *c, int64_t ldc)
{
    for (int64_t at = 0; at < p->n - first; at += DEPTH) {
        int64_t depth = least(DEPTH, p->n - first - at);
        snrq_product_run(&(snrq_product){.rows = count,
                                         .columns = p->width,
                                         .depth = depth,
                                         .a = x + first + at,
                                         .b = packed_down(p, at, depth, 0),
                                         .a_stride = ROWS * p->n,
                                         .a_row = p->n,
                                         .a_step = 1,
                                         .b_stride = depth * STRIP,
                                         .add = add || at > 0,
                                         .c = c,
                                         .ldc = ldc});
    }
}

/* c [count, columns] (+)= the tile's part in the panel, which is copied first, times b. */
static void run_across(const panel *p, const float *x, int64_t count, const float *b,
                       int64_t columns, bool add, float *c, float *scratch)
{
    for (int64_t r = 0; r < count; r += ROWS)
        snrq_product_pack(x + r * p->n + p->begin, p->n, least(ROWS, count - r), p->width, ROWS,
                          scratch + r * p->width);
    snrq_product_run(&(snrq_product){.rows = count,
                                     .columns = columns,
                                     .depth = p->width,
                                     .a = scratch,
                                     .b = b,
                                     .a_stride = ROWS * p->width,
                                     .a_row = 1,
                                     .a_step = ROWS,
                                     .b_stride = p->width * STRIP,
                                     .add = add,
                                     .c = c,
                                     .ldc = p->n});
}

static double dot(int64_t n, const float *x, const float *y)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

static void run_tile(const panel *p, panel_use use, const work *w, int64_t row, int64_t count,
                     float *scratch)
{
    const float *x = w->x + row * p->n;
    float *out = w->out == NULL ? NULL : w->out + row * p->n;
    switch (use) {
    case MULTIPLY:
        run_down(p, x, 0, count, false, out + p->begin, p->n);
        return;
    case FORMS:
        run_down(p, x, p->begin, count, false, scratch, WIDTH);
        for (int64_t r = 0; r < count; r++)
            w->forms[row + r] += 2.0 * dot(p->width, x + r * p->n + p->begin, scratch + r * WIDTH);
        return;
    case FORWARD:
        run_across(p, x, count, p->inverse, p->width, false, out + p->begin, scratch);
        for (int64_t r = 0; r < count; r++) {
            const float *y = x + r * p->n + p->begin;
            w->forms[row + r] += dot(p->width, y, y);
        }
        run_across(p, x, count, p->packed, p->n - end_of(p), true, out + end_of(p), scratch);
        return;
    case BACKWARD:
        run_down(p, x, end_of(p), count, true, out + p->begin, p->n);
        run_across(p, x, count, p->inverse, p->width, false, out + p->begin, scratch);
        return;
    }
}

static void run_panel(const panel *p, panel_use use, const work *w)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t row = 0; row < w->rows; row += w->tile) {
        run_tile(p, use, w, row, least(w->tile, w->rows - row),
                 w->scratch + (int64_t)omp_get_thread_num() * TILE * WIDTH);
        if (omp_get_thread_num() == 0) snrq_panel_feed_progress(p->feed);
    }
}

/* ---- all panels ---- */

static snrq_status run_panels(panel *p, panel_use use, const work *w)
{
    int64_t panels = (p->n + WIDTH - 1) / WIDTH;
    for (int64_t k = 0; k < panels; k++) {
        int64_t step = use == BACKWARD ? -WIDTH : WIDTH;
        int64_t begin = use == BACKWARD ? (panels - 1 - k) * WIDTH : k * WIDTH;
        SNRQ_TRY(load(p, begin, k + 1 < panels ? begin + step : -1, use));
        run_panel(p, use, w);
    }
    return SNRQ_OK;
}

/* Takes rows through all panels for one use or two. */
static snrq_status run(const snrq_matrix *matrix, double factor, panel_use first, panel_use last,
                       work *w)
{
    panel p = {0};
    int64_t threads = omp_get_max_threads();
    if (matrix->rows != matrix->columns)
        return snrq_fail(SNRQ_INTERNAL, "rows cannot be multiplied by a %lld x %lld matrix",
                         (long long)matrix->rows, (long long)matrix->columns);
    w->tile = least(TILE, snrq_product_padded((w->rows + threads - 1) / threads, ROWS));
    w->scratch = NULL;
    snrq_status status = panel_create(matrix, factor, &p);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)scratch_floats(), sizeof(float), "tiles of rows",
                                       &w->scratch);
    status = snrq_agree(matrix->grid->context, status);
    if (status == SNRQ_OK) status = run_panels(&p, first, w);
    if (status == SNRQ_OK && last != first) status = run_panels(&p, last, w);
    free(w->scratch);
    panel_free(&p);
    return status;
}

snrq_status snrq_row_multiply(const snrq_matrix *a, double f, int64_t rows, const float *x,
                              float *out)
{
    work w = {.rows = rows, .x = x, .out = out};
    return run(a, f, MULTIPLY, MULTIPLY, &w);
}

snrq_status snrq_row_forms(const snrq_matrix *a, double f, int64_t rows, const float *x,
                           double *forms)
{
    work w = {.rows = rows, .x = x, .forms = forms};
    memset(forms, 0, (size_t)rows * sizeof *forms);
    return run(a, f, FORMS, FORMS, &w);
}

snrq_status snrq_row_solve(const snrq_matrix *l, double f, int64_t rows, float *x, double *forms)
{
    work w = {.rows = rows, .x = x, .out = x, .forms = forms};
    memset(forms, 0, (size_t)rows * sizeof *forms);
    return run(l, f, FORWARD, BACKWARD, &w);
}
