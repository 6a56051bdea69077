/* Greedy rounding of a tile in a panel; see search_tile.h and search.h for the symbols. All rows of
 * the tile decide a column together. */
#include <string.h>

#include "mpi/blas.h"
#include "pipeline/search_tile.h"

enum { ROWS = SNRQ_TILE_ROWS };

/* Decides one column: code = clamp(round_half_even(wanted / s) + z, 0, top), as snrq_nearest_code.
 */
static void decide(const float *restrict wanted, const float *restrict y,
                   const float *restrict target, const float *restrict scales,
                   const float *restrict zeros, float top, double d2, float *restrict errors,
                   uint8_t *restrict codes, double *restrict costs)
{
#pragma omp simd
    for (int r = 0; r < ROWS; r++) {
        float code = __builtin_nearbyintf(wanted[r] / scales[r]) + zeros[r];
        code = code > 0.0f ? code : 0.0f;
        code = code < top ? code : top;
        float value = scales[r] * (code - zeros[r]);
        double miss = (double)(y[r] - value);
        errors[r] = target[r] - value;
        codes[r] = (uint8_t)(int)code;
        costs[r] += d2 * miss * miss;
    }
}

/* y += error u */
static void feed_back(const float *restrict errors, float u, float *restrict y)
{
#pragma omp simd
    for (int r = 0; r < ROWS; r++) y[r] = snrq_madd(errors[r], u, y[r]);
}

/* values = y + shift of column c. */
static const float *shifted_values(const snrq_tile *t, int64_t c, float *values)
{
    for (int r = 0; r < ROWS; r++) values[r] = t->y[c * ROWS + r] + t->shift[c * ROWS + r];
    return values;
}

/* Columns [begin, end) of the panel. */
static void decide_strip(const snrq_tile *t, const snrq_panel *p, snrq_rounding rounding,
                         int64_t begin, int64_t end, float *errors)
{
    const snrq_rows *rows = t->rows;
    float top = (float)((1 << rows->bits) - 1);
    uint8_t codes[SNRQ_STRIP][ROWS];
    for (int64_t c = end - 1; c >= begin; c--) {
        int64_t k = p->begin + c, g = rows->groups->of_position[k];
        const float *y = t->y + c * ROWS, *target = t->target + c * ROWS;
        const float *wanted = rounding == SNRQ_ROUND_NEAREST ? target : y;
        if (t->shift != NULL) wanted = shifted_values(t, c, t->values + k * ROWS);
        decide(wanted, y, target, t->scales + g * ROWS, t->zeros + g * ROWS, top, p->d2[c],
               errors + k * ROWS, codes[c - begin], rows->costs + t->row);
        for (int64_t i = begin; i < c; i++)
            feed_back(errors + k * ROWS, p->u[c * SNRQ_BLOCK + i], t->y + i * ROWS);
        for (int64_t i = begin; i < c && t->shift != NULL; i++)
            feed_back(wanted, p->mismatch[c * SNRQ_BLOCK + i], t->shift + i * ROWS);
    }
    for (int r = 0; r < ROWS; r++) {
        uint8_t *out = rows->codes + (t->row + r) * rows->columns + p->begin;
        for (int64_t c = begin; c < end; c++) out[c] = codes[c - begin][r];
    }
}

void snrq_greedy_tile(const snrq_tile *t, const snrq_panel *p, snrq_rounding rounding,
                      float *errors)
{
    for (int64_t begin = (p->width - 1) / SNRQ_STRIP * SNRQ_STRIP; begin >= 0;
         begin -= SNRQ_STRIP) {
        int64_t end = begin + SNRQ_STRIP < p->width ? begin + SNRQ_STRIP : p->width;
        decide_strip(t, p, rounding, begin, end, errors);
        snrq_sgemm(true, false, begin, ROWS, end - begin, 1.0f, p->u + begin * SNRQ_BLOCK,
                   SNRQ_BLOCK, errors + (p->begin + begin) * ROWS, ROWS, 1.0f, t->y, ROWS);
        if (t->shift != NULL)
            snrq_sgemm(true, false, begin, ROWS, end - begin, 1.0f,
                       p->mismatch + begin * SNRQ_BLOCK, SNRQ_BLOCK,
                       t->values + (p->begin + begin) * ROWS, ROWS, 1.0f, t->shift, ROWS);
    }
}
