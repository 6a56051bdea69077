/* The mismatch of two streams: what its definition says, and the same on any number of ranks. */
#include "pipeline/mismatch.h"

#include <math.h>
#include <string.h>

#include "tests/ranks/rank_test.h"

enum { SEQUENCES = 5, MOST_TOKENS = 7, COLUMNS = 3 };
static const int64_t LENGTHS[] = {7, 0, 3, 1, 5};

/* An element of x or xf. */
static float element(int stream, int64_t sequence, int64_t at)
{
    return (float)rank_test_number(stream, sequence, at);
}

/* Both streams of the sequences of one rank among `size`. */
static snrq_status measure(const snrq_context *c, snrq_mismatch *out)
{
    float x[SEQUENCES * MOST_TOKENS * COLUMNS], xf[SEQUENCES * MOST_TOKENS * COLUMNS];
    int64_t first[SEQUENCES + 1] = {0}, at = 0;
    snrq_range mine = snrq_share(SEQUENCES, 1, c->size, c->rank);
    for (int64_t s = mine.begin; s < mine.end; s++) {
        for (int64_t i = 0; i < LENGTHS[s] * COLUMNS; i++, at++) {
            x[at] = element(0, s, i);
            xf[at] = element(1, s, i);
        }
        first[s - mine.begin + 1] = at / COLUMNS;
    }
    const snrq_activations a = {mine.end - mine.begin, 0, COLUMNS, x, first, NULL};
    const snrq_activations b = {mine.end - mine.begin, 0, COLUMNS, xf, first, NULL};
    return snrq_mismatch_measure(c, &a, &b, mine, SEQUENCES, out);
}

static void is_what_its_definition_says(void)
{
    snrq_mismatch found;
    double absolute = 0.0, squared = 0.0, input = 0.0, numbers = 0.0;
    for (int64_t s = 0; s < SEQUENCES; s++)
        for (int64_t i = 0; i < LENGTHS[s] * COLUMNS; i++, numbers++) {
            double xf = (double)element(1, s, i), difference = xf - (double)element(0, s, i);
            absolute += fabs(difference);
            squared += difference * difference;
            input += xf * xf;
        }
    CU_ASSERT_EQUAL(measure(rank_test_world, &found), SNRQ_OK);
    /* Sums of 48 terms in fp64. */
    CU_ASSERT_DOUBLE_EQUAL(found.mean, absolute / numbers, 1e-13);
    CU_ASSERT_DOUBLE_EQUAL(found.norm, sqrt(squared), 1e-13);
    CU_ASSERT_DOUBLE_EQUAL(found.input_norm, sqrt(input), 1e-13);
}

static void has_the_same_bits_for_any_number_of_ranks(void)
{
    snrq_mismatch all, one;
    snrq_context *alone = rank_test_group(1);
    CU_ASSERT_EQUAL(measure(rank_test_world, &all), SNRQ_OK);
    CU_ASSERT_EQUAL(measure(alone, &one), SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(&all, &one, sizeof all), 0);
    snrq_context_destroy(&alone);
}

static void nothing_is_no_mismatch(void)
{
    snrq_mismatch found = {1.0, 1.0, 1.0};
    const snrq_activations none = {.columns = COLUMNS, .tokens = 2};
    CU_ASSERT_EQUAL(
        snrq_mismatch_measure(rank_test_world, &none, &none, (snrq_range){0, 0}, 0, &found),
        SNRQ_OK);
    CU_ASSERT_EQUAL(found.mean, 0.0);
    CU_ASSERT_EQUAL(found.norm, 0.0);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {SNRQ_TEST(is_what_its_definition_says),
                               SNRQ_TEST(has_the_same_bits_for_any_number_of_ranks),
                               SNRQ_TEST(nothing_is_no_mismatch)};
    return rank_test_main(argc, argv, "mismatch", tests, sizeof tests / sizeof *tests);
}
