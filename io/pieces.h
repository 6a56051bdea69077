/* A long run of rows, a piece at a time, so that what is in memory at once is bounded:
 *
 *     snrq_pieces p = snrq_pieces_of(rows, row_bytes, 16 << 20, 1);
 *     ... allocate p.most rows ...
 *     while (status == SNRQ_OK && snrq_pieces_next(&p)) status = work_on(p.piece);
 */
#ifndef SNRQ_PIECES_H
#define SNRQ_PIECES_H

#include <stdbool.h>
#include <stddef.h>

#include "mpi/collective.h"

typedef struct snrq_pieces {
    snrq_range piece; /* where snrq_pieces_next() arrived */
    int64_t most;     /* rows of the longest piece; 0: there are no rows */
    int64_t end;
} snrq_pieces;

/* Cuts `rows` into pieces whose rows, of `row_size` each, sum up to `limit` at most. Pieces are
 * whole units of `unit` rows, at least one of them, but for the last piece, which may be short.
 * Sizes are bytes, or whatever the caller counts in; row_size 0: one piece. */
snrq_pieces snrq_pieces_of(snrq_range rows, size_t row_size, size_t limit, int64_t unit);

/* Goes on to the next piece, in order; false after the last one. */
bool snrq_pieces_next(snrq_pieces *pieces);

#endif
