/* Panels of a distributed matrix on their way to all ranks while others are used.
 *
 *     snrq_panel_feed_create(matrix, width, sizeof(float), &feed)
 *     snrq_panel_feed_start(feed, begin, width, first_row)        the first panel
 *     for each panel:
 *         snrq_panel_feed_take(feed, panel)                       waits for it
 *         snrq_panel_feed_start(feed, begin, width, first_row)    the next one
 *         use of the panel, now and then snrq_panel_feed_progress(feed)
 *     snrq_panel_feed_destroy(&feed)
 *
 * Numbers travel as those who use them need them: in fp64, or in fp32, which is half as much.
 */
#ifndef SNRQ_PANEL_FEED_H
#define SNRQ_PANEL_FEED_H

#include <stdbool.h>

#include "mpi/algebra/matrix.h"

typedef struct snrq_panel_feed snrq_panel_feed;

/* A feed of panels of up to `width` columns of the matrix, which outlives it and stays as it is
 * while a panel is on its way. size: of a number, sizeof(double) or sizeof(float). Not collective;
 * the caller destroys it. */
snrq_status snrq_panel_feed_create(const snrq_matrix *matrix, int64_t width, size_t size,
                                   snrq_panel_feed **out);

/* Bytes of it on several ranks; alone a rank needs none. */
int64_t snrq_panel_feed_bytes(int64_t rows, int64_t width, size_t size);

/* Puts columns [begin, begin + width), rows [first_row, rows) on their way. Does not wait. One
 * panel at a time: SNRQ_INTERNAL if one is on its way that was not taken. Collective over the
 * matrix's context. */
snrq_status snrq_panel_feed_start(snrq_panel_feed *feed, int64_t begin, int64_t width,
                                  int64_t first_row);

/* Is a panel on its way, and does it begin with this column? The same on all ranks. */
bool snrq_panel_feed_expects(const snrq_panel_feed *feed, int64_t begin);

/* Waits for the panel that is on its way: column-major with leading dimension rows - first_row. Not
 * collective, but waits for the ranks that have a part of it. */
snrq_status snrq_panel_feed_take(snrq_panel_feed *feed, void *panel);

/* Lets MPI work on what is on its way; it does nothing in the background by itself. To be called
 * by the thread that calls MPI, some times while a panel is used. Not collective. */
void snrq_panel_feed_progress(snrq_panel_feed *feed);

/* Waits for what is on its way, frees; *feed becomes NULL. */
void snrq_panel_feed_destroy(snrq_panel_feed **feed);

#endif
