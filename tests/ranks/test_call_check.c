/* Ranks that make different collective calls get the same error, all of them, instead of hanging.
 */
#include "mpi/call_check.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"
#include "mpi/node_memory.h"
#include "tests/ranks/rank_test.h"

/* A context whose calls are compared, although only the last rank asks for it. The caller destroys
 * it. */
static snrq_context *checked_context(void)
{
    const snrq_context *w = rank_test_world;
    snrq_context *c = NULL;
    if (w->rank == w->size - 1)
        setenv("SNRQ_CHECK_COLLECTIVES", "1", 1);
    else
        setenv("SNRQ_CHECK_COLLECTIVES", "0", 1);
    CU_ASSERT_EQUAL(snrq_context_create(w->comm, &c), SNRQ_OK);
    unsetenv("SNRQ_CHECK_COLLECTIVES");
    CU_ASSERT_PTR_NOT_NULL(c->checker);
    return c;
}

/* One rank alone cannot differ from others. `words`: what every rank's message must have. */
static void check_complaint(snrq_context *c, snrq_status status, const char *const words[3])
{
    if (c->size == 1) return;
    char message[1024], of_first[1024];
    snprintf(message, sizeof message, "%s", snrq_error_message());
    memcpy(of_first, message, sizeof message);
    MPI_Bcast(of_first, (int)sizeof of_first, MPI_CHAR, 0, rank_test_world->comm);
    CU_ASSERT_EQUAL(status, SNRQ_INTERNAL);
    CU_ASSERT_STRING_EQUAL(message, of_first);
    for (int i = 0; i < 3; i++) CU_ASSERT_PTR_NOT_NULL(strstr(message, words[i]));
    /* The ranks are out of step: nothing that follows may wait for the others. */
    if (c->rank == 0) {
        CU_ASSERT_EQUAL(snrq_barrier(c), SNRQ_INTERNAL);
        CU_ASSERT_STRING_EQUAL(snrq_error_message(), message);
    }
}

static void different_operations_are_named(void)
{
    snrq_context *c = checked_context();
    double numbers[7] = {0};
    snrq_status status =
        c->rank == 0 ? snrq_broadcast(c, numbers, 40) : snrq_collect(c, numbers, 7);
    const char *const words[3] = {"rank 0 broadcasts 40 bytes in different_operations_are_named",
                                  "rank 1 collects 7 numbers in different_operations_are_named",
                                  "after 0 that were the same"};
    check_complaint(c, status, words);
    snrq_context_destroy(&c);
}

/* Only the last rank does; the others would wait for bytes that it does not send. */
static void different_counts_are_named(void)
{
    snrq_context *c = checked_context();
    int64_t numbers[5] = {0};
    char expected[64];
    CU_ASSERT_EQUAL(snrq_barrier(c), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_agree(c, SNRQ_OK), SNRQ_OK);
    snrq_status status = snrq_sum_int64(c, numbers, c->rank == c->size - 1 ? 5 : 4);
    snprintf(expected, sizeof expected, "rank %d sums 5 integers", c->size - 1);
    const char *const words[3] = {"rank 0 sums 4 integers", expected, "after 2 that were the same"};
    check_complaint(c, status, words);
    snrq_context_destroy(&c);
}

static snrq_status one_place(const snrq_context *c)
{
    return snrq_agree(c, SNRQ_OK);
}

static snrq_status another_place(const snrq_context *c)
{
    return snrq_agree(c, SNRQ_OK);
}

/* The calls are the same, and yet the ranks do not mean the same by them. */
static void different_places_are_named(void)
{
    snrq_context *c = checked_context();
    snrq_status status = c->rank == 0 ? one_place(c) : another_place(c);
    const char *const words[3] = {"rank 0 agrees in one_place", "rank 1 agrees in another_place",
                                  "bug"};
    check_complaint(c, status, words);
    snrq_context_destroy(&c);
}

static void allocating_beside_a_barrier(void)
{
    snrq_context *c = checked_context();
    snrq_node_memory *memory = NULL;
    snrq_status status = c->rank == 0 ? snrq_node_memory_create(c, 100, &memory) : snrq_barrier(c);
    const char *const words[3] = {"rank 0 agrees in snrq_node_memory_create",
                                  "rank 1 waits for all ranks in allocating_beside_a_barrier",
                                  "bug"};
    check_complaint(c, status, words);
    if (c->size > 1) CU_ASSERT_PTR_NULL(memory);
    snrq_node_memory_destroy(&memory);
    snrq_context_destroy(&c);
}

/* The ranks are named as the user knows them. */
static void groups_compare_their_own_calls(void)
{
    const snrq_context *w = rank_test_world;
    snrq_context *whole = checked_context(), *c = NULL;
    char words_of_first[64], words_of_other[64];
    double number = 0;
    int first = w->size > 2 ? w->size - 2 : 0; /* the last two ranks differ, the others do not */
    CU_ASSERT_EQUAL(snrq_context_split(whole, w->rank >= first, &c), SNRQ_OK);
    snprintf(words_of_first, sizeof words_of_first, "rank %d waits for all ranks", first);
    snprintf(words_of_other, sizeof words_of_other, "rank %d collects 1 numbers", first + 1);
    snrq_status status = w->rank > first ? snrq_collect(c, &number, 1) : snrq_barrier(c);
    bool differs = w->rank >= first && w->size > 1;
    CU_ASSERT_EQUAL(status, differs ? SNRQ_INTERNAL : SNRQ_OK);
    if (differs) {
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), words_of_first));
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), words_of_other));
    }
    CU_ASSERT_EQUAL(snrq_barrier(whole), SNRQ_OK);
    snrq_context_destroy(&c);
    snrq_context_destroy(&whole);
}

static void calls_that_are_the_same_go_through(void)
{
    snrq_context *c = checked_context();
    snrq_node_memory *memory = NULL;
    double most = c->rank;
    for (int i = 0; i < 100; i++) CU_ASSERT_EQUAL(snrq_agree(c, SNRQ_OK), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_max_double(c, &most, 1), SNRQ_OK);
    CU_ASSERT_EQUAL(most, c->size - 1);
    CU_ASSERT_EQUAL(snrq_node_memory_create(c, 100, &memory), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_node_memory_sync(c, memory), SNRQ_OK);
    snrq_node_memory_destroy(&memory);
    CU_ASSERT_EQUAL(snrq_agree(c, c->rank == 0 ? snrq_fail(SNRQ_NO_INPUT, "x") : SNRQ_OK),
                    SNRQ_NO_INPUT);
    snrq_context_destroy(&c);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(different_operations_are_named), SNRQ_TEST(different_counts_are_named),
        SNRQ_TEST(different_places_are_named),     SNRQ_TEST(allocating_beside_a_barrier),
        SNRQ_TEST(groups_compare_their_own_calls), SNRQ_TEST(calls_that_are_the_same_go_through),
    };
    return rank_test_main(argc, argv, "call_check", tests, sizeof tests / sizeof *tests);
}
