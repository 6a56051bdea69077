/* Least-squares scales; see regrid.h for the symbols. */
#include "pipeline/rounding/regrid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/blas.h"

/* The systems of all rows of this rank, and a panel of L with its rows group by group. */
typedef struct systems {
    const snrq_rows *rows;
    int64_t groups;
    double *a;      /* [rows, groups, groups] lower triangles */
    double *b;      /* [rows, groups] */
    double *buffer; /* [columns, SNRQ_PANEL] as broadcast */
    float *l;       /* [columns, SNRQ_PANEL] rows of the panel in the order of groups->members */
    int64_t width;  /* of the panel */
} systems;

/* Brings columns [begin, begin + width) of L to this rank; l[i][c] = 0 above the diagonal. */
static snrq_status load_panel(const snrq_matrix *l, int64_t begin, systems *s)
{
    const snrq_groups *groups = s->rows->groups;
    int64_t n = l->columns;
    s->width = n - begin < SNRQ_PANEL ? n - begin : SNRQ_PANEL;
    SNRQ_TRY(snrq_matrix_broadcast_panel(l, begin, s->width, 0, s->buffer));
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < s->width; c++)
            s->l[i * SNRQ_PANEL + c] = (float)s->buffer[c * n + groups->members[i]];
    return SNRQ_OK;
}

/* steps, target [SNRQ_TILE_ROWS, columns]: code - zero and R of a tile, columns group by group. */
static void gather_tile(const snrq_rows *r, int64_t row, float *steps, float *target)
{
    int64_t n = r->columns;
    for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++)
        for (int64_t j = 0; j < n; j++) {
            int64_t k = r->groups->members[j], at = (row + i) * n + k;
            int64_t g = (row + i) * r->groups->count + r->groups->of_position[k];
            steps[i * n + j] = (float)(r->codes[at] - r->zeros[g]);
            target[i * n + j] = r->target[at];
        }
}

static double dot(int64_t n, const float *x, const float *y)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

/* Adds a panel's share to the systems of a tile. t [groups, tile, SNRQ_PANEL], u [tile, SNRQ_PANEL]
 * are scratch. */
static void add_tile(systems *s, int64_t row, const float *steps, const float *target, float *t,
                     float *u)
{
    int64_t n = s->rows->columns, count = s->groups, area = SNRQ_TILE_ROWS * SNRQ_PANEL;
    const int64_t *first = s->rows->groups->first;
    snrq_sgemm(false, false, SNRQ_TILE_ROWS, s->width, n, 1.0f, target, n, s->l, SNRQ_PANEL, 0.0f,
               u, SNRQ_PANEL);
    for (int64_t g = 0; g < count; g++)
        snrq_sgemm(false, false, SNRQ_TILE_ROWS, s->width, first[g + 1] - first[g], 1.0f,
                   steps + first[g], n, s->l + first[g] * SNRQ_PANEL, SNRQ_PANEL, 0.0f,
                   t + g * area, SNRQ_PANEL);
    for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++) {
        double *a = s->a + (row + i) * count * count, *b = s->b + (row + i) * count;
        for (int64_t g = 0; g < count; g++) {
            const float *tg = t + g * area + i * SNRQ_PANEL;
            b[g] += dot(s->width, tg, u + i * SNRQ_PANEL);
            for (int64_t h = 0; h <= g; h++)
                a[g * count + h] += dot(s->width, tg, t + h * area + i * SNRQ_PANEL);
        }
    }
}

static snrq_status add_panel(systems *s)
{
    snrq_status worst = SNRQ_OK;
    size_t tile = (size_t)(SNRQ_TILE_ROWS * s->rows->columns), area = SNRQ_TILE_ROWS * SNRQ_PANEL;
    size_t items = 2 * tile + (size_t)(s->groups + 1) * area;
#pragma omp parallel
    {
        float *scratch = NULL;
        snrq_status status = snrq_allocate(items, sizeof *scratch, "scale systems", &scratch);
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < s->rows->rows; row += SNRQ_TILE_ROWS) {
            if (status != SNRQ_OK) continue;
            gather_tile(s->rows, row, scratch, scratch + tile);
            add_tile(s, row, scratch, scratch + tile, scratch + 2 * tile,
                     scratch + 2 * tile + (size_t)s->groups * area);
        }
#pragma omp critical
        if (status != SNRQ_OK) worst = status;
        free(scratch);
    }
    return worst == SNRQ_OK ? SNRQ_OK : snrq_fail(worst, "least-squares scales: out of memory");
}

/* Solves A x = b by Cholesky; A's lower triangle and b are used up, x replaces b. False if A is not
 * positive definite. */
static bool solve(int64_t n, double *a, double *b)
{
    for (int64_t j = 0; j < n; j++) {
        for (int64_t k = 0; k < j; k++) a[j * n + j] -= a[j * n + k] * a[j * n + k];
        if (!(a[j * n + j] > 0.0)) return false;
        a[j * n + j] = sqrt(a[j * n + j]);
        for (int64_t i = j + 1; i < n; i++) {
            for (int64_t k = 0; k < j; k++) a[i * n + j] -= a[i * n + k] * a[j * n + k];
            a[i * n + j] /= a[j * n + j];
        }
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < i; k++) b[i] -= a[i * n + k] * b[k];
        b[i] /= a[i * n + i];
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        for (int64_t k = i + 1; k < n; k++) b[i] -= a[k * n + i] * b[k];
        b[i] /= a[i * n + i];
    }
    return true;
}

static void solve_row(systems *s, snrq_dtype scale_type, int64_t row, float *scales)
{
    int64_t count = s->groups;
    double *a = s->a + row * count * count, *b = s->b + row * count;
    const float *old = s->rows->scales + row * count;
    memcpy(scales, old, (size_t)count * sizeof *scales);
    for (int64_t g = 0; g < count; g++)
        if (a[g * count + g] == 0.0) { /* no value but zero: any scale will do, the old one stays */
            a[g * count + g] = 1.0;
            b[g] = (double)old[g];
        }
    if (!solve(count, a, b)) return;
    for (int64_t g = 0; g < count; g++) {
        float scale = snrq_round_to(scale_type, (float)b[g]);
        if (!(scale > 0.0f) || !isfinite(scale)) {
            memcpy(scales, old, (size_t)count * sizeof *scales);
            return;
        }
        scales[g] = scale;
    }
}

snrq_status snrq_regrid(const snrq_matrix *l, snrq_dtype scale_type, const snrq_rows *rows,
                        float *scales)
{
    size_t m = (size_t)rows->rows, g = (size_t)rows->groups->count,
           panel = (size_t)l->columns * SNRQ_PANEL;
    systems s = {.rows = rows, .groups = rows->groups->count};
    snrq_status status = snrq_allocate(m * g * g, sizeof *s.a, "scale systems", &s.a);
    if (status == SNRQ_OK) status = snrq_allocate(m * g, sizeof *s.b, "scale systems", &s.b);
    if (status == SNRQ_OK) status = snrq_allocate(panel, sizeof *s.buffer, "panel of L", &s.buffer);
    if (status == SNRQ_OK) status = snrq_allocate(panel, sizeof *s.l, "panel of L", &s.l);
    status = snrq_agree(l->grid->context, status);
    for (int64_t begin = 0; status == SNRQ_OK && begin < l->columns; begin += SNRQ_PANEL) {
        status = load_panel(l, begin, &s);
        if (status == SNRQ_OK) status = snrq_agree(l->grid->context, add_panel(&s));
    }
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows->rows; r++)
        if (status == SNRQ_OK) solve_row(&s, scale_type, r, scales + r * rows->groups->count);
    free(s.a);
    free(s.b);
    free(s.buffer);
    free(s.l);
    return status;
}
