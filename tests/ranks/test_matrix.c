/* Block-cyclic matrices: what is stored by one rank is what all ranks read, for every grid. */
#include "mpi/algebra/matrix.h"

#include <string.h>

#include "mpi/algebra/factor.h"
#include "tests/ranks/rank_test.h"

static const int64_t SIZES[] = {1, 127, 128, 129, 300, 700};
enum { SIZES_COUNT = sizeof SIZES / sizeof *SIZES };

/* Element (i, j) of every matrix in these tests. */
static double element(int64_t i, int64_t j)
{
    return (double)(1 + i) * 1e6 + (double)j;
}

/* Columns [begin, begin + width), rows [first_row, rows) of such a matrix. The caller frees it. */
static double *panel_of(int64_t rows, int64_t begin, int64_t width, int64_t first_row)
{
    double *panel = malloc((size_t)((rows - first_row) * width) * sizeof *panel);
    for (int64_t j = 0; j < width; j++)
        for (int64_t i = first_row; i < rows; i++)
            panel[j * (rows - first_row) + i - first_row] = element(i, begin + j);
    return panel;
}

static void fill(snrq_matrix *m, int64_t width)
{
    for (int64_t begin = 0; begin < m->columns; begin += width) {
        int64_t here = m->columns - begin < width ? m->columns - begin : width;
        double *panel = panel_of(m->rows, begin, here, 0);
        snrq_matrix_set_panel(m, begin, here, 0, panel);
        free(panel);
    }
}

/* Does every rank read the panel that element() says? */
static void check_panel(const snrq_matrix *m, int64_t begin, int64_t width, int64_t first_row)
{
    size_t count = (size_t)((m->rows - first_row) * width);
    double *expected = panel_of(m->rows, begin, width, first_row);
    double *found = calloc(count, sizeof *found);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(m, begin, width, first_row, found), SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(expected, found, count * sizeof *found), 0);
    free(expected);
    free(found);
}

static void round_trip(const snrq_process_grid *grid, int64_t rows, int64_t columns)
{
    snrq_matrix *m = NULL;
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, rows, columns, &m), SNRQ_OK);
    fill(m, 200);
    for (int64_t begin = 0; begin < columns; begin += SNRQ_PANEL) {
        int64_t width = columns - begin < SNRQ_PANEL ? columns - begin : SNRQ_PANEL;
        check_panel(m, begin, width, 0);
        if (begin < rows) check_panel(m, begin, width, begin);
    }
    check_panel(m, 0, columns, rows / 2);
    check_panel(m, columns / 3, columns - columns / 3, rows / 3);
    snrq_matrix_destroy(&m);
    CU_ASSERT_PTR_NULL(m);
}

static void round_trips(const snrq_process_grid *grid)
{
    for (int k = 0; k < SIZES_COUNT; k++) {
        round_trip(grid, SIZES[k], SIZES[k]);
        round_trip(grid, SIZES[k], SIZES[SIZES_COUNT - 1 - k]);
    }
}

static void every_rank_reads_what_was_stored(void)
{
    rank_test_on_every_grid(round_trips);
}

static void panels_below_a_row_leave_the_rest_alone(void)
{
    snrq_process_grid *grid = NULL;
    snrq_matrix *m = NULL;
    double panel[2 * 100], found[300];
    for (int k = 0; k < 200; k++) panel[k] = element(200 + k % 100, 140 + k / 100);
    snrq_process_grid_create(rank_test_world, 1, rank_test_world->size, &grid);
    snrq_matrix_create(grid, 300, 300, &m);
    snrq_matrix_set_panel(m, 140, 2, 200, panel);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(m, 141, 1, 0, found), SNRQ_OK);
    for (int i = 0; i < 300; i++) CU_ASSERT_EQUAL(found[i], i < 200 ? 0 : element(i, 141));
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(m, 142, 1, 0, found), SNRQ_OK);
    for (int i = 0; i < 300; i++) CU_ASSERT_EQUAL(found[i], 0);
    snrq_matrix_destroy(&m);
    snrq_process_grid_destroy(&grid);
}

static void local_elements_are_where_the_global_index_says(void)
{
    snrq_process_grid *grid = NULL;
    snrq_matrix *m = NULL;
    int64_t wrong = 0, count;
    int rows = rank_test_world->size >= 4 ? 2 : 1;
    snrq_process_grid_create(rank_test_world, rows, rank_test_world->size / rows, &grid);
    snrq_matrix_create(grid, 700, 600, &m);
    fill(m, 600);
    for (int64_t j = 0; j < m->local_columns; j++)
        for (int64_t i = 0; i < m->local_rows; i++)
            wrong += m->local[j * m->local_rows + i] !=
                     element(snrq_matrix_global_row(m, i), snrq_matrix_global_column(m, j));
    count = m->local_rows * m->local_columns;
    snrq_sum_int64(rank_test_world, &count, 1);
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(count, 700 * 600);
    snrq_matrix_destroy(&m);
    snrq_process_grid_destroy(&grid);
}

static void diagonal_is_added_where_the_mask_says(void)
{
    snrq_process_grid *grid = NULL;
    snrq_matrix *m = NULL;
    unsigned char mask[300];
    double found[300];
    int64_t wrong = 0;
    for (int i = 0; i < 300; i++) mask[i] = i % 3 == 0;
    snrq_process_grid_create(rank_test_world, 1, rank_test_world->size, &grid);
    snrq_matrix_create(grid, 300, 300, &m);
    snrq_matrix_add_diagonal(m, 2, NULL);
    snrq_matrix_add_diagonal(m, 5, mask);
    for (int j = 0; j < 300; j++) {
        snrq_matrix_broadcast_panel(m, j, 1, 0, found);
        for (int i = 0; i < 300; i++) wrong += found[i] != (i != j ? 0 : i % 3 == 0 ? 7 : 2);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    snrq_matrix_destroy(&m);
    snrq_process_grid_destroy(&grid);
}

static void grid_shape_depends_on_the_order_once_there_are_ranks(void)
{
    const int expected[][4] = {/* n, ranks, rows, columns */
                               {64, 8, 1, 1},    {896, 8, 1, 1},   {897, 8, 2, 2},
                               {1024, 1, 1, 1},  {1024, 2, 1, 2},  {1024, 4, 2, 2},
                               {1024, 99, 2, 2}, {4096, 3, 1, 3},  {4096, 6, 2, 3},
                               {4096, 12, 3, 4}, {4096, 64, 8, 8}, {4096, 500, 8, 8}};
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++) {
        int rows = 0, columns = 0;
        snrq_process_grid_shape(expected[k][0], expected[k][1], &rows, &columns);
        CU_ASSERT_EQUAL(rows, expected[k][2]);
        CU_ASSERT_EQUAL(columns, expected[k][3]);
    }
}

static void grids_larger_than_the_context_are_refused(void)
{
    const int shapes[][2] = {{1, rank_test_world->size + 1},
                             {rank_test_world->size, 2},
                             {0, 1},
                             {1, -1},
                             {65536, 65536}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        snrq_process_grid *grid = NULL;
        CU_ASSERT_EQUAL(
            snrq_process_grid_create(rank_test_world, shapes[k][0], shapes[k][1], &grid),
            SNRQ_USAGE);
        CU_ASSERT_PTR_NULL(grid);
    }
}

static void matrices_that_scalapack_cannot_index_are_refused(void)
{
    const int64_t sizes[][2] = {{0, 5}, {5, 0}, {(int64_t)1 << 31, 1}, {1 << 22, 1 << 22}};
    snrq_process_grid *grid = NULL;
    snrq_process_grid_create(rank_test_world, 1, rank_test_world->size, &grid);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        snrq_matrix *m = NULL;
        CU_ASSERT_EQUAL(snrq_matrix_create(grid, sizes[k][0], sizes[k][1], &m), SNRQ_INTERNAL);
        CU_ASSERT_PTR_NULL(m);
    }
    snrq_process_grid_destroy(&grid);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(every_rank_reads_what_was_stored),
        SNRQ_TEST(panels_below_a_row_leave_the_rest_alone),
        SNRQ_TEST(local_elements_are_where_the_global_index_says),
        SNRQ_TEST(diagonal_is_added_where_the_mask_says),
        SNRQ_TEST(grid_shape_depends_on_the_order_once_there_are_ranks),
        SNRQ_TEST(grids_larger_than_the_context_are_refused),
        SNRQ_TEST(matrices_that_scalapack_cannot_index_are_refused),
    };
    return rank_test_main(argc, argv, "matrix", tests, sizeof tests / sizeof *tests);
}
