/* Random numbers by counter, against the known answers that come with Random123 (kat_vectors,
 * philox4x32 10). */
#include "pipeline/model/philox.h"

#include <string.h>

#include "tests/snrq_test.h"

static void known_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } known[] = {{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                 {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                  {0xffffffff, 0xffffffff},
                  {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                 {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                  {0xa4093822, 0x299f31d0},
                  {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t words[4];
        memcpy(words, known[i].counter, sizeof words);
        snrq_philox(words, known[i].key);
        CU_ASSERT_EQUAL(memcmp(words, known[i].expected, sizeof words), 0);
    }
}

static void numbers_are_uniform(void)
{
    enum { COUNT = 100000, BINS = 10 };
    int bins[BINS] = {0};
    double sum = 0.0;
    for (int i = 0; i < COUNT; i++) {
        double u = snrq_philox_uniform(7, (uint64_t)i / 100, (uint64_t)i % 100);
        CU_ASSERT_TRUE(u >= 0.0 && u < 1.0);
        bins[(int)(u * BINS)]++;
        sum += u;
    }
    CU_ASSERT_DOUBLE_EQUAL(sum / COUNT, 0.5, 0.004); /* more than four deviations */
    for (int b = 0; b < BINS; b++) CU_ASSERT_TRUE(abs(bins[b] - COUNT / BINS) < 400);
}

static void every_argument_counts(void)
{
    const uint64_t high = (uint64_t)1 << 40;
    double first = snrq_philox_uniform(1, 2, 3);
    CU_ASSERT_EQUAL(first, snrq_philox_uniform(1, 2, 3));
    CU_ASSERT_NOT_EQUAL(first, snrq_philox_uniform(1 + high, 2, 3));
    CU_ASSERT_NOT_EQUAL(first, snrq_philox_uniform(1, 2 + high, 3));
    CU_ASSERT_NOT_EQUAL(first, snrq_philox_uniform(1, 2, 3 + high));
    CU_ASSERT_NOT_EQUAL(first, snrq_philox_uniform(1, 3, 2));
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(known_answers), SNRQ_TEST(numbers_are_uniform),
                               SNRQ_TEST(every_argument_counts)};
    return snrq_run_tests("philox", tests, sizeof tests / sizeof *tests, 1);
}
