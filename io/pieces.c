/* Long runs of rows in pieces; see pieces.h. */
#include "io/pieces.h"

snrq_pieces snrq_pieces_of(snrq_range rows, size_t row_size, size_t limit, int64_t unit)
{
    int64_t total = rows.end > rows.begin ? rows.end - rows.begin : 0;
    int64_t most = row_size > 0 ? (int64_t)(limit / row_size) / unit * unit : total;
    if (most < unit) most = unit;
    if (most > total) most = total;
    return (snrq_pieces){{rows.begin, rows.begin}, most, rows.begin + total};
}

bool snrq_pieces_next(snrq_pieces *p)
{
    p->piece.begin = p->piece.end;
    p->piece.end = p->end - p->piece.begin > p->most ? p->piece.begin + p->most : p->end;
    return p->piece.begin < p->end;
}
