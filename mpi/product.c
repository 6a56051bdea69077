/* Products of packed operands; see product.h.
 *
 * A tile of C, one strip of A by one of B, is summed up in registers: 24 vectors of 512 bits where
 * the machine has 32 of them, else a part of the tile at a time.
 */
#include "mpi/product.h"

#include <string.h>

#include "mpi/lanes.h"

enum {
    ROWS = SNRQ_PRODUCT_ROWS,
    COLUMNS = SNRQ_PRODUCT_COLUMNS,
    VECTORS = COLUMNS / SNRQ_LANES,
    LAST = ROWS % SNRQ_LANES /* rows of a strip of A in its last vector */
};

/* c [rows][vectors] of a tile = the sums over depth, added to what is there if `add`. */
static inline __attribute__((always_inline)) void sum_part(int rows, int vectors, int64_t depth,
                                                           const float *a, int64_t step,
                                                           const float *b, bool add, float *c,
                                                           int64_t ldc)
{
    snrq_lanes sum[ROWS * VECTORS] = {0};
    for (int64_t i = 0; i < depth; i++) {
        snrq_lanes column[VECTORS];
        for (int v = 0; v < vectors; v++)
            column[v] = snrq_lanes_load(b + i * COLUMNS + v * SNRQ_LANES);
        for (int r = 0; r < rows; r++) {
            snrq_lanes row = snrq_lanes_all(a[i * step + r]);
            for (int v = 0; v < vectors; v++)
                sum[r * vectors + v] = snrq_lanes_madd(row, column[v], sum[r * vectors + v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            float *to = c + r * ldc + v * SNRQ_LANES;
            snrq_lanes x = sum[r * vectors + v];
            snrq_lanes_store(to, add ? snrq_lanes_load(to) + x : x);
        }
}

static void sum_tile(int64_t depth, const float *a, int64_t step, const float *b, bool add,
                     float *c, int64_t ldc)
{
#ifdef __AVX512F__
    if (step == ROWS)
        sum_part(ROWS, VECTORS, depth, a, ROWS, b, add, c, ldc);
    else
        sum_part(ROWS, VECTORS, depth, a, step, b, add, c, ldc);
#else
    for (int r = 0; r < ROWS; r += ROWS / 2)
        for (int v = 0; v < COLUMNS; v += 2 * SNRQ_LANES)
            sum_part(ROWS / 2, 2, depth, a + r, step, b + v, add, c + r * ldc + v, ldc);
#endif
}

/* The left half of a tile. */
static void sum_half_tile(const snrq_product *p, const float *a, const float *b, float *c)
{
#ifdef __AVX512F__
    sum_part(ROWS, VECTORS / 2, p->depth, a, p->a_step, b, p->add, c, p->ldc);
#else
    for (int r = 0; r < ROWS; r += ROWS / 2)
        sum_part(ROWS / 2, VECTORS / 2, p->depth, a + r, p->a_step, b, p->add, c + r * p->ldc,
                 p->ldc);
#endif
}

/* A tile at the end of C, of which only a part is there. */
static void sum_last_tile(const snrq_product *p, const float *a, const float *b, int64_t rows,
                          int64_t columns, float *c)
{
    float tile[ROWS * COLUMNS];
    sum_tile(p->depth, a, p->a_step, b, false, tile, COLUMNS);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < columns; j++) {
            float *to = c + r * p->ldc + j;
            *to = p->add ? *to + tile[r * COLUMNS + j] : tile[r * COLUMNS + j];
        }
}

void snrq_product_run(const snrq_product *p)
{
    for (int64_t r = 0; r < p->rows; r += ROWS)
        for (int64_t j = 0; j < p->columns; j += COLUMNS) {
            const float *a = p->a + r / ROWS * p->a_stride, *b = p->b + j / COLUMNS * p->b_stride;
            float *c = p->c + r * p->ldc + j;
            int64_t rows = p->rows - r, columns = p->columns - j;
            if (rows >= ROWS && columns >= COLUMNS)
                sum_tile(p->depth, a, p->a_step, b, p->add, c, p->ldc);
            else if (rows >= ROWS && columns == COLUMNS / 2)
                sum_half_tile(p, a, b, c);
            else
                sum_last_tile(p, a, b, rows < ROWS ? rows : ROWS,
                              columns < COLUMNS ? columns : COLUMNS, c);
        }
}

/* Up to SNRQ_LANES rows and as many steps of depth; `kept` of the rows have room in the strip. */
static inline __attribute__((always_inline)) void pack_square(const float *in, int64_t stride,
                                                              int count, int depth, int64_t width,
                                                              int kept, float *out)
{
    snrq_lanes square[SNRQ_LANES] = {0};
    for (int r = 0; r < count; r++) memcpy(&square[r], in + r * stride, (size_t)depth * sizeof *in);
    snrq_lanes_transpose(square);
    for (int i = 0; i < depth; i++)
        if (kept == SNRQ_LANES)
            snrq_lanes_store(out + i * width, square[i]);
        else
            memcpy(out + i * width, &square[i], (size_t)kept * sizeof *out);
}

static int up_to_lanes(int64_t x)
{
    return x < 0 ? 0 : x < SNRQ_LANES ? (int)x : SNRQ_LANES;
}

void snrq_product_pack(const float *in, int64_t stride, int64_t count, int64_t depth, int64_t width,
                       float *out)
{
    for (int64_t r = 0; r < width; r += SNRQ_LANES)
        for (int64_t i = 0; i < depth; i += SNRQ_LANES) {
            const float *from = in + r * stride + i;
            float *to = out + i * width + r;
            int rows = up_to_lanes(count - r), steps = up_to_lanes(depth - i);
            int kept = up_to_lanes(width - r);
            if (steps == SNRQ_LANES && rows == SNRQ_LANES && kept == SNRQ_LANES)
                pack_square(from, stride, SNRQ_LANES, SNRQ_LANES, width, SNRQ_LANES, to);
            else if (steps == SNRQ_LANES && rows == LAST && kept == LAST)
                pack_square(from, stride, LAST, SNRQ_LANES, width, LAST, to);
            else
                pack_square(from, stride, rows, steps, width, kept, to);
        }
}

void snrq_product_reference(const snrq_product *p)
{
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t j = 0; j < p->columns; j++) {
            double sum = p->add ? (double)p->c[r * p->ldc + j] : 0.0;
            const float *a = p->a + r / ROWS * p->a_stride + r % ROWS;
            const float *b = p->b + j / COLUMNS * p->b_stride + j % COLUMNS;
            for (int64_t i = 0; i < p->depth; i++)
                sum += (double)a[i * p->a_step] * (double)b[i * COLUMNS];
            p->c[r * p->ldc + j] = (float)sum;
        }
}
