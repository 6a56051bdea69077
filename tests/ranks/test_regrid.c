/* Least-squares scales: a minimum of the objective, equal to their dense fp64 twin, the same for a
 * row whatever else a rank has. */
#include <math.h>
#include <string.h>

#include "mpi/algebra/matrix.h"
#include "pipeline/rounding/regrid.h"
#include "pipeline/rounding/trial.h"
#include "tests/ranks/rank_test.h"

enum { MOST = 500, ROWS = 192, MOST_GROUPS = 32 };

/* Random L, targets and codes. */
typedef struct problem {
    int64_t n, groups_count;
    double l[MOST * MOST], h[MOST * MOST];
    snrq_groups groups;
    snrq_rows rows;
    snrq_process_grid *grid;
    snrq_matrix *factor, *gram;
} problem;

static void fill_matrices(problem *p)
{
    int64_t n = p->n;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = j; i < n; i++)
            p->l[j * n + i] =
                i == j ? 1.5 + rank_test_number(i, j, 1) : 0.2 * rank_test_number(i, j, 2);
    for (int64_t k = 0; k < n; k++)
        for (int64_t i = k; i < n; i++)
            for (int64_t j = k; j < n; j++) p->h[i * n + j] += p->l[k * n + i] * p->l[k * n + j];
    CU_ASSERT_EQUAL(snrq_process_grid_create(rank_test_world, 1, 1, &p->grid), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(p->grid, n, n, &p->factor), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(p->grid, n, n, &p->gram), SNRQ_OK);
    snrq_matrix_set_panel(p->factor, 0, n, 0, p->l);
    snrq_matrix_set_panel(p->gram, 0, n, 0, p->h);
}

/* Unless they are permuted, columns of a group do not lie together. */
static void make_problem(problem *p, int64_t n, int64_t group_size, bool permuted)
{
    int32_t order[MOST];
    memset(p, 0, sizeof *p);
    p->n = n;
    for (int64_t j = 0; j < n; j++) order[j] = (int32_t)(j * 7 % n);
    CU_ASSERT_EQUAL(snrq_groups_create(order, n, group_size, permuted, &p->groups), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_rows_create(ROWS, 3, &p->groups, &p->rows), SNRQ_OK);
    p->groups_count = p->groups.count;
    fill_matrices(p);
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t k = 0; k < n; k++) {
            p->rows.target[r * n + k] = (float)rank_test_number(r, k, 3);
            double code = rint((double)p->rows.target[r * n + k] / 0.3) + 4;
            p->rows.codes[r * n + k] = (uint8_t)(code < 0 ? 0 : code > 7 ? 7 : code);
        }
        for (int64_t g = 0; g < p->groups_count; g++) {
            p->rows.scales[r * p->groups_count + g] = 0.3f;
            p->rows.zeros[r * p->groups_count + g] = 4;
        }
    }
}

static void free_problem(problem *p)
{
    snrq_matrix_destroy(&p->factor);
    snrq_matrix_destroy(&p->gram);
    snrq_process_grid_destroy(&p->grid);
    snrq_rows_free(&p->rows);
    snrq_groups_free(&p->groups);
}

static void fit(problem *p, snrq_dtype scale_type, float *scales)
{
    snrq_gradient gradient;
    CU_ASSERT_EQUAL(snrq_refine(p->gram, 0, &p->rows, &gradient), SNRQ_OK);
    const snrq_rule rule = {.scale_type = scale_type};
    CU_ASSERT_EQUAL(snrq_regrid(p->gram, &rule, SNRQ_REGRID_SCALES, &p->rows, &gradient, scales),
                    SNRQ_OK);
    snrq_gradient_free(&gradient);
}

static double objective(const problem *p, int64_t row, const float *scales)
{
    double e[MOST], sum = 0.0;
    int64_t n = p->n;
    for (int64_t k = 0; k < n; k++)
        e[k] = (double)scales[p->groups.of_position[k]] * (p->rows.codes[row * n + k] - 4) -
               (double)p->rows.target[row * n + k];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) sum += e[i] * p->h[i * n + j] * e[j];
    return sum;
}

static void no_scale_nearby_is_better(void)
{
    static problem p;
    float scales[ROWS * MOST_GROUPS];
    make_problem(&p, 150, 40, false);
    fit(&p, SNRQ_F32, scales);
    for (int64_t r = 0; r < ROWS; r++) {
        float *mine = scales + r * p.groups_count;
        double best = objective(&p, r, mine);
        CU_ASSERT(best < objective(&p, r, p.rows.scales + r * p.groups_count));
        for (int64_t g = 0; g < p.groups_count; g++)
            for (int step = -1; step <= 1; step += 2) {
                float kept = mine[g];
                mine[g] *= 1.0f + 0.003f * (float)step;
                CU_ASSERT(objective(&p, r, mine) > best);
                mine[g] = kept;
            }
    }
    free_problem(&p);
}

/* Twin in fp64: sum_h (t_g H t_h) s_h = t_g H R for all g, by elimination. */
static void fit_dense(const problem *p, int64_t row, double *s)
{
    static double a[MOST_GROUPS][MOST_GROUPS + 1];
    int64_t n = p->n, count = p->groups_count;
    memset(a, 0, sizeof a);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            int64_t g = p->groups.of_position[i];
            double left = (p->rows.codes[row * n + i] - 4) * p->h[i * n + j];
            a[g][p->groups.of_position[j]] += left * (p->rows.codes[row * n + j] - 4);
            a[g][count] += left * (double)p->rows.target[row * n + j];
        }
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = count; i != k && j >= k; j--) a[i][j] -= a[i][k] / a[k][k] * a[k][j];
    for (int64_t g = 0; g < count; g++) s[g] = a[g][count] / a[g][g];
}

/* H and the rows get a part that all columns have in common, so that groups resemble each other.
 */
static void share_a_direction(problem *p)
{
    for (int64_t i = 0; i < p->n * p->n; i++) p->h[i] += 2.0;
    for (int64_t i = 0; i < ROWS * p->n; i++) {
        p->rows.target[i] += 0.6f;
        p->rows.codes[i] = (uint8_t)(p->rows.codes[i] > 5 ? 7 : p->rows.codes[i] + 2);
    }
    snrq_matrix_set_panel(p->gram, 0, p->n, 0, p->h);
}

/* condition: of A, scaled to a diagonal of ones, at most. */
static void equals_its_dense_twin(int64_t n, int64_t group_size, bool permuted, bool shares,
                                  double condition)
{
    static problem p;
    float scales[ROWS * MOST_GROUPS];
    make_problem(&p, n, group_size, permuted);
    if (shares) share_a_direction(&p);
    fit(&p, SNRQ_F32, scales);
    for (int64_t r = 0; r < ROWS; r += 13) {
        double wanted[MOST_GROUPS], step = 0.0;
        fit_dense(&p, r, wanted);
        for (int64_t g = 0; g < p.groups_count; g++)
            step = fmax(step, fabs(wanted[g] - (double)0.3f));
        /* A and b, scaled to a diagonal of ones, are off by a few 1e-7; the scale itself is stored
         * to half of 2^-23. */
        for (int64_t g = 0; g < p.groups_count; g++)
            CU_ASSERT(fabs((double)scales[r * p.groups_count + g] - wanted[g]) <=
                      3e-7 * condition * step + 0x1p-24 * wanted[g]);
    }
    free_problem(&p);
}

static void scattered_groups_equal_their_twin(void)
{
    equals_its_dense_twin(150, 40, false, false, 2.0);
}

static void runs_equal_their_twin(void)
{
    equals_its_dense_twin(150, 40, true, false, 2.0);
}

static void several_parts_equal_their_twin(void)
{
    CU_ASSERT(snrq_regrid_parts(150, 19) > 1);
    equals_its_dense_twin(150, 8, false, false, 4.0);
}

static void a_group_deeper_than_a_product_equals_its_twin(void)
{
    equals_its_dense_twin(450, 0, false, false, 1.0);
}

static void groups_that_resemble_each_other_equal_their_twin(void)
{
    equals_its_dense_twin(150, 40, false, true, 100.0);
    equals_its_dense_twin(150, 8, false, true, 200.0);
}

static void a_group_of_zeros_keeps_its_scale(void)
{
    static problem p;
    float scales[ROWS * MOST_GROUPS];
    make_problem(&p, 150, 40, false);
    for (int64_t k = 0; k < p.n; k++)
        if (p.groups.of_position[k] == 2) p.rows.codes[5 * p.n + k] = 4;
    for (int64_t g = 0; g < ROWS * p.groups_count; g++)
        p.rows.scales[g] = snrq_round_to(SNRQ_F16, 0.3f);
    fit(&p, SNRQ_F16, scales);
    CU_ASSERT_EQUAL(scales[5 * p.groups_count + 2], snrq_round_to(SNRQ_F16, 0.3f));
    CU_ASSERT_NOT_EQUAL(scales[5 * p.groups_count + 1], snrq_round_to(SNRQ_F16, 0.3f));
    for (int64_t i = 0; i < ROWS * p.groups_count; i++)
        CU_ASSERT_EQUAL(scales[i], snrq_round_to(SNRQ_F16, scales[i]));
    free_problem(&p);
}

/* Four rounds as in pipeline/rounding/rounding.c. */
static void run_rounds(const problem *p, snrq_rows *rows)
{
    snrq_gradient gradient;
    snrq_trial trial;
    float *scales = NULL;
    CU_ASSERT_EQUAL(snrq_allocate((size_t)(rows->rows * rows->groups->count), sizeof *scales,
                                  "scales", &scales),
                    SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_search(p->factor, SNRQ_ROUND_FEEDBACK, 2, rows), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_refine(p->gram, 2, rows, &gradient), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_trial_create(rows, &trial), SNRQ_OK);
    for (int round = 0; round < 4; round++) {
        const snrq_rule rule = {.scale_type = SNRQ_F16};
        CU_ASSERT_EQUAL(
            snrq_regrid(p->gram, &rule, SNRQ_REGRID_SCALES, &trial.rows, &gradient, scales),
            SNRQ_OK);
        snrq_gradient_free(&gradient);
        snrq_trial_rescale(&trial, false, scales);
        CU_ASSERT_EQUAL(snrq_search(p->factor, SNRQ_ROUND_FEEDBACK, 2, &trial.rows), SNRQ_OK);
        CU_ASSERT_EQUAL(snrq_refine(p->gram, 2, &trial.rows, &gradient), SNRQ_OK);
        snrq_trial_keep_better(&trial, &gradient, rows);
    }
    snrq_gradient_free(&gradient);
    snrq_trial_free(&trial);
    free(scales);
}

/* All rows together against a few of them in other places, which are left out and moved at other
 * times. */
static void what_becomes_of_a_row_does_not_depend_on_the_others(void)
{
    enum { FEW = 100 };
    static problem p;
    snrq_rows few;
    make_problem(&p, 230, 40, false);
    size_t n = (size_t)p.n, g = (size_t)p.groups_count;
    CU_ASSERT_EQUAL(snrq_rows_create(FEW, 3, &p.groups, &few), SNRQ_OK);
    for (size_t i = 0; i < FEW; i++) {
        size_t r = (i * 29 + 7) % ROWS;
        memcpy(few.target + i * n, p.rows.target + r * n, n * sizeof *few.target);
        memcpy(few.scales + i * g, p.rows.scales + r * g, g * sizeof *few.scales);
        memcpy(few.zeros + i * g, p.rows.zeros + r * g, g);
    }
    run_rounds(&p, &p.rows);
    run_rounds(&p, &few);
    for (size_t i = 0; i < FEW; i++) {
        size_t r = (i * 29 + 7) % ROWS;
        CU_ASSERT_EQUAL(memcmp(few.codes + i * n, p.rows.codes + r * n, n), 0);
        CU_ASSERT_EQUAL(memcmp(few.scales + i * g, p.rows.scales + r * g, g * sizeof *few.scales),
                        0);
        CU_ASSERT_EQUAL(few.costs[i], p.rows.costs[r]);
    }
    snrq_rows_free(&few);
    free_problem(&p);
}

int main(int argc, char **argv)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(no_scale_nearby_is_better),
        SNRQ_TEST(scattered_groups_equal_their_twin),
        SNRQ_TEST(runs_equal_their_twin),
        SNRQ_TEST(several_parts_equal_their_twin),
        SNRQ_TEST(a_group_deeper_than_a_product_equals_its_twin),
        SNRQ_TEST(groups_that_resemble_each_other_equal_their_twin),
        SNRQ_TEST(a_group_of_zeros_keeps_its_scale),
        SNRQ_TEST(what_becomes_of_a_row_does_not_depend_on_the_others)};
    return rank_test_main(argc, argv, "regrid", tests, sizeof tests / sizeof *tests);
}
