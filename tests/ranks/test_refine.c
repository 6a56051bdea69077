/* Coordinate descent and its gradient against dense fp64 twins. */
#include <math.h>
#include <string.h>

#include "mpi/algebra/matrix.h"
#include "pipeline/rounding/refine.h"
#include "tests/ranks/rank_test.h"

enum { N = 250, ROWS = 128, GROUP = 32 };

/* Random H and targets, rounded to the nearest code: far from the best. Groups do not lie together.
 */
typedef struct problem {
    double h[N * N];
    snrq_groups groups;
    snrq_rows rows;
    snrq_process_grid *grid;
    snrq_matrix *gram;
} problem;

static void fill_gram(problem *p)
{
    static double a[2 * N][N];
    for (int64_t t = 0; t < 2 * N; t++)
        for (int64_t j = 0; j < N; j++)
            a[t][j] = rank_test_number(t, j, 1) + 0.3 * rank_test_number(t, 0, 2);
    for (int64_t t = 0; t < 2 * N; t++)
        for (int64_t i = 0; i < N; i++)
            for (int64_t j = 0; j < N; j++) p->h[i * N + j] += a[t][i] * a[t][j] / N;
    CU_ASSERT_EQUAL(snrq_process_grid_create(rank_test_world, 1, 1, &p->grid), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(p->grid, N, N, &p->gram), SNRQ_OK);
    snrq_matrix_set_panel(p->gram, 0, N, 0, p->h);
}

static void make_problem(problem *p)
{
    int32_t order[N];
    memset(p, 0, sizeof *p);
    for (int64_t j = 0; j < N; j++) order[j] = (int32_t)(j * 7 % N);
    CU_ASSERT_EQUAL(snrq_groups_create(order, N, GROUP, false, &p->groups), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_rows_create(ROWS, 3, &p->groups, &p->rows), SNRQ_OK);
    fill_gram(p);
    for (int64_t i = 0; i < ROWS * p->groups.count; i++) {
        p->rows.scales[i] = 0.25f + 0.05f * (float)rank_test_number(i, 0, 3);
        p->rows.zeros[i] = (uint8_t)(3 + i % 2);
    }
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t k = 0; k < N; k++) {
            int64_t g = r * p->groups.count + p->groups.of_position[k], at = r * N + k;
            p->rows.target[at] = (float)rank_test_number(r, k, 4);
            p->rows.codes[at] = (uint8_t)snrq_nearest_code(p->rows.target[at], p->rows.scales[g],
                                                           p->rows.zeros[g], 7);
        }
}

static void free_problem(problem *p)
{
    snrq_matrix_destroy(&p->gram);
    snrq_process_grid_destroy(&p->grid);
    snrq_rows_free(&p->rows);
    snrq_groups_free(&p->groups);
}

/* G_k of a row. */
static double dense_gradient(const problem *p, int64_t row, int64_t k)
{
    double sum = 0.0;
    for (int64_t i = 0; i < N; i++)
        sum += (double)(p->rows.target[row * N + i] - snrq_rows_value(&p->rows, row, i)) *
               p->h[i * N + k];
    return sum;
}

static double objective(const problem *p, int64_t row)
{
    double sum = 0.0;
    for (int64_t k = 0; k < N; k++)
        sum += (double)(p->rows.target[row * N + k] - snrq_rows_value(&p->rows, row, k)) *
               dense_gradient(p, row, k);
    return sum;
}

/* Twin: `passes` passes over a row in fp64, G from scratch at every step. Returns how many codes
 * changed. */
static int64_t descend_dense(problem *p, int64_t row, int passes)
{
    int64_t changed = 0;
    for (int64_t step = passes * N - 1; step >= 0; step--) {
        int64_t k = step % N, g = row * p->groups.count + p->groups.of_position[k];
        uint8_t *code = &p->rows.codes[row * N + k];
        double best =
            (double)snrq_rows_value(&p->rows, row, k) + dense_gradient(p, row, k) / p->h[k * N + k];
        double nearest = rint(best / (double)p->rows.scales[g]) + p->rows.zeros[g];
        uint8_t wanted = (uint8_t)(nearest < 0 ? 0 : nearest > 7 ? 7 : nearest);
        changed += wanted != *code;
        *code = wanted;
    }
    return changed;
}

static void codes_equal_those_of_the_twin(int passes)
{
    static problem p, twin;
    int64_t same = 0, changed = 0;
    make_problem(&p);
    make_problem(&twin);
    CU_ASSERT_EQUAL(snrq_refine(p.gram, passes, &p.rows, NULL), SNRQ_OK);
    for (int64_t r = 0; r < ROWS; r++) {
        changed += descend_dense(&twin, r, passes);
        same += memcmp(p.rows.codes + r * N, twin.rows.codes + r * N, N) == 0;
    }
    CU_ASSERT(changed > ROWS);
    /* fp32 against fp64: a near tie may flip, and sends that row another way */
    CU_ASSERT(same >= ROWS - 2);
    free_problem(&p);
    free_problem(&twin);
}

static void one_pass_equals_its_twin(void)
{
    codes_equal_those_of_the_twin(1);
}

static void three_passes_equal_their_twin(void)
{
    codes_equal_those_of_the_twin(3);
}

static void gradient_is_that_of_the_codes(void)
{
    static problem p;
    for (int passes = 0; passes <= 4; passes++) {
        snrq_gradient gradient;
        snrq_gram_panel panel;
        make_problem(&p);
        CU_ASSERT_EQUAL(snrq_refine(p.gram, passes, &p.rows, &gradient), SNRQ_OK);
        CU_ASSERT_EQUAL(snrq_gram_panel_create(p.gram, &panel), SNRQ_OK);
        for (int64_t end = N; end > 0; end = panel.begin) {
            CU_ASSERT_EQUAL(snrq_gram_panel_load(&panel, snrq_gram_panel_begin(end), NULL, NULL),
                            SNRQ_OK);
            for (int64_t r = 0; r < ROWS; r += 5) {
                float g[SNRQ_GRAM_PANEL] = {0};
                memcpy(g, gradient.g + r * N + panel.begin, (size_t)panel.width * sizeof *g);
                snrq_gradient_update(&gradient, &p.rows, r, 0, panel.begin, &panel, NULL, g);
                /* fp32 sums of 250 products, the largest of about 0.1 */
                for (int64_t c = 0; c < panel.width; c++)
                    CU_ASSERT(fabs((double)g[c] - dense_gradient(&p, r, panel.begin + c)) < 1e-5);
            }
        }
        snrq_gram_panel_free(&panel);
        snrq_gradient_free(&gradient);
        free_problem(&p);
    }
}

static void cost_follows_the_objective(void)
{
    static problem p;
    double before[ROWS];
    make_problem(&p);
    for (int64_t r = 0; r < ROWS; r++) p.rows.costs[r] = before[r] = objective(&p, r);
    CU_ASSERT_EQUAL(snrq_refine(p.gram, 3, &p.rows, NULL), SNRQ_OK);
    for (int64_t r = 0; r < ROWS; r++) {
        CU_ASSERT(p.rows.costs[r] < before[r]);
        /* each of some hundred steps is off by a few 1e-7 of what it gains */
        CU_ASSERT(fabs(p.rows.costs[r] - objective(&p, r)) <= 1e-5 * before[r]);
    }
    free_problem(&p);
}

int main(int argc, char **argv)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(one_pass_equals_its_twin), SNRQ_TEST(three_passes_equal_their_twin),
        SNRQ_TEST(gradient_is_that_of_the_codes), SNRQ_TEST(cost_follows_the_objective)};
    return rank_test_main(argc, argv, "refine", tests, sizeof tests / sizeof *tests);
}
