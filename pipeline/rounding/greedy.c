/* Greedy rounding of a tile in a panel; see search_tile.h and search.h for the symbols. All rows of
 * the tile decide a column together. */
#include "pipeline/rounding/search_tile.h"

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

/* The same with the levels of a code book, the lower one of two that are as near. */
static void decide_level(const snrq_rows *rows, const float *restrict wanted,
                         const float *restrict y, const float *restrict target,
                         const float *restrict scales, double d2, float *restrict errors,
                         uint8_t *restrict codes, double *restrict costs)
{
    float level[ROWS] = {0};
    int32_t code[ROWS] = {0};
    for (int r = 0; r < ROWS && rows->top >= SNRQ_BOOK; r++)
        code[r] = snrq_nearest_level(rows->levels, rows->top, wanted[r] / scales[r]);
    for (int k = 0; k < rows->top && rows->top < SNRQ_BOOK; k++) {
        float middle = 0.5f * (rows->levels[k] + rows->levels[k + 1]);
#pragma omp simd
        for (int r = 0; r < ROWS; r++) code[r] += wanted[r] / scales[r] > middle;
    }
    for (int r = 0; r < ROWS; r++) level[r] = rows->levels[code[r]];
#pragma omp simd
    for (int r = 0; r < ROWS; r++) {
        float value = scales[r] * level[r];
        double miss = (double)(y[r] - value);
        errors[r] = target[r] - value;
        codes[r] = (uint8_t)code[r];
        costs[r] += d2 * miss * miss;
    }
}

/* y += error u */
static void feed_back(const float *restrict errors, float u, float *restrict y)
{
#pragma omp simd
    for (int r = 0; r < ROWS; r++) y[r] = snrq_madd(errors[r], u, y[r]);
}

/* Columns [begin, end) of the panel. */
static void decide_strip(const snrq_tile *t, const snrq_panel *p, snrq_search_kind kind,
                         int64_t begin, int64_t end)
{
    const snrq_rows *rows = t->rows;
    float top = (float)((1 << rows->bits) - 1);
    uint8_t codes[SNRQ_STRIP][ROWS];
    float errors[ROWS], shifted[ROWS];
    for (int64_t c = end - 1; c >= begin; c--) {
        int64_t k = p->begin + c, g = rows->groups->of_position[k];
        const float *y = t->y + c * ROWS, *target = t->target + c * ROWS;
        const float *wanted = kind == SNRQ_ROUND_NEAREST ? target : y;
        const float *u = snrq_panel_strip(p, p->u, begin, c);
        if (t->m != NULL) {
            for (int r = 0; r < ROWS; r++) shifted[r] = y[r] + t->m[c * ROWS + r];
            wanted = shifted;
            snrq_tile_put(t, t->values, k, shifted);
        }
        if (rows->levels != NULL)
            decide_level(rows, wanted, y, target, t->scales + g * ROWS, p->d2[c], errors,
                         codes[c - begin], rows->costs + t->row);
        else
            decide(wanted, y, target, t->scales + g * ROWS, t->zeros + g * ROWS, top, p->d2[c],
                   errors, codes[c - begin], rows->costs + t->row);
        snrq_tile_put(t, t->errors, k, errors);
        for (int64_t i = begin; i < c; i++) feed_back(errors, u[i - begin], t->y + i * ROWS);
        if (t->m == NULL) continue;
        u = snrq_panel_strip(p, p->a_over_l, begin, c);
        for (int64_t i = begin; i < c; i++) feed_back(shifted, u[i - begin], t->m + i * ROWS);
    }
    for (int r = 0; r < ROWS; r++) {
        uint8_t *out = rows->codes + (t->row + r) * rows->columns + p->begin;
        for (int64_t c = begin; c < end; c++) out[c] = codes[c - begin][r];
    }
}

void snrq_greedy_tile(snrq_tile *t, const snrq_panel *p, snrq_search_kind kind)
{
    snrq_tile_begin(t, p, p->begin + p->width);
    for (int64_t begin = (p->width - 1) / SNRQ_STRIP * SNRQ_STRIP; begin >= 0;
         begin -= SNRQ_STRIP) {
        int64_t end = begin + SNRQ_STRIP < p->width ? begin + SNRQ_STRIP : p->width;
        snrq_tile_bring_in(t, p, begin, end);
        decide_strip(t, p, kind, begin, end);
    }
}
