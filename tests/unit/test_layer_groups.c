/* How blocks are divided into groups. */
#include "pipeline/layer_groups.h"

#include <math.h>

#include "tests/snrq_test.h"

/* The most work of a group in the best division there is, by trying all ends of the last group. */
static double least_most(const double *work, int64_t blocks, int groups)
{
    double best = INFINITY, last = 0.0;
    if (groups == 1) {
        for (int64_t b = 0; b < blocks; b++) last += work[b];
        return last;
    }
    for (int64_t first = blocks - 1; first >= groups - 1; first--) {
        last += work[first];
        best = fmin(best, fmax(last, least_most(work, first, groups - 1)));
    }
    return best;
}

static double most(const double *work, int groups, const int64_t *first)
{
    double found = 0.0;
    for (int k = 0; k < groups; k++) {
        double sum = 0.0;
        for (int64_t b = first[k]; b < first[k + 1]; b++) sum += work[b];
        found = fmax(found, sum);
    }
    return found;
}

static void equal_blocks_are_divided_as_well_as_possible(void)
{
    double work[12];
    int64_t first[13];
    for (int b = 0; b < 12; b++) work[b] = 1e12 / 3.0;
    for (int64_t blocks = 1; blocks <= 12; blocks++)
        for (int groups = 1; groups <= blocks; groups++) {
            snrq_layer_groups_divide(work, blocks, groups, first);
            CU_ASSERT_EQUAL(first[0], 0);
            CU_ASSERT_EQUAL(first[groups], blocks);
            for (int k = 0; k < groups; k++) CU_ASSERT_TRUE(first[k] < first[k + 1]);
            double best = ceil((double)blocks / groups) * work[0];
            CU_ASSERT_TRUE(most(work, groups, first) <= best * 1.000001);
        }
}

/* Blocks that differ: nearly as good as the best division, and every group has a block. */
static void unequal_blocks_are_divided_by_work(void)
{
    const double cases[][8] = {{9, 1, 1, 1, 1, 1, 1, 1},
                               {1, 1, 1, 1, 1, 1, 1, 9},
                               {1, 2, 3, 4, 5, 6, 7, 8},
                               {5, 1, 5, 1, 5, 1, 5, 1},
                               {0, 0, 0, 0, 1, 0, 0, 0}};
    int64_t first[9];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int groups = 1; groups <= 8; groups++) {
            double largest = 0.0;
            for (int b = 0; b < 8; b++) largest = fmax(largest, cases[i][b]);
            snrq_layer_groups_divide(cases[i], 8, groups, first);
            CU_ASSERT_EQUAL(first[groups], 8);
            for (int k = 0; k < groups; k++) CU_ASSERT_TRUE(first[k] < first[k + 1]);
            CU_ASSERT_TRUE(most(cases[i], groups, first) <=
                           least_most(cases[i], 8, groups) + largest);
        }
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(equal_blocks_are_divided_as_well_as_possible),
                               SNRQ_TEST(unequal_blocks_are_divided_by_work)};
    return snrq_run_tests("layer_groups", tests, sizeof tests / sizeof *tests, true);
}
