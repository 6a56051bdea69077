/* A tile's targets and what decided columns feed back to them; see search_tile.h. */
#include "pipeline/rounding/search_tile.h"

enum {
    ROWS = SNRQ_TILE_ROWS,
    VECTORS = ROWS / SNRQ_LANES,
    DEPTH = 64 /* columns of errors that stay in the nearest cache */
};

/* y [columns][vectors] += errors u over `depth` columns, all of y in registers; errors of vectors
 * are `stride` apart. The sums of an element are in the order of the columns, whatever the shape.
 */
static inline __attribute__((always_inline)) void add_product(int vectors, int columns,
                                                              int64_t depth, const float *u,
                                                              const float *errors, int64_t stride,
                                                              float *y)
{
    snrq_lanes sum[16]; /* of the 32 registers of AVX-512, or 8 of 16 */
    for (int c = 0; c < columns; c++)
        for (int v = 0; v < vectors; v++)
            sum[c * vectors + v] = snrq_lanes_load(y + c * ROWS + v * SNRQ_LANES);
    for (int64_t i = 0; i < depth; i++) {
        snrq_lanes error[4];
        for (int v = 0; v < vectors; v++)
            error[v] = snrq_lanes_load(errors + v * stride + i * SNRQ_LANES);
        for (int c = 0; c < columns; c++) {
            snrq_lanes factor = snrq_lanes_all(u[i * SNRQ_STRIP + c]);
            for (int v = 0; v < vectors; v++)
                sum[c * vectors + v] = snrq_lanes_madd(error[v], factor, sum[c * vectors + v]);
        }
    }
    for (int c = 0; c < columns; c++)
        for (int v = 0; v < vectors; v++)
            snrq_lanes_store(y + c * ROWS + v * SNRQ_LANES, sum[c * vectors + v]);
}

/* y [SNRQ_STRIP][rows] += errors u: u [depth][SNRQ_STRIP], errors [vectors][depth][SNRQ_LANES]; all
 * rows of a tile, or a pair of vectors of them. */
static void feed_back(int vectors, int64_t depth, const float *u, const float *errors,
                      int64_t stride, float *y)
{
    if (vectors == 2) {
        for (int c = 0; c < SNRQ_STRIP; c += SNRQ_LANES / 2)
            add_product(2, SNRQ_LANES / 2, depth, u + c, errors, stride, y + c * ROWS);
        return;
    }
    for (int c = 0; c < SNRQ_STRIP; c += 4)
        for (int v = 0; v < vectors; v += SNRQ_LANES / 4)
            add_product(SNRQ_LANES / 4, 4, depth, u + c, errors + v * stride, stride,
                        y + c * ROWS + v * SNRQ_LANES);
}

/* What columns [from, to) of the layer feed back by `matrix` to the strips [begin, end) of the
 * panel. */
static void bring_in(int vectors, const snrq_tile *t, const snrq_panel *p, float *matrix,
                     const float *errors, int64_t from, int64_t to, int64_t begin, int64_t end,
                     float *y)
{
    for (int64_t i = from; i < to; i += DEPTH)
        for (int64_t c = begin; c < end; c += SNRQ_STRIP)
            feed_back(vectors, to - i < DEPTH ? to - i : DEPTH,
                      snrq_panel_strip(p, matrix, c, i - p->begin), errors + i * SNRQ_LANES,
                      t->rows->columns * SNRQ_LANES, y + c * ROWS);
}

/* One vector of rows, one strip of columns. */
static void load_target(const snrq_tile *t, const snrq_panel *p, int64_t lane, int64_t begin)
{
    const snrq_rows *rows = t->rows;
    int64_t width = p->width - begin < SNRQ_STRIP ? p->width - begin : SNRQ_STRIP;
    snrq_lanes square[SNRQ_LANES] = {0};
    for (int64_t r = 0; r < SNRQ_LANES; r++) {
        const float *from = rows->target + (t->row + lane + r) * rows->columns + p->begin + begin;
        if (width == SNRQ_STRIP)
            square[r] = snrq_lanes_load(from);
        else
            memcpy(&square[r], from, (size_t)width * sizeof *from);
    }
    snrq_lanes_transpose(square);
    for (int64_t c = 0; c < SNRQ_STRIP; c++) {
        snrq_lanes_store(t->target + (begin + c) * ROWS + lane, square[c]);
        snrq_lanes_store(t->y + (begin + c) * ROWS + lane, square[c]);
    }
}

void snrq_tile_begin(snrq_tile *t, const snrq_panel *p, int64_t near)
{
    t->near = near < t->rows->columns ? near : t->rows->columns;
    for (int64_t lane = 0; lane < ROWS; lane += SNRQ_LANES)
        for (int64_t begin = 0; begin < p->width; begin += SNRQ_STRIP)
            load_target(t, p, lane, begin);
    bring_in(VECTORS, t, p, p->u, t->errors, t->near, t->rows->columns, 0, p->width, t->y);
    if (t->m == NULL) return;
    memset(t->m, 0, SNRQ_PANEL * ROWS * sizeof *t->m);
    bring_in(VECTORS, t, p, p->a_over_l, t->values, t->near, t->rows->columns, 0, p->width, t->m);
}

void snrq_tile_bring_in(const snrq_tile *t, const snrq_panel *p, int64_t begin, int64_t end)
{
    bring_in(VECTORS, t, p, p->u, t->errors, p->begin + end, t->near, begin, end, t->y);
    if (t->m != NULL)
        bring_in(VECTORS, t, p, p->a_over_l, t->values, p->begin + end, t->near, begin, end, t->m);
}

void snrq_tile_bring_in_pair(const snrq_tile *t, const snrq_panel *p, int64_t begin, int64_t end,
                             int64_t lane)
{
    bring_in(2, t, p, p->u, t->errors + lane * t->rows->columns, p->begin + end, t->near, begin,
             end, t->y + lane);
}
