/* Long runs of rows in pieces: nothing left out, nothing twice, never too much at once. */
#include "io/pieces.h"

#include "tests/snrq_test.h"

static void pieces_tile_the_rows_within_the_limit(void)
{
    for (int64_t total = 0; total <= 40; total++)
        for (int64_t unit = 1; unit <= 8; unit++)
            for (size_t row_size = 0; row_size <= 12; row_size++) {
                const size_t limit = 30;
                snrq_pieces p = snrq_pieces_of((snrq_range){5, 5 + total}, row_size, limit, unit);
                int64_t at = 5, longest = 0;
                while (snrq_pieces_next(&p)) {
                    int64_t rows = p.piece.end - p.piece.begin;
                    CU_ASSERT_TRUE(p.piece.begin == at && rows > 0);
                    CU_ASSERT_TRUE(rows <= unit || (size_t)rows * row_size <= limit);
                    CU_ASSERT_TRUE(rows % unit == 0 || p.piece.end == 5 + total);
                    at = p.piece.end;
                    longest = rows > longest ? rows : longest;
                }
                CU_ASSERT_EQUAL(at, 5 + total);
                CU_ASSERT_EQUAL(longest, p.most);
            }
}

static void pieces_are_as_long_as_may_be(void)
{
    snrq_pieces p = snrq_pieces_of((snrq_range){0, 100}, 3, 50, 4);
    CU_ASSERT_EQUAL(p.most, 16);
    p = snrq_pieces_of((snrq_range){0, 100}, 0, 50, 1);
    CU_ASSERT_EQUAL(p.most, 100);
    p = snrq_pieces_of((snrq_range){0, 100}, 1, 1 << 20, 4);
    CU_ASSERT_EQUAL(p.most, 100);
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(pieces_tile_the_rows_within_the_limit),
                               SNRQ_TEST(pieces_are_as_long_as_may_be)};
    return snrq_run_tests("pieces", tests, sizeof tests / sizeof *tests, 1);
}
