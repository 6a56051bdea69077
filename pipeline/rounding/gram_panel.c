/* Column panels of H; see gram_panel.h. */
#include "pipeline/rounding/gram_panel.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = SNRQ_GRAM_PANEL, STRIP = SNRQ_PRODUCT_ROWS, BLOCK = 16 };

snrq_status snrq_gram_panel_create(const snrq_matrix *h, snrq_gram_panel *out)
{
    size_t cells = (size_t)h->rows * WIDTH;
    *out = (snrq_gram_panel){.n = h->rows};
    SNRQ_TRY(snrq_panel_feed_create(h, WIDTH, sizeof *out->buffer, &out->feed));
    SNRQ_TRY(snrq_allocate_scratch(cells, sizeof *out->buffer, "panel of H", &out->buffer));
    SNRQ_TRY(snrq_allocate_scratch(cells, sizeof *out->rows, "panel of H", &out->rows));
    return snrq_allocate_scratch(cells, sizeof *out->strips, "panel of H", &out->strips);
}

void snrq_gram_panel_free(snrq_gram_panel *p)
{
    snrq_panel_feed_destroy(&p->feed);
    free(p->buffer);
    free(p->rows);
    free(p->strips);
    memset(p, 0, sizeof *p);
}

/* Rows [first, first + count) of H, turned in a square that stays in cache. */
static void turn(int64_t first, int64_t count, const int32_t *row_place,
                 const int32_t *column_place, snrq_gram_panel *p)
{
    const int64_t n = p->n;
    float square[BLOCK][WIDTH];
    if (p->width < WIDTH) memset(square, 0, sizeof square);
    for (int64_t c = 0; c < p->width; c++) {
        int64_t to = column_place == NULL ? c : column_place[c];
        for (int64_t i = 0; i < count; i++) square[i][to] = p->buffer[c * n + first + i];
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t to = row_place == NULL ? first + i : row_place[first + i];
        memcpy(p->rows + to * WIDTH, square[i], sizeof square[i]);
        for (int64_t s = 0; s < WIDTH / STRIP; s++)
            memcpy(p->strips + (s * n + to) * STRIP, square[i] + s * STRIP,
                   STRIP * sizeof square[i][0]);
    }
}

static snrq_status start(snrq_gram_panel *p, int64_t begin)
{
    return snrq_panel_feed_start(p->feed, begin, p->n - begin < WIDTH ? p->n - begin : WIDTH, 0);
}

snrq_status snrq_gram_panel_load(snrq_gram_panel *p, int64_t begin, const int32_t *row_place,
                                 const int32_t *column_place)
{
    int64_t n = p->n;
    if (!snrq_panel_feed_expects(p->feed, begin)) SNRQ_TRY(start(p, begin));
    SNRQ_TRY(snrq_panel_feed_take(p->feed, p->buffer));
    if (begin > 0) SNRQ_TRY(start(p, snrq_gram_panel_begin(begin)));
    p->begin = begin;
    p->width = n - begin < WIDTH ? n - begin : WIDTH;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += BLOCK)
        turn(i, n - i < BLOCK ? n - i : BLOCK, row_place, column_place, p);
    return SNRQ_OK;
}

void snrq_gram_panel_progress(const snrq_gram_panel *p)
{
    if (omp_get_thread_num() == 0) snrq_panel_feed_progress(p->feed);
}
