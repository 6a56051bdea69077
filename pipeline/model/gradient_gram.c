/* Sums of squares of gradients; see gradient_gram.h. */
#include "pipeline/model/gradient_gram.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/product.h"

enum {
    SIDE = SNRQ_GRADIENT_ROWS,
    TILE = SNRQ_GRADIENT_TILE,
    ROWS = SNRQ_PRODUCT_ROWS,
    COLUMNS = SNRQ_PRODUCT_COLUMNS,
    DEPTH = SNRQ_PRODUCT_DEPTH,
    PADDED = (SIDE + ROWS - 1) / ROWS * ROWS, /* whole strips of rows */
    UNIT_BITS = 72,
    LIMIT_BITS = 40, /* of a sequence's sum: less than 2^40 */
    LANES = 8,
};

/* Room of a thread for one tile. */
typedef struct room {
    float a[PADDED * DEPTH]; /* [depth][PADDED] */
    float b[SIDE * DEPTH];   /* [SIDE / COLUMNS][depth][COLUMNS] */
    float c[PADDED * SIDE];
} room;

snrq_status snrq_gradient_gram_create(const snrq_family *f, int64_t tokens, snrq_gradient_gram *out)
{
    *out = (snrq_gradient_gram){.family = f, .tokens = tokens};
    SNRQ_TRY(snrq_allocate((size_t)f->units, sizeof *out->added, "tokens of units", &out->added));
    SNRQ_TRY(snrq_allocate_scratch((size_t)(f->modules * tokens), sizeof *out->squares,
                                   "squares of gradients", &out->squares));
    SNRQ_TRY(
        snrq_allocate((size_t)f->modules + 1, sizeof *out->first, "tiles of modules", &out->first));
    for (int m = 0; m < f->modules; m++)
        out->first[m + 1] = out->first[m] + (f->module[m].rows + SIDE - 1) / SIDE;
    return snrq_allocate((size_t)out->first[f->modules], TILE * sizeof *out->sum,
                         "sums of gradients", &out->sum);
}

void snrq_gradient_gram_free(snrq_gradient_gram *g)
{
    free(g->first);
    free(g->sum);
    free(g->added);
    free(g->squares);
    *g = (snrq_gradient_gram){0};
}

/* ---- adding ---- */

/* r->c <- g' g of rows [begin, end) of g and `rows` columns of it, on and below the diagonal. */
static void multiply(const float *g, int64_t stride, int64_t rows, int64_t begin, int64_t end,
                     room *r)
{
    for (int64_t at = begin; at < end; at += DEPTH) {
        int64_t depth = end - at < DEPTH ? end - at : DEPTH;
        for (int64_t i = 0; i < depth; i++) {
            const float *from = g + (at + i) * stride;
            float *a = r->a + i * PADDED;
            memset(a, 0, PADDED * sizeof *a);
            memcpy(a, from, (size_t)rows * sizeof *a);
            for (int64_t k = 0; k < SIDE; k += COLUMNS)
                memcpy(r->b + k * depth + i * COLUMNS, a + k, COLUMNS * sizeof *a);
        }
        for (int64_t k = 0; k < SIDE; k += COLUMNS) {
            int64_t row = k / ROWS * ROWS; /* from the diagonal on */
            snrq_product_run(&(snrq_product){.rows = PADDED - row,
                                             .columns = COLUMNS,
                                             .depth = depth,
                                             .a = r->a + row,
                                             .b = r->b + k * depth,
                                             .a_stride = ROWS,
                                             .a_row = 1,
                                             .a_step = PADDED,
                                             .b_stride = depth * COLUMNS,
                                             .add = at > begin,
                                             .c = r->c + row * SIDE + k,
                                             .ldc = SIDE});
        }
    }
}

/* One tile of all sequences; g begins at its first column. */
static bool add_tile(const float *g, int64_t stride, int64_t rows, int64_t sequences,
                     const int64_t *first, room *r, snrq_fixed *sum)
{
    bool good = true;
    for (int64_t s = 0; s < sequences; s++) {
        if (first[s] == first[s + 1]) continue;
        multiply(g, stride, rows, first[s], first[s + 1], r);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j <= i; j++)
                good &= snrq_fixed_add(r->c[i * SIDE + j], &sum[i * SIDE + j]);
    }
    return good;
}

/* g' g of `count` numbers, in partial sums of a fixed order. */
static float square(const float *g, int64_t count)
{
    double part[LANES] = {0}, sum = 0.0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int k = 0; k < LANES; k++) part[k] += (double)g[i + k] * g[i + k];
    for (; i < count; i++) sum += (double)g[i] * g[i];
    for (int k = 0; k < LANES; k++) sum += part[k];
    return (float)sum;
}

/* Of each of `tokens` tokens. */
static snrq_status add_squares(snrq_gradient_gram *gram, int unit, int64_t tokens, const float *g)
{
    const snrq_family *f = gram->family;
    const snrq_unit_shape *u = &f->unit[unit];
    const int64_t at = gram->added[unit];
    if (u->expert >= 0) return SNRQ_OK;
    if (tokens > gram->tokens - at)
        return snrq_fail(SNRQ_INTERNAL, "gradients of %lld tokens, expected %lld at most",
                         (long long)(at + tokens), (long long)gram->tokens);
    gram->added[unit] += tokens;
    for (int m = u->first; m < u->end; m++) {
        const snrq_module_shape *module = &f->module[m];
        float *out = gram->squares + m * gram->tokens + at;
#pragma omp parallel for
        for (int64_t t = 0; t < tokens; t++)
            out[t] = square(g + t * u->rows + module->row, module->rows);
    }
    return SNRQ_OK;
}

snrq_status snrq_gradient_gram_add(snrq_gradient_gram *gram, int unit, int64_t sequences,
                                   const int64_t *first, const float *g)
{
    const snrq_family *f = gram->family;
    const snrq_unit_shape *u = &f->unit[unit];
    int bad = -1;
    room *rooms;
    SNRQ_TRY(add_squares(gram, unit, first[sequences], g));
    SNRQ_TRY(snrq_allocate_scratch((size_t)omp_get_max_threads(), sizeof *rooms, "tiles", &rooms));
    for (int m = u->first; m < u->end; m++) {
        const snrq_module_shape *module = &f->module[m];
        int64_t tiles = gram->first[m + 1] - gram->first[m];
#pragma omp parallel for schedule(dynamic)
        for (int64_t t = 0; t < tiles; t++) {
            int64_t row = t * SIDE, rows = module->rows - row < SIDE ? module->rows - row : SIDE;
            if (add_tile(g + module->row + row, u->rows, rows, sequences, first,
                         &rooms[omp_get_thread_num()], gram->sum + (gram->first[m] + t) * TILE))
                continue;
#pragma omp critical(snrq_gradient_gram)
            if (bad < 0 || m < bad) bad = m;
        }
    }
    free(rooms);
    if (bad < 0) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: the gradients of its outputs are not finite, or larger than can be added "
                     "up",
                     f->module[bad].name);
}

/* ---- over ranks ---- */

snrq_range snrq_gradient_gram_share(const snrq_context *c, const snrq_gradient_gram *g, int module)
{
    return snrq_share(g->first[module + 1] - g->first[module], 1, c->size, c->rank);
}

snrq_status snrq_gradient_gram_collect(const snrq_context *c, snrq_gradient_gram *g,
                                       snrq_fixed *total)
{
    const snrq_family *f = g->family;
    for (int m = 0; m < f->modules; m++) {
        snrq_range mine = snrq_gradient_gram_share(c, g, m);
        int64_t count = (g->first[m + 1] - g->first[m]) * TILE;
        snrq_fixed *sum = g->sum + g->first[m] * TILE;
        snrq_status status = snrq_fixed_sum(c, sum, count);
        bool good = true;
        for (int64_t i = mine.begin * TILE; status == SNRQ_OK && i < mine.end * TILE; i++, total++)
            good &= !__builtin_add_overflow(*total, sum[i], total);
        if (status == SNRQ_BAD_DATA || !good)
            status = snrq_fail(SNRQ_BAD_DATA, "%s: the gradients of its outputs are too large",
                               f->module[m].name);
        SNRQ_TRY(snrq_agree(c, status));
        memset(sum, 0, (size_t)count * sizeof *sum);
    }
    return SNRQ_OK;
}

void snrq_gradient_means(const snrq_fixed *sum, int64_t tiles, int64_t tokens, float *out)
{
    for (int64_t t = 0; t < tiles; t++, sum += TILE, out += TILE)
        for (int64_t i = 0; i < SIDE; i++)
            for (int64_t j = 0; j <= i; j++)
                out[i * SIDE + j] = out[j * SIDE + i] =
                    (float)(snrq_fixed_value(sum[i * SIDE + j]) / (double)tokens);
}
