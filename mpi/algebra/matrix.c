/* Block-cyclic matrices; see matrix.h.
 *
 * Both dimensions are dealt in blocks of NB: block k of a dimension belongs to process k mod P of
 * it, as that process's block k / P. Panels move as the contiguous local parts of one process at a
 * time.
 */
#include "mpi/algebra/matrix.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/panel_part.h"
#include "mpi/algebra/scalapack.h"

enum { NB = SNRQ_PANEL, OUTSIDE = -1, CHUNK_ITEMS = 1 << 23 };

void snrq_process_grid_shape(int64_t n, int ranks, int *rows, int *columns)
{
    int64_t blocks = (n + NB - 1) / NB;
    int64_t most = blocks / 4 > 1 ? blocks / 4 : 1;
    int side = 1;
    while ((int64_t)(side + 1) * (side + 1) <= ranks && side < most) side++;
    *rows = side;
    *columns = ranks / side < most ? ranks / side : (int)most;
    if (*columns < side) *columns = side;
}

/* Makes the BLACS grid from a communicator of its members alone: BLACS leaks memory on ranks that
 * it leaves out. BLACS duplicates the communicator. */
static snrq_status start_blacs(snrq_process_grid *grid)
{
    const snrq_context *c = grid->context;
    MPI_Comm members = MPI_COMM_NULL;
    int color = c->rank < grid->rows * grid->columns ? 0 : MPI_UNDEFINED;
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "makes a grid of %d x %d", grid->rows, grid->columns));
    SNRQ_TRY(snrq_mpi_check(MPI_Comm_split(c->comm, color, c->rank, &members), "MPI_Comm_split"));
    if (members == MPI_COMM_NULL) return SNRQ_OK;
    /* BLACS looks at no return code: an error that is not fatal would pass unseen. */
    MPI_Comm_set_errhandler(members, MPI_ERRORS_ARE_FATAL);
    int handle = Csys2blacs_handle(members), rows, columns;
    grid->blacs = handle;
    Cblacs_gridinit(&grid->blacs, "Row", grid->rows, grid->columns);
    Cblacs_gridinfo(grid->blacs, &rows, &columns, &grid->row, &grid->column);
    Cfree_blacs_system_handle(handle);
    MPI_Comm_free(&members);
    return SNRQ_OK;
}

snrq_status snrq_process_grid_create(const snrq_context *context, int rows, int columns,
                                     snrq_process_grid **out)
{
    snrq_process_grid *grid = NULL;
    *out = NULL;
    if (rows < 1 || columns < 1 || columns > context->size || rows > context->size / columns)
        return snrq_fail(
            SNRQ_USAGE,
            "a process grid of %d x %d does not fit %d ranks: choose a smaller grid or "
            "start more ranks",
            rows, columns, context->size);
    snrq_status status = snrq_agree(context, snrq_allocate(1, sizeof *grid, "process grid", &grid));
    if (grid != NULL)
        *grid = (snrq_process_grid){.context = context,
                                    .blacs = OUTSIDE,
                                    .rows = rows,
                                    .columns = columns,
                                    .row = OUTSIDE,
                                    .column = OUTSIDE};
    if (status == SNRQ_OK) status = snrq_agree(context, start_blacs(grid));
    if (status != SNRQ_OK)
        snrq_process_grid_destroy(&grid);
    else
        *out = grid;
    return status;
}

void snrq_process_grid_destroy(snrq_process_grid **grid)
{
    if (*grid == NULL) return;
    if ((*grid)->blacs != OUTSIDE) Cblacs_gridexit((*grid)->blacs);
    free(*grid);
    *grid = NULL;
}

/* Number of the `count` rows (or columns) that process `process` of `processes` holds. */
static int64_t local_count(int64_t count, int process, int processes)
{
    int64_t whole = count / NB, share = whole / processes * NB, extra = whole % processes;
    if (process < extra) return share + NB;
    return process == extra ? share + count % NB : share;
}

/* Number of local rows (or columns) of `process` with a global index below `global`: the local
 * index at which the first one >= global is found. */
static int64_t local_begin(int64_t global, int process, int processes)
{
    return local_count(global, process, processes);
}

static int64_t to_global(int64_t local, int process, int processes)
{
    return (local / NB * processes + process) * NB + local % NB;
}

int64_t snrq_matrix_global_row(const snrq_matrix *m, int64_t local)
{
    return to_global(local, m->grid->row, m->grid->rows);
}

int64_t snrq_matrix_global_column(const snrq_matrix *m, int64_t local)
{
    return to_global(local, m->grid->column, m->grid->columns);
}

/* ScaLAPACK indexes local elements with int. */
static snrq_status check_sizes(const snrq_matrix *m)
{
    if (m->rows < 1 || m->columns < 1 || m->rows > INT_MAX || m->columns > INT_MAX ||
        (m->local_columns > 0 && m->local_rows > INT_MAX / m->local_columns))
        return snrq_fail(
            SNRQ_INTERNAL,
            "a %lld x %lld matrix on a grid of %d x %d has a local part of %lld x %lld, "
            "ScaLAPACK can index 2^31 - 1 elements: use a larger grid",
            (long long)m->rows, (long long)m->columns, m->grid->rows, m->grid->columns,
            (long long)m->local_rows, (long long)m->local_columns);
    return SNRQ_OK;
}

/* The array descriptor of ScaLAPACK: dense, grid, size, block size, owner of the first block,
 * leading dimension. */
static void describe(snrq_matrix *m)
{
    int leading = m->local_rows > 0 ? (int)m->local_rows : 1;
    int d[9] = {1, m->grid->blacs, (int)m->rows, (int)m->columns, NB, NB, 0, 0, leading};
    memcpy(m->descriptor, d, sizeof d);
}

static snrq_status create_local(const snrq_process_grid *grid, int64_t rows, int64_t columns,
                                snrq_matrix **out)
{
    snrq_matrix *m = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *m, "matrix", &m));
    *out = m;
    *m = (snrq_matrix){.grid = grid, .rows = rows, .columns = columns};
    if (grid->blacs != OUTSIDE && rows > 0 && columns > 0) {
        m->local_rows = local_count(rows, grid->row, grid->rows);
        m->local_columns = local_count(columns, grid->column, grid->columns);
    }
    SNRQ_TRY(check_sizes(m));
    describe(m);
    return snrq_allocate((size_t)(m->local_rows * m->local_columns), sizeof *m->local,
                         "local part of a matrix", &m->local);
}

snrq_status snrq_matrix_create(const snrq_process_grid *grid, int64_t rows, int64_t columns,
                               snrq_matrix **out)
{
    *out = NULL;
    snrq_status status = snrq_agree(grid->context, create_local(grid, rows, columns, out));
    if (status != SNRQ_OK) snrq_matrix_destroy(out);
    return status;
}

void snrq_matrix_destroy(snrq_matrix **matrix)
{
    if (*matrix == NULL) return;
    free((*matrix)->local);
    free(*matrix);
    *matrix = NULL;
}

snrq_panel_part snrq_panel_part_of(const snrq_matrix *m, int row, int column, snrq_panel_place at)
{
    const snrq_process_grid *g = m->grid;
    return (snrq_panel_part){.row = row,
                             .column = column,
                             .row_begin = local_begin(at.first_row, row, g->rows),
                             .row_end = local_count(m->rows, row, g->rows),
                             .column_begin = local_begin(at.begin, column, g->columns),
                             .column_end = local_begin(at.begin + at.width, column, g->columns)};
}

/* Items up to the end of the block that local index `local` is in, or up to `end`. */
static int64_t run_length(int64_t local, int64_t end)
{
    int64_t block_end = (local / NB + 1) * NB;
    return (block_end < end ? block_end : end) - local;
}

/* to <- numbers of the size there. */
static void copy_numbers(const void *from, size_t from_size, int64_t count, void *to, size_t size)
{
    const double *numbers = from;
    float *floats = to;
    if (from_size == size)
        memcpy(to, from, (size_t)count * size);
    else
        for (int64_t i = 0; i < count; i++) floats[i] = (float)numbers[i];
}

void snrq_panel_part_unpack(const snrq_matrix *m, const snrq_panel_part *p, snrq_panel_place at,
                            const void *from, size_t from_size, int64_t stride, void *panel,
                            size_t size)
{
    const int64_t leading = m->rows - at.first_row;
#pragma omp parallel for schedule(static)
    for (int64_t j = p->column_begin; j < p->column_end; j++) {
        const char *column =
            (const char *)from + (size_t)((j - p->column_begin) * stride) * from_size;
        int64_t to =
            (to_global(j, p->column, m->grid->columns) - at.begin) * leading - at.first_row;
        for (int64_t i = p->row_begin, run; i < p->row_end; i += run) {
            run = run_length(i, p->row_end);
            copy_numbers(column + (size_t)(i - p->row_begin) * from_size, from_size, run,
                         (char *)panel + (size_t)(to + to_global(i, p->row, m->grid->rows)) * size,
                         size);
        }
    }
}

void snrq_matrix_set_panel(snrq_matrix *m, int64_t begin, int64_t width, int64_t first_row,
                           const double *panel)
{
    if (m->grid->blacs == OUTSIDE) return;
    snrq_panel_place at = {begin, width, first_row};
    snrq_panel_part p = snrq_panel_part_of(m, m->grid->row, m->grid->column, at);
    for (int64_t j = p.column_begin; j < p.column_end; j++) {
        const double *from =
            panel + (snrq_matrix_global_column(m, j) - begin) * (m->rows - first_row);
        double *to = m->local + j * m->local_rows;
        for (int64_t i = p.row_begin, run; i < p.row_end; i += run) {
            run = run_length(i, p.row_end);
            memcpy(to + i, from + snrq_matrix_global_row(m, i) - first_row,
                   (size_t)run * sizeof *to);
        }
    }
}

/* Sends one process's part of the panel to everyone. */
static snrq_status broadcast_part(const snrq_matrix *m, const snrq_panel_part *p, double *packed)
{
    const snrq_context *c = m->grid->context;
    int owner = p->row * m->grid->columns + p->column;
    int64_t rows = p->row_end - p->row_begin, columns = p->column_end - p->column_begin;
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "broadcasts %lld numbers of a matrix from rank %d",
                             (long long)(rows * columns), owner));
    if (c->rank == owner)
        for (int64_t j = 0; j < columns; j++)
            memcpy(packed + j * rows, snrq_panel_part_own(m, p) + j * m->local_rows,
                   (size_t)rows * sizeof *packed);
    for (int64_t at = 0; at < rows * columns; at += CHUNK_ITEMS) {
        int64_t left = rows * columns - at;
        SNRQ_TRY(
            snrq_mpi_check(MPI_Bcast(packed + at, (int)(left < CHUNK_ITEMS ? left : CHUNK_ITEMS),
                                     MPI_DOUBLE, owner, c->comm),
                           "MPI_Bcast"));
    }
    return SNRQ_OK;
}

snrq_status snrq_matrix_broadcast_panel(const snrq_matrix *m, int64_t begin, int64_t width,
                                        int64_t first_row, double *panel)
{
    const snrq_process_grid *g = m->grid;
    const snrq_panel_place at = {begin, width, first_row};
    double *packed = NULL;
    if (g->context->size == 1) {
        snrq_panel_part all = snrq_panel_part_of(m, 0, 0, at);
        snrq_panel_part_unpack(m, &all, at, snrq_panel_part_own(m, &all), sizeof *panel,
                               m->local_rows, panel, sizeof *panel);
        return SNRQ_OK;
    }
    /* The first process of a row or column holds no less than any other, give or take one block. */
    int64_t most_rows = ((m->rows - first_row) / NB / g->rows + 2) * NB;
    int64_t most_columns = (width / NB / g->columns + 2) * NB;
    if (most_rows > m->rows - first_row) most_rows = m->rows - first_row;
    if (most_columns > width) most_columns = width;
    snrq_status status =
        snrq_agree(g->context, snrq_allocate_scratch((size_t)(most_rows * most_columns),
                                                     sizeof *packed, "panel buffer", &packed));
    for (int row = 0; row < g->rows; row++)
        for (int column = 0; column < g->columns && status == SNRQ_OK; column++) {
            snrq_panel_part p = snrq_panel_part_of(m, row, column, at);
            status = broadcast_part(m, &p, packed);
            if (status == SNRQ_OK)
                snrq_panel_part_unpack(m, &p, at, packed, sizeof *packed, p.row_end - p.row_begin,
                                       panel, sizeof *panel);
        }
    free(packed);
    return status;
}

/* The diagonal element of local column j, and its place; NULL if this rank does not own it. */
static double *own_diagonal(const snrq_matrix *m, int64_t j, int64_t *global)
{
    *global = snrq_matrix_global_column(m, j);
    if (*global >= m->rows || *global / NB % m->grid->rows != m->grid->row) return NULL;
    return &m->local[j * m->local_rows + local_begin(*global, m->grid->row, m->grid->rows)];
}

void snrq_matrix_add_diagonal(snrq_matrix *m, double value, const unsigned char *mask)
{
    int64_t global;
    for (int64_t j = 0; j < m->local_columns; j++) {
        double *element = own_diagonal(m, j, &global);
        if (element != NULL && (mask == NULL || mask[global] != 0)) *element += value;
    }
}

void snrq_matrix_set_diagonal(snrq_matrix *m, const double *diagonal)
{
    for (int64_t j = 0; j < m->local_columns; j++) {
        int64_t global;
        double *element = own_diagonal(m, j, &global);
        if (element != NULL) *element = diagonal[global];
    }
}

void snrq_matrix_scale_diagonal(snrq_matrix *m, double factor)
{
    int64_t global;
    for (int64_t j = 0; j < m->local_columns; j++) {
        double *element = own_diagonal(m, j, &global);
        if (element != NULL) *element *= factor;
    }
}

snrq_status snrq_matrix_diagonal(const snrq_matrix *m, double *diagonal)
{
    memset(diagonal, 0, (size_t)m->columns * sizeof *diagonal);
    for (int64_t j = 0; j < m->local_columns; j++) {
        int64_t global;
        const double *element = own_diagonal(m, j, &global);
        if (element != NULL) diagonal[global] = *element;
    }
    return snrq_collect(m->grid->context, diagonal, m->columns);
}
