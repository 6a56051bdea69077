/* Linear modules; see linear.h.
 *
 * A unit of work is a panel of outputs of one module for a range of tokens. The sums of an output
 * are cut into pieces of SNRQ_PRODUCT_DEPTH inputs, for each of which the panel is widened anew
 * into memory that stays in the cache.
 */
#include "pipeline/model/linear.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/product.h"
#include "mpi/algebra/weight_format.h"

enum {
    ROWS = SNRQ_PRODUCT_ROWS,
    COLUMNS = SNRQ_PRODUCT_COLUMNS,
    PANEL_ROWS = 8 * COLUMNS, /* outputs: 384 KiB of widened weights */
    PANEL_FLOATS = PANEL_ROWS * SNRQ_PRODUCT_DEPTH,
    WIDEN_COLUMNS = 64,       /* inputs of a strip of outputs that are widened at a time */
    LEAST_TOKENS = 32 * ROWS, /* of a unit; fewer, and widening would cost too much */
    UNITS_PER_THREAD = 8,     /* at least, if tokens allow: threads are evenly loaded */
    RUN = 16                  /* inputs, which mostly belong to one group */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* RUN inputs, or what is left of them. */
static inline void widen_run(const uint8_t *codes, const int32_t *group, const float *scales,
                             const uint8_t *zeros, int64_t count, float *out)
{
    int same = count == RUN;
    for (int64_t c = 0; c < count; c++) same &= group[c] == group[0];
    float scale = scales[group[0]];
    int zero = zeros[group[0]];
    if (same)
        for (int64_t c = 0; c < RUN; c++) out[c] = scale * (float)(codes[c] - zero);
    else
        for (int64_t c = 0; c < count; c++)
            out[c] = scales[group[c]] * (float)(codes[c] - zeros[group[c]]);
}

/* out [count] = row `row` from `column` on, as fp32. */
static void widen(const snrq_weight *w, int64_t row, int64_t column, int64_t count, float *out)
{
    int64_t at = row * w->columns + column;
    if (w->dense != NULL) {
        snrq_widen(w->dtype, w->dense + (size_t)at * snrq_dtype_size(w->dtype), (size_t)count, out);
        return;
    }
    if (w->minima != NULL || w->levels != NULL) {
        for (int64_t c = 0; c < count; c++) {
            int64_t g = row * w->groups + w->g_idx[column + c];
            out[c] = snrq_code_value(w->levels, w->scales[g], w->zeros[g],
                                     w->minima != NULL ? w->minima[g] : 0.0f, w->codes[at + c]);
        }
        return;
    }
    for (int64_t c = 0; c < count; c += RUN)
        widen_run(w->codes + at + c, w->g_idx + column + c, w->scales + row * w->groups,
                  w->zeros + row * w->groups, least(RUN, count - c), out + c);
}

void snrq_weight_widen(const snrq_weight *w, int64_t row, int64_t count, float *out)
{
    for (int64_t r = 0; r < count; r++) widen(w, row + r, 0, w->columns, out + r * w->columns);
}

/* out [strips of rows][depth][COLUMNS] = inputs [column, column + depth) of rows [row, row + rows).
 */
static void widen_panel(const snrq_weight *w, int64_t row, int64_t rows, int64_t column,
                        int64_t depth, float *out)
{
    float part[COLUMNS * WIDEN_COLUMNS];
    for (int64_t strip = 0; strip < rows; strip += COLUMNS)
        for (int64_t c = 0; c < depth; c += WIDEN_COLUMNS) {
            int64_t count = least(COLUMNS, rows - strip), width = least(WIDEN_COLUMNS, depth - c);
            for (int64_t r = 0; r < count; r++)
                widen(w, row + strip + r, column + c, width, part + r * WIDEN_COLUMNS);
            snrq_product_pack(part, WIDEN_COLUMNS, count, width, COLUMNS,
                              out + strip * depth + c * COLUMNS);
        }
}

/* y [tokens, rows] for the panel of rows from `row` on. */
static void apply_panel(const snrq_weight *w, int64_t row, const float *x, int64_t tokens,
                        float *panel, float *y, int64_t stride)
{
    int64_t rows = least(PANEL_ROWS, w->rows - row);
    for (int64_t column = 0; column < w->columns; column += SNRQ_PRODUCT_DEPTH) {
        int64_t depth = least(SNRQ_PRODUCT_DEPTH, w->columns - column);
        widen_panel(w, row, rows, column, depth, panel);
        snrq_product_run(&(snrq_product){.rows = tokens,
                                         .columns = rows,
                                         .depth = depth,
                                         .a = x + column,
                                         .b = panel,
                                         .a_stride = ROWS * w->columns,
                                         .a_row = w->columns,
                                         .a_step = 1,
                                         .b_stride = depth * COLUMNS,
                                         .add = column > 0,
                                         .c = y,
                                         .ldc = stride});
    }
}

static int64_t panels_of(const snrq_weight *w)
{
    return (w->rows + PANEL_ROWS - 1) / PANEL_ROWS;
}

/* Finds the weight of a panel counted over all of them; *row and *before are the panel's first row
 * in it and the rows of the weights before it. */
static const snrq_weight *find_panel(const snrq_weight *w, int64_t panel, int64_t *row,
                                     int64_t *before)
{
    for (*before = 0; panel >= panels_of(w); w++) {
        panel -= panels_of(w);
        *before += w->rows;
    }
    *row = panel * PANEL_ROWS;
    return w;
}

/* Tokens of a unit of work, of which each panel has as many as it takes to load the threads. */
static int64_t range_of(int64_t panels, int64_t tokens)
{
    int64_t ranges = (UNITS_PER_THREAD * omp_get_max_threads() + panels - 1) / panels;
    ranges = least(ranges, (tokens + LEAST_TOKENS - 1) / LEAST_TOKENS);
    if (ranges < 1) ranges = 1;
    return snrq_product_padded(tokens > 0 ? (tokens + ranges - 1) / ranges : 1, ROWS);
}

/* A panel for each thread. */
static snrq_status allocate_panels(float **out)
{
    return snrq_allocate_scratch((size_t)omp_get_max_threads() * PANEL_FLOATS, sizeof **out,
                                 "weight panels", out);
}

snrq_status snrq_linear_apply(const snrq_weight *weights, int count, const float *x, int64_t tokens,
                              float *y, int64_t stride)
{
    int64_t columns = weights[0].columns, panels = 0;
    for (int m = 0; m < count; m++) panels += panels_of(&weights[m]);
    int64_t range = range_of(panels, tokens), ranges = (tokens + range - 1) / range;
    float *scratch;
    SNRQ_TRY(allocate_panels(&scratch));
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < panels * ranges; unit++) {
        int64_t row, before, first = unit % ranges * range;
        const snrq_weight *w = find_panel(weights, unit / ranges, &row, &before);
        apply_panel(w, row, x + first * columns, least(range, tokens - first),
                    scratch + omp_get_thread_num() * PANEL_FLOATS,
                    y + first * stride + before + row, stride);
    }
    free(scratch);
    return SNRQ_OK;
}

/* ---- backward ---- */

/* out [strips of columns][depth][COLUMNS] = inputs [column, column + columns) of rows [row, row +
 * depth); columns beyond are 0. */
static void widen_transposed(const snrq_weight *w, int64_t row, int64_t depth, int64_t column,
                             int64_t columns, float *out)
{
    float part[PANEL_ROWS] = {0};
    for (int64_t r = 0; r < depth; r++) {
        widen(w, row + r, column, columns, part);
        for (int64_t strip = 0; strip < columns; strip += COLUMNS)
            memcpy(out + strip * depth + r * COLUMNS, part + strip, COLUMNS * sizeof *out);
    }
}

/* gx [tokens, columns from `column` on] of all weights. */
static void backward_panel(const snrq_weight *weights, int count, int64_t column, const float *gy,
                           int64_t tokens, int64_t stride, float *panel, float *gx)
{
    int64_t all = weights[0].columns, columns = least(PANEL_ROWS, all - column), before = 0;
    for (int m = 0; m < count; before += weights[m++].rows)
        for (int64_t row = 0; row < weights[m].rows; row += SNRQ_PRODUCT_DEPTH) {
            int64_t depth = least(SNRQ_PRODUCT_DEPTH, weights[m].rows - row);
            widen_transposed(&weights[m], row, depth, column, columns, panel);
            snrq_product_run(&(snrq_product){.rows = tokens,
                                             .columns = columns,
                                             .depth = depth,
                                             .a = gy + before + row,
                                             .b = panel,
                                             .a_stride = ROWS * stride,
                                             .a_row = stride,
                                             .a_step = 1,
                                             .b_stride = depth * COLUMNS,
                                             .add = before + row > 0,
                                             .c = gx + column,
                                             .ldc = all});
        }
}

snrq_status snrq_linear_backward(const snrq_weight *weights, int count, const float *gy,
                                 int64_t tokens, int64_t stride, float *gx)
{
    int64_t columns = weights[0].columns, panels = (columns + PANEL_ROWS - 1) / PANEL_ROWS;
    int64_t range = range_of(panels, tokens), ranges = (tokens + range - 1) / range;
    float *scratch;
    SNRQ_TRY(allocate_panels(&scratch));
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < panels * ranges; unit++) {
        int64_t first = unit % ranges * range;
        backward_panel(weights, count, unit / ranges * PANEL_ROWS, gy + first * stride,
                       least(range, tokens - first), stride,
                       scratch + omp_get_thread_num() * PANEL_FLOATS, gx + first * columns);
    }
    free(scratch);
    return SNRQ_OK;
}
