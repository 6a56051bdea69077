/* The parts of a panel of a block-cyclic matrix: what each process of the grid has of it. For
 * matrix.c and panel_feed.c.
 */
#ifndef SNRQ_PANEL_PART_H
#define SNRQ_PANEL_PART_H

#include "mpi/algebra/matrix.h"

/* Columns [begin, begin + width), rows [first_row, rows of the matrix). */
typedef struct snrq_panel_place {
    int64_t begin, width, first_row;
} snrq_panel_place;

/* What process (row, column) of the grid owns of a panel: local rows [row_begin, row_end) and local
 * columns [column_begin, column_end). */
typedef struct snrq_panel_part {
    int row, column;
    int64_t row_begin, row_end, column_begin, column_end;
} snrq_panel_part;

snrq_panel_part snrq_panel_part_of(const snrq_matrix *matrix, int row, int column,
                                   snrq_panel_place place);

/* How many numbers a part has. */
static inline int64_t snrq_panel_part_count(const snrq_panel_part *part)
{
    return (part->row_end - part->row_begin) * (part->column_end - part->column_begin);
}

/* Where this process has its own part of a panel, columns local_rows apart. */
static inline const double *snrq_panel_part_own(const snrq_matrix *matrix,
                                                const snrq_panel_part *part)
{
    return matrix->local + part->column_begin * matrix->local_rows + part->row_begin;
}

/* Puts a part into the panel, which is column-major with leading dimension rows - first_row. from:
 * the part's columns, `stride` numbers apart. Numbers are doubles or floats, as their sizes say;
 * doubles may become floats on the way. */
void snrq_panel_part_unpack(const snrq_matrix *matrix, const snrq_panel_part *part,
                            snrq_panel_place place, const void *from, size_t from_size,
                            int64_t stride, void *panel, size_t size);

#endif
