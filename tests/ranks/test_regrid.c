/* Least-squares scales: a minimum of the objective, the same on any rank. */
#include <math.h>
#include <string.h>

#include "mpi/algebra/matrix.h"
#include "pipeline/rounding/regrid.h"
#include "tests/ranks/rank_test.h"

enum { ROWS = 64, N = 150, GROUP = 40, GROUPS = 4 };

/* Random L, targets and codes; groups of columns that do not lie together. */
typedef struct problem {
    double l[N * N], h[N * N];
    snrq_groups groups;
    snrq_rows rows;
    snrq_process_grid *grid;
    snrq_matrix *factor;
} problem;

static void make_problem(problem *p)
{
    int32_t order[N];
    memset(p, 0, sizeof *p);
    for (int64_t j = 0; j < N; j++) order[j] = (int32_t)(j * 7 % N);
    CU_ASSERT_EQUAL(snrq_groups_create(order, N, GROUP, false, &p->groups), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_rows_create(ROWS, 3, &p->groups, &p->rows), SNRQ_OK);
    for (int64_t j = 0; j < N; j++)
        for (int64_t i = j; i < N; i++)
            p->l[j * N + i] =
                i == j ? 1.5 + rank_test_number(i, j, 1) : 0.2 * rank_test_number(i, j, 2);
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < N; j++)
            for (int64_t k = 0; k < N; k++) p->h[i * N + j] += p->l[k * N + i] * p->l[k * N + j];
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t k = 0; k < N; k++) {
            p->rows.target[r * N + k] = (float)rank_test_number(r, k, 3);
            double code = rint((double)p->rows.target[r * N + k] / 0.3) + 4;
            p->rows.codes[r * N + k] = (uint8_t)(code < 0 ? 0 : code > 7 ? 7 : code);
        }
        for (int64_t g = 0; g < GROUPS; g++) {
            p->rows.scales[r * GROUPS + g] = 0.3f;
            p->rows.zeros[r * GROUPS + g] = 4;
        }
    }
    CU_ASSERT_EQUAL(snrq_process_grid_create(rank_test_world, 1, 1, &p->grid), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(p->grid, N, N, &p->factor), SNRQ_OK);
    snrq_matrix_set_panel(p->factor, 0, N, 0, p->l);
}

static void free_problem(problem *p)
{
    snrq_matrix_destroy(&p->factor);
    snrq_process_grid_destroy(&p->grid);
    snrq_rows_free(&p->rows);
    snrq_groups_free(&p->groups);
}

static double objective(const problem *p, int64_t row, const float *scales)
{
    double e[N], sum = 0.0;
    for (int64_t k = 0; k < N; k++)
        e[k] = (double)scales[p->groups.of_position[k]] * (p->rows.codes[row * N + k] - 4) -
               (double)p->rows.target[row * N + k];
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < N; j++) sum += e[i] * p->h[i * N + j] * e[j];
    return sum;
}

static void no_scale_nearby_is_better(void)
{
    static problem p;
    float scales[ROWS * GROUPS];
    make_problem(&p);
    CU_ASSERT_EQUAL(snrq_regrid(p.factor, SNRQ_F32, &p.rows, scales), SNRQ_OK);
    for (int64_t r = 0; r < ROWS; r++) {
        float *mine = scales + r * GROUPS;
        double best = objective(&p, r, mine);
        CU_ASSERT(best < objective(&p, r, p.rows.scales + r * GROUPS));
        for (int64_t g = 0; g < GROUPS; g++)
            for (int step = -1; step <= 1; step += 2) {
                float kept = mine[g];
                mine[g] *= 1.0f + 0.003f * (float)step;
                CU_ASSERT(objective(&p, r, mine) > best);
                mine[g] = kept;
            }
    }
    free_problem(&p);
}

static void a_group_of_zeros_keeps_its_scale(void)
{
    static problem p;
    float scales[ROWS * GROUPS];
    make_problem(&p);
    for (int64_t k = 0; k < N; k++)
        if (p.groups.of_position[k] == 2) p.rows.codes[5 * N + k] = 4;
    CU_ASSERT_EQUAL(snrq_regrid(p.factor, SNRQ_F16, &p.rows, scales), SNRQ_OK);
    CU_ASSERT_EQUAL(scales[5 * GROUPS + 2], snrq_round_to(SNRQ_F16, 0.3f));
    for (int64_t i = 0; i < ROWS * GROUPS; i++)
        CU_ASSERT_EQUAL(scales[i], snrq_round_to(SNRQ_F16, scales[i]));
    free_problem(&p);
}

int main(int argc, char **argv)
{
    static const snrq_test tests[] = {SNRQ_TEST(no_scale_nearby_is_better),
                                      SNRQ_TEST(a_group_of_zeros_keeps_its_scale)};
    return rank_test_main(argc, argv, "regrid", tests, sizeof tests / sizeof *tests);
}
