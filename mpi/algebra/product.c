/* Products of operands in strips; see product.h.
 *
 * A tile of C, one strip of A by one of B, is summed up in registers: 24 vectors of 512 bits where
 * the machine has 32 of them, else a part of the tile at a time.
 */
#include "mpi/algebra/product.h"

#include <string.h>

#include "mpi/algebra/lanes.h"

enum {
    ROWS = SNRQ_PRODUCT_ROWS,
    COLUMNS = SNRQ_PRODUCT_COLUMNS,
    VECTORS = COLUMNS / SNRQ_LANES,
    LAST = ROWS % SNRQ_LANES /* rows of a strip of A in its last vector */
};

/* c [rows][vectors] of a tile = the sums over depth, added to what is there if `add`. Unrolled, so
 * that the sums are in registers from the first to the last. */
static inline __attribute__((always_inline)) void
sum_part(int rows, int vectors, int64_t depth, const float *a, int64_t row, int64_t step,
         const float *b, bool add, float *c, int64_t ldc, const float *fetch)
{
    snrq_lanes sum[ROWS * VECTORS] = {0};
    for (int64_t i = 0; i < depth; i++) {
        snrq_lanes column[VECTORS];
        if (fetch != NULL) __builtin_prefetch(fetch + i * SNRQ_PRODUCT_FETCHED, 0, 2);
        for (int v = 0; v < vectors; v++)
            column[v] = snrq_lanes_load(b + i * COLUMNS + v * SNRQ_LANES);
        for (int r = 0; r < rows; r++) {
            snrq_lanes x = snrq_lanes_all(a[r * row + i * step]);
            for (int v = 0; v < vectors; v++)
                sum[r * vectors + v] = snrq_lanes_madd(x, column[v], sum[r * vectors + v]);
        }
    }
    if (add)
#pragma GCC unroll 24
        for (int k = 0; k < rows * vectors; k++)
            sum[k] += snrq_lanes_load(c + k / vectors * ldc + k % vectors * SNRQ_LANES);
#pragma GCC unroll 24
    for (int k = 0; k < rows * vectors; k++)
        snrq_lanes_store(c + k / vectors * ldc + k % vectors * SNRQ_LANES, sum[k]);
}

/* The first `vectors` vectors of a tile: as many as the machine has registers for at a time. */
static inline __attribute__((always_inline)) void sum_tile(const snrq_product *p, int vectors,
                                                           const float *a, int64_t row,
                                                           int64_t step, const float *b, float *c,
                                                           const float *fetch)
{
#ifdef __AVX512F__
    sum_part(ROWS, vectors, p->depth, a, row, step, b, p->add, c, p->ldc, fetch);
#else
    for (int r = 0; r < ROWS; r += ROWS / 2)
        for (int v = 0; v < vectors; v += 2)
            sum_part(ROWS / 2, 2, p->depth, a + r * row, row, step, b + v * SNRQ_LANES, p->add,
                     c + r * p->ldc + v * SNRQ_LANES, p->ldc, r + v == 0 ? fetch : NULL);
#endif
}

/* A whole tile, number `tile` of its strip; the usual layouts of A as constants. */
static void sum_whole_tile(const snrq_product *p, int64_t tile, const float *a, const float *b,
                           float *c)
{
    if (p->fetch != NULL)
        sum_tile(p, VECTORS, a, 1, ROWS, b, c, p->fetch + tile * p->depth * SNRQ_PRODUCT_FETCHED);
    else if (p->a_row == 1 && p->a_step == ROWS)
        sum_tile(p, VECTORS, a, 1, ROWS, b, c, NULL);
    else if (p->a_row == 1)
        sum_tile(p, VECTORS, a, 1, p->a_step, b, c, NULL);
    else
        sum_tile(p, VECTORS, a, p->a_row, p->a_step, b, c, NULL);
}

/* The left half of a tile. */
static void sum_half_tile(const snrq_product *p, const float *a, const float *b, float *c)
{
    sum_tile(p, VECTORS / 2, a, p->a_row, p->a_step, b, c, NULL);
}

/* A tile at the end of C, of which only a part is there: row by row, since others may not be read.
 */
static void sum_last_tile(const snrq_product *p, const float *a, const float *b, int64_t rows,
                          int64_t columns, float *c)
{
    float sums[COLUMNS];
    for (int64_t r = 0; r < rows; r++) {
        sum_part(1, VECTORS, p->depth, a + r * p->a_row, p->a_row, p->a_step, b, false, sums,
                 COLUMNS, NULL);
        for (int64_t j = 0; j < columns; j++) {
            float *to = c + r * p->ldc + j;
            *to = p->add ? *to + sums[j] : sums[j];
        }
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
                sum_whole_tile(p, j / COLUMNS, a, b, c);
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
            const float *a = p->a + r / ROWS * p->a_stride + r % ROWS * p->a_row;
            const float *b = p->b + j / COLUMNS * p->b_stride + j % COLUMNS;
            for (int64_t i = 0; i < p->depth; i++)
                sum += (double)a[i * p->a_step] * (double)b[i * COLUMNS];
            p->c[r * p->ldc + j] = (float)sum;
        }
}
