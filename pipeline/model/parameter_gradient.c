/* Gradients of scales and norms; see parameter_gradient.h.
 *
 * A unit of work is a panel of rows of a module. For each sequence, dW of the panel is made a piece
 * of columns at a time, and weighted by the codes.
 */
#include "pipeline/model/parameter_gradient.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "mpi/algebra/product.h"

enum {
    ROWS = 4 * SNRQ_PRODUCT_ROWS, /* of a panel */
    PIECE = 8 * SNRQ_PRODUCT_COLUMNS,
    DEPTH = SNRQ_PRODUCT_DEPTH
};

/* Room of a thread. */
typedef struct room {
    float x[PIECE * DEPTH]; /* [PIECE / strip][depth][strip] */
    float dw[ROWS * PIECE];
    float *sum; /* [ROWS, groups] of a sequence */
} room;

snrq_status snrq_parameter_gradient_create(const snrq_block *b, snrq_parameter_gradient *out)
{
    const int modules = b->family->modules;
    *out = (snrq_parameter_gradient){.block = b};
    SNRQ_TRY(snrq_allocate((size_t)modules + 1, sizeof *out->first, "scales", &out->first));
    for (int m = 0; m < modules; m++)
        out->first[m + 1] = out->first[m] + b->module[m].rows * b->module[m].groups;
    out->count = out->first[modules];
    for (int v = 0; v < SNRQ_ROUTER; v++) {
        out->norm[v] = out->count;
        out->count += b->family->vector[v].count;
    }
    return snrq_allocate((size_t)out->count, sizeof *out->sum, "gradients of scales", &out->sum);
}

void snrq_parameter_gradient_free(snrq_parameter_gradient *g)
{
    free(g->first);
    free(g->sum);
    *g = (snrq_parameter_gradient){0};
}

/* r->dw [rows, PIECE] <- dy' x, of tokens [begin, end); columns from `count` on are 0. */
static void multiply(const float *dy, int64_t dy_stride, int64_t rows, const float *x,
                     int64_t x_stride, int64_t count, int64_t begin, int64_t end, room *r)
{
    for (int64_t at = begin; at < end; at += DEPTH) {
        int64_t depth = end - at < DEPTH ? end - at : DEPTH;
        for (int64_t k = 0; k < PIECE; k += SNRQ_PRODUCT_COLUMNS)
            for (int64_t i = 0; i < depth; i++) {
                float *to = r->x + k * depth + i * SNRQ_PRODUCT_COLUMNS;
                const float *from = x + (at + i) * x_stride + k;
                for (int64_t c = 0; c < SNRQ_PRODUCT_COLUMNS; c++)
                    to[c] = k + c < count ? from[c] : 0.0f;
            }
        snrq_product_run(&(snrq_product){.rows = rows,
                                         .columns = PIECE,
                                         .depth = depth,
                                         .a = dy + at * dy_stride,
                                         .b = r->x,
                                         .a_stride = SNRQ_PRODUCT_ROWS,
                                         .a_row = 1,
                                         .a_step = dy_stride,
                                         .b_stride = depth * SNRQ_PRODUCT_COLUMNS,
                                         .add = at > begin,
                                         .c = r->dw,
                                         .ldc = PIECE});
    }
}

/* r->sum += what columns [column, column + count) give. */
static void weigh(const snrq_weight *w, int64_t row, int64_t rows, int64_t column, int64_t count,
                  room *r)
{
    for (int64_t i = 0; i < rows; i++) {
        const uint8_t *codes = w->codes + (row + i) * w->columns + column;
        const uint8_t *zeros = w->zeros + (row + i) * w->groups;
        for (int64_t c = 0; c < count; c++) {
            int32_t g = w->g_idx[column + c];
            r->sum[i * w->groups + g] += (float)(codes[c] - zeros[g]) * r->dw[i * PIECE + c];
        }
    }
}

/* A panel of rows of all sequences; dy begins at its first row. */
static bool add_panel(const snrq_weight *w, int64_t row, int64_t rows, const float *x,
                      const float *dy, int64_t stride, int64_t sequences, const int64_t *first,
                      room *r, snrq_fixed *sum)
{
    bool good = true;
    for (int64_t s = 0; s < sequences; s++) {
        if (first[s] == first[s + 1]) continue;
        memset(r->sum, 0, (size_t)(rows * w->groups) * sizeof *r->sum);
        for (int64_t column = 0; column < w->columns; column += PIECE) {
            int64_t count = w->columns - column < PIECE ? w->columns - column : PIECE;
            multiply(dy, stride, rows, x + column, w->columns, count, first[s], first[s + 1], r);
            weigh(w, row, rows, column, count, r);
        }
        for (int64_t i = 0; i < rows * w->groups; i++) good &= snrq_fixed_add(r->sum[i], &sum[i]);
    }
    return good;
}

/* Room for each thread, and for the sums of the module with the most groups. */
static snrq_status make_rooms(const snrq_block *b, const snrq_unit_shape *u, room **out,
                              float **sums)
{
    int64_t groups = 0, threads = omp_get_max_threads();
    for (int m = u->first; m < u->end; m++)
        groups = b->module[m].groups > groups ? b->module[m].groups : groups;
    *out = NULL;
    SNRQ_TRY(
        snrq_allocate_scratch((size_t)(threads * ROWS * groups), sizeof **sums, "scales", sums));
    SNRQ_TRY(snrq_allocate_scratch((size_t)threads, sizeof **out, "gradients of weights", out));
    for (int64_t t = 0; t < threads; t++) (*out)[t].sum = *sums + t * ROWS * groups;
    return SNRQ_OK;
}

snrq_status snrq_scale_gradient_add(snrq_parameter_gradient *gradient, int unit, int64_t sequences,
                                    const int64_t *first, const float *x, const float *dy)
{
    const snrq_block *b = gradient->block;
    const snrq_unit_shape *u = &b->family->unit[unit];
    room *rooms = NULL;
    float *sums = NULL;
    int bad = -1;
    snrq_status status = make_rooms(b, u, &rooms, &sums);
    for (int m = u->first; status == SNRQ_OK && m < u->end; m++) {
        const snrq_weight *w = &b->module[m];
        if (w->groups == 0) continue; /* it is kept */
#pragma omp parallel for schedule(dynamic)
        for (int64_t row = 0; row < w->rows; row += ROWS) {
            int64_t rows = w->rows - row < ROWS ? w->rows - row : ROWS;
            if (add_panel(w, row, rows, x, dy + b->family->module[m].row + row, u->rows, sequences,
                          first, &rooms[omp_get_thread_num()],
                          gradient->sum + gradient->first[m] + row * w->groups))
                continue;
#pragma omp critical(snrq_parameter_gradient)
            if (bad < 0 || m < bad) bad = m;
        }
    }
    free(rooms);
    free(sums);
    if (bad < 0) return status;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: the gradients of its scales are not finite, or larger than can be added "
                     "up",
                     b->family->module[bad].name);
}

/* What the rows [begin, end) give to `sum`. */
static void add_rows(const snrq_normed_rows *n, int64_t begin, int64_t end, double *sum)
{
    memset(sum, 0, (size_t)n->count * sizeof *sum);
    for (int64_t r = begin; r < end; r++)
        for (int64_t k = 0; k < n->heads; k++) {
            const float *h = n->h + r * n->h_stride + k * n->count;
            const float *g = n->g + r * n->g_stride + k * n->count;
            double squares = 0.0;
#pragma omp simd reduction(+ : squares)
            for (int64_t i = 0; i < n->count; i++) squares += (double)h[i] * (double)h[i];
            double scale = 1.0 / sqrt(squares / (double)n->count + n->eps);
            for (int64_t i = 0; i < n->count; i++) sum[i] += scale * (double)h[i] * (double)g[i];
        }
}

snrq_status snrq_norm_gradient_add(const snrq_normed_rows *rows, int64_t sequences,
                                   const int64_t *first, const char *name, snrq_fixed *sum)
{
    double *sums = NULL;
    bool good = true;
    SNRQ_TRY(
        snrq_allocate_scratch((size_t)(sequences * rows->count), sizeof *sums, "norms", &sums));
#pragma omp parallel for schedule(dynamic)
    for (int64_t s = 0; s < sequences; s++)
        add_rows(rows, first[s], first[s + 1], sums + s * rows->count);
    for (int64_t i = 0; i < sequences * rows->count; i++)
        good &= snrq_fixed_add((float)sums[i], &sum[i % rows->count]);
    free(sums);
    if (good) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: its gradient is not finite, or larger than can be added up", name);
}
