/* Column panels of H in fp32, laid out for products with whole tiles of rows and for sums of single
 * rows of H. For refine.h and regrid.h.
 */
#ifndef SNRQ_GRAM_PANEL_H
#define SNRQ_GRAM_PANEL_H

#include "mpi/algebra/panel_feed.h"
#include "mpi/algebra/product.h"

enum { SNRQ_GRAM_PANEL = SNRQ_PRODUCT_SLAB };

/* Columns [begin, begin + width) of H [n, n]; columns from `width` on are zero. */
typedef struct snrq_gram_panel {
    int64_t n, begin, width;
    snrq_panel_feed *feed;
    float *rows;   /* [n][SNRQ_GRAM_PANEL] */
    float *strips; /* the same as [SNRQ_GRAM_PANEL / SNRQ_PRODUCT_ROWS][n][SNRQ_PRODUCT_ROWS] */
    float *buffer; /* [SNRQ_GRAM_PANEL][n] as it came */
} snrq_gram_panel;

/* For panels of h, which outlives them and stays as it is. A panel that could not be had is
 * released by free, too. Not collective. */
snrq_status snrq_gram_panel_create(const snrq_matrix *h, snrq_gram_panel *out);
void snrq_gram_panel_free(snrq_gram_panel *panel);

/* How many panels n columns are. */
static inline int64_t snrq_gram_panels(int64_t n)
{
    return (n + SNRQ_GRAM_PANEL - 1) / SNRQ_GRAM_PANEL;
}

/* First column of the panel that ends before column `end`. */
static inline int64_t snrq_gram_panel_begin(int64_t end)
{
    return (end - 1) / SNRQ_GRAM_PANEL * SNRQ_GRAM_PANEL;
}

/* Brings the panel that begins at column `begin` to this rank, and puts the one before it on its
 * way: panels are used from the last to the first. Row i of H becomes row row_place[i] of the
 * panel, column c of the panel its column column_place[c]; NULL: as they are. Collective over h's
 * context.
 */
snrq_status snrq_gram_panel_load(snrq_gram_panel *panel, int64_t begin, const int32_t *row_place,
                                 const int32_t *column_place);

/* To be called by the threads that use a panel, now and then: the next one gets on. */
void snrq_gram_panel_progress(const snrq_gram_panel *panel);

#endif
