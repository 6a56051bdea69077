/* Shares, broadcasts and reductions. */
#include "mpi/collective.h"

#include <string.h>

#include "tests/ranks/rank_test.h"

/* Larger than a chunk of any of the functions. */
enum { MANY = (1 << 23) + 1000 };

static void check_share(int64_t total, int64_t unit, int size)
{
    int64_t at = 0, least = total, most = 0;
    for (int rank = 0; rank < size; rank++) {
        snrq_range r = snrq_share(total, unit, size, rank);
        int64_t units = (r.end - r.begin + unit - 1) / unit;
        CU_ASSERT_EQUAL(r.begin, at);
        CU_ASSERT_TRUE(r.end >= r.begin && r.end <= total);
        CU_ASSERT_TRUE(r.begin % unit == 0 || r.begin == total);
        at = r.end;
        if (units < least) least = units;
        if (units > most) most = units;
    }
    CU_ASSERT_EQUAL(at, total);
    CU_ASSERT_TRUE(most - least <= 1);
}

static void shares_cover_everything_once_and_evenly(void)
{
    const int64_t totals[] = {0, 1, 2, 15, 16, 17, 100, 4096, 1000003};
    const int64_t units[] = {1, 4, 16, 100};
    for (int size = 1; size <= 9; size++)
        for (int k = 0; k < 9; k++)
            for (int u = 0; u < 4; u++) check_share(totals[k], units[u], size);
}

static void shares_of_huge_totals_do_not_overflow(void)
{
    const int64_t total = (int64_t)1 << 55;
    snrq_range last = snrq_share(total, 16, 1000, 999);
    CU_ASSERT_EQUAL(last.end, total);
    CU_ASSERT_TRUE(last.begin > 0 && last.begin < total);
}

static void broadcast_copies_rank_zero(void)
{
    const size_t sizes[] = {0, 1, 1000, MANY};
    unsigned char *data = malloc(MANY);
    for (int k = 0; k < 4; k++) {
        size_t wrong = 0;
        for (size_t i = 0; i < sizes[k]; i++)
            data[i] = rank_test_world->rank == 0 ? (unsigned char)(i * 7 + i / 251) : 0xff;
        CU_ASSERT_EQUAL(snrq_broadcast(rank_test_world, data, sizes[k]), SNRQ_OK);
        for (size_t i = 0; i < sizes[k]; i++) wrong += data[i] != (unsigned char)(i * 7 + i / 251);
        CU_ASSERT_EQUAL(wrong, 0);
    }
    free(data);
}

static void collect_gives_every_rank_every_item(void)
{
    const int64_t count = 1001;
    double data[1001] = {0};
    snrq_range own = snrq_share(count, 10, rank_test_world->size, rank_test_world->rank);
    for (int64_t i = own.begin; i < own.end; i++) data[i] = rank_test_number(i, 0, 0) / 3;
    CU_ASSERT_EQUAL(snrq_collect(rank_test_world, data, count), SNRQ_OK);
    for (int64_t i = 0; i < count; i++) CU_ASSERT_EQUAL(data[i], rank_test_number(i, 0, 0) / 3);
}

static void maximum_and_sum_are_over_all_ranks(void)
{
    const snrq_context *w = rank_test_world;
    double most[3] = {w->rank, -w->rank, -1e300};
    int64_t sum[3] = {w->rank, -1, (int64_t)1 << 60};
    CU_ASSERT_EQUAL(snrq_max_double(w, most, 3), SNRQ_OK);
    CU_ASSERT_EQUAL(most[0], w->size - 1);
    CU_ASSERT_EQUAL(most[1], 0);
    CU_ASSERT_EQUAL(most[2], -1e300);
    if (w->rank > 0) sum[2] = 0;
    CU_ASSERT_EQUAL(snrq_sum_int64(w, sum, 3), SNRQ_OK);
    CU_ASSERT_EQUAL(sum[0], w->size * (w->size - 1) / 2);
    CU_ASSERT_EQUAL(sum[1], -w->size);
    CU_ASSERT_EQUAL(sum[2], (int64_t)1 << 60);
}

static void reductions_of_many_items_go_in_chunks(void)
{
    int64_t *data = malloc(MANY * sizeof *data), wrong = 0;
    for (int64_t i = 0; i < MANY; i++) data[i] = i;
    CU_ASSERT_EQUAL(snrq_sum_int64(rank_test_world, data, MANY), SNRQ_OK);
    for (int64_t i = 0; i < MANY; i++) wrong += data[i] != i * rank_test_world->size;
    CU_ASSERT_EQUAL(wrong, 0);
    free(data);
}

/* Rank r has 3 r bytes, and in the second round nobody has any. */
static void gather_joins_what_every_rank_has(void)
{
    const snrq_context *w = rank_test_world;
    char mine[3 * 8 + 1] = "", expected[3 * 64] = "";
    for (int round = 0; round < 2; round++) {
        char *all = NULL;
        size_t total = 1, bytes = round == 0 ? 3 * (size_t)w->rank : 0, at = 0;
        memset(mine, 'a' + w->rank, sizeof mine);
        for (int r = 0; r < w->size && round == 0; r++)
            for (int i = 0; i < 3 * r; i++) expected[at++] = (char)('a' + r);
        expected[at] = '\0';
        CU_ASSERT_EQUAL(snrq_gather_bytes(w, mine, bytes, &all, &total), SNRQ_OK);
        CU_ASSERT_EQUAL(total, at);
        CU_ASSERT_STRING_EQUAL(all, expected);
        free(all);
    }
}

static void more_than_can_be_gathered_is_refused(void)
{
    char *all = NULL, nothing = 0;
    size_t total = 1;
    size_t bytes = rank_test_world->rank == 0 ? (size_t)1 << 40 : 0;
    CU_ASSERT_EQUAL(snrq_gather_bytes(rank_test_world, &nothing, bytes, &all, &total),
                    SNRQ_INTERNAL);
    CU_ASSERT_PTR_NULL(all);
}

static void nothing_can_be_reduced(void)
{
    CU_ASSERT_EQUAL(snrq_sum_int64(rank_test_world, NULL, 0), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_barrier(rank_test_world), SNRQ_OK);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(shares_cover_everything_once_and_evenly),
        SNRQ_TEST(shares_of_huge_totals_do_not_overflow),
        SNRQ_TEST(broadcast_copies_rank_zero),
        SNRQ_TEST(collect_gives_every_rank_every_item),
        SNRQ_TEST(maximum_and_sum_are_over_all_ranks),
        SNRQ_TEST(reductions_of_many_items_go_in_chunks),
        SNRQ_TEST(gather_joins_what_every_rank_has),
        SNRQ_TEST(more_than_can_be_gathered_is_refused),
        SNRQ_TEST(nothing_can_be_reduced),
    };
    return rank_test_main(argc, argv, "collective", tests, sizeof tests / sizeof *tests);
}
