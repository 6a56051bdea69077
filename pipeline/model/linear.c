/* Linear modules; see linear.h.
 *
 * A unit of work is a panel of outputs of one module for a range of tokens. The sums of an output
 * are cut into pieces of SNRQ_PRODUCT_DEPTH inputs, for each of which the panel is widened anew
 * into memory that stays in the cache.
 */
#include "pipeline/model/linear.h"

#include <omp.h>
#include <stdlib.h>

#include "mpi/algebra/product.h"

enum {
    ROWS = SNRQ_PRODUCT_ROWS,
    COLUMNS = SNRQ_PRODUCT_COLUMNS,
    PANEL_ROWS = 8 * COLUMNS, /* outputs: 384 KiB of widened weights */
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

snrq_status snrq_linear_apply(const snrq_weight *weights, int count, const float *x, int64_t tokens,
                              float *y, int64_t stride)
{
    int64_t columns = weights[0].columns, panels = 0, threads = omp_get_max_threads();
    const int64_t panel_floats = PANEL_ROWS * SNRQ_PRODUCT_DEPTH;
    for (int m = 0; m < count; m++) panels += panels_of(&weights[m]);
    int64_t ranges = (UNITS_PER_THREAD * threads + panels - 1) / panels;
    ranges = least(ranges, (tokens + LEAST_TOKENS - 1) / LEAST_TOKENS);
    int64_t range = snrq_product_padded((tokens + ranges - 1) / (ranges > 0 ? ranges : 1), ROWS);
    float *scratch;
    SNRQ_TRY(snrq_allocate_scratch((size_t)(threads * panel_floats), sizeof *scratch,
                                   "weight panels", &scratch));
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < panels * ranges; unit++) {
        int64_t row, before, first = unit % ranges * range;
        const snrq_weight *w = find_panel(weights, unit / ranges, &row, &before);
        if (first < tokens)
            apply_panel(w, row, x + first * columns, least(range, tokens - first),
                        scratch + omp_get_thread_num() * panel_floats,
                        y + first * stride + before + row, stride);
    }
    free(scratch);
    return SNRQ_OK;
}
