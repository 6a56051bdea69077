/* Dense fp64 matrices, block-cyclic over a BLACS grid.
 *
 * Symbols: rows x columns global size; NB = 128 square blocks; the grid is Pr x Pc, made from the
 * context's communicator. A grid belongs to the context that it was made with, which may be a group
 * of ranks, and so do its matrices: what is collective here and in factor.h, gram.h and product.h
 * is so over that context. Ranks that are not part of the grid hold nothing but take part in the
 * collectives of this header. Storage is column-major, as ScaLAPACK wants it: the local block has
 * leading dimension local_rows.
 */
#ifndef SNRQ_MATRIX_H
#define SNRQ_MATRIX_H

#include "mpi/collective.h"

enum { SNRQ_PANEL = 128 };

/* A process grid. rows * columns <= size of the context; ranks are laid out row by row. */
typedef struct snrq_process_grid {
    const snrq_context *context; /* borrowed; outlives the grid */
    int blacs;                   /* BLACS context handle; -1 on ranks outside the grid */
    int rows, columns;
    int row, column; /* of this rank; -1 outside */
} snrq_process_grid;

/* Shape of the grid for matrices of order n: near square, flat (rows <= columns), each rank at
 * least four blocks in a dimension. Not collective. */
void snrq_process_grid_shape(int64_t n, int ranks, int *rows, int *columns);

/* Makes a grid of the given shape. Collective over the context. SNRQ_USAGE if it needs more ranks
 * than there are. */
snrq_status snrq_process_grid_create(const snrq_context *context, int rows, int columns,
                                     snrq_process_grid **out);
void snrq_process_grid_destroy(snrq_process_grid **grid);

typedef struct snrq_matrix {
    const snrq_process_grid *grid; /* borrowed; outlives the matrix */
    int64_t rows, columns;
    int64_t local_rows, local_columns; /* 0 outside the grid */
    int descriptor[9];
    double *local; /* [local_columns][local_rows] owned: column-major */
} snrq_matrix;

/* Allocates a zero matrix. Collective; agreed. Sizes that BLACS cannot hold (a local block of 2^31
 * bytes or more is fine for local work, but its dimensions must fit an int) are SNRQ_INTERNAL. */
snrq_status snrq_matrix_create(const snrq_process_grid *grid, int64_t rows, int64_t columns,
                               snrq_matrix **out);
void snrq_matrix_destroy(snrq_matrix **matrix);

/* Global index of local row/column i of this rank, and back to who owns global row/column i. */
int64_t snrq_matrix_global_row(const snrq_matrix *matrix, int64_t local);
int64_t snrq_matrix_global_column(const snrq_matrix *matrix, int64_t local);

/* Stores the part of a panel that this rank owns: panel is columns [begin, begin + width) of the
 * matrix, rows [first_row, rows), column-major with leading dimension rows - first_row. Not
 * collective. */
void snrq_matrix_set_panel(snrq_matrix *matrix, int64_t begin, int64_t width, int64_t first_row,
                           const double *panel);

/* Gives every rank columns [begin, begin + width), rows [first_row, rows), column-major with
 * leading dimension rows - first_row. One broadcast per owning process. Collective over the
 * context. */
snrq_status snrq_matrix_broadcast_panel(const snrq_matrix *matrix, int64_t begin, int64_t width,
                                        int64_t first_row, double *panel);

/* diagonal [n] = the diagonal, on every rank. Collective over the context. */
snrq_status snrq_matrix_diagonal(const snrq_matrix *matrix, double *diagonal);

/* The diagonal <- diagonal [n], which is the same on all ranks. Not collective. */
void snrq_matrix_set_diagonal(snrq_matrix *matrix, const double *diagonal);

/* Multiplies the diagonal by a factor. Not collective. */
void snrq_matrix_scale_diagonal(snrq_matrix *matrix, double factor);

/* Adds value to every diagonal element i with mask == NULL or mask[i] != 0. Not collective. */
void snrq_matrix_add_diagonal(snrq_matrix *matrix, double value, const unsigned char *mask);

#endif
