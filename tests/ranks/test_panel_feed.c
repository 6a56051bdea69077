/* Panels on their way: every rank takes what was stored, for every grid, while the next is sent. */
#include "mpi/algebra/panel_feed.h"

#include <string.h>

#include "tests/ranks/rank_test.h"

enum { N = 700, WIDTH = 96 }; /* panels that do not end where blocks of the matrix do */

/* What fp32 cannot hold. */
static double element(int64_t i, int64_t j)
{
    return (double)(1 + i) + (double)(1 + j) / 1024.0 + 1e-9;
}

static snrq_matrix *matrix_of(const snrq_process_grid *grid)
{
    snrq_matrix *m = NULL;
    double *all = malloc((size_t)N * N * sizeof *all);
    for (int64_t j = 0; j < N; j++)
        for (int64_t i = 0; i < N; i++) all[j * N + i] = element(i, j);
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, N, N, &m), SNRQ_OK);
    snrq_matrix_set_panel(m, 0, N, 0, all);
    free(all);
    return m;
}

static int64_t width_at(int64_t begin)
{
    return N - begin < WIDTH ? N - begin : WIDTH;
}

/* Takes all panels from the last to the first, each while the one before it is on its way. */
static void take_all(const snrq_matrix *m, size_t size, bool lower)
{
    snrq_panel_feed *feed = NULL;
    int64_t wrong = 0, begin = (N - 1) / WIDTH * WIDTH;
    double *panel = malloc((size_t)N * WIDTH * sizeof *panel);
    const float *floats = (const float *)(const void *)panel;
    CU_ASSERT_EQUAL(snrq_panel_feed_create(m, WIDTH, size, &feed), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_panel_feed_start(feed, begin, width_at(begin), lower ? begin : 0),
                    SNRQ_OK);
    for (; begin >= 0; begin -= WIDTH) {
        int64_t next = begin - WIDTH, first = lower ? begin : 0, rows = N - first;
        CU_ASSERT(snrq_panel_feed_expects(feed, begin));
        CU_ASSERT_EQUAL(snrq_panel_feed_take(feed, panel), SNRQ_OK);
        CU_ASSERT(!snrq_panel_feed_expects(feed, begin));
        if (next >= 0)
            CU_ASSERT_EQUAL(snrq_panel_feed_start(feed, next, WIDTH, lower ? next : 0), SNRQ_OK);
        snrq_panel_feed_progress(feed);
        for (int64_t k = 0; k < width_at(begin) * rows; k++) {
            double there = element(first + k % rows, begin + k / rows);
            wrong += size == sizeof there ? panel[k] != there : floats[k] != (float)there;
        }
    }
    CU_ASSERT_EQUAL(wrong, 0);
    snrq_panel_feed_destroy(&feed);
    CU_ASSERT_PTR_NULL(feed);
    free(panel);
}

static void take_from(const snrq_process_grid *grid)
{
    snrq_matrix *m = matrix_of(grid);
    for (int lower = 0; lower <= 1; lower++) {
        take_all(m, sizeof(double), lower);
        take_all(m, sizeof(float), lower);
    }
    snrq_matrix_destroy(&m);
}

static void every_rank_takes_what_was_stored(void)
{
    rank_test_on_every_grid(take_from);
}

static void one_panel_is_on_its_way_at_a_time(void)
{
    snrq_process_grid *grid = NULL;
    snrq_panel_feed *feed = NULL;
    double *panel = malloc((size_t)N * WIDTH * sizeof *panel);
    CU_ASSERT_EQUAL(snrq_process_grid_create(rank_test_world, 1, rank_test_world->size, &grid),
                    SNRQ_OK);
    snrq_matrix *m = matrix_of(grid);
    CU_ASSERT_EQUAL(snrq_panel_feed_create(m, WIDTH, sizeof *panel, &feed), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_panel_feed_take(feed, panel), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_panel_feed_start(feed, 0, WIDTH + 1, 0), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_panel_feed_start(feed, 0, WIDTH, 0), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_panel_feed_start(feed, WIDTH, WIDTH, 0), SNRQ_INTERNAL);
    CU_ASSERT_EQUAL(snrq_panel_feed_take(feed, panel), SNRQ_OK);
    CU_ASSERT_EQUAL(panel[N + 5], element(5, 1));
    /* One that nobody takes is waited for. */
    CU_ASSERT_EQUAL(snrq_panel_feed_start(feed, WIDTH, WIDTH, 0), SNRQ_OK);
    snrq_panel_feed_destroy(&feed);
    snrq_matrix_destroy(&m);
    snrq_process_grid_destroy(&grid);
    free(panel);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(every_rank_takes_what_was_stored),
        SNRQ_TEST(one_panel_is_on_its_way_at_a_time),
    };
    return rank_test_main(argc, argv, "panel_feed", tests, sizeof tests / sizeof *tests);
}
