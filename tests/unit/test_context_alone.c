/* The context of a process that never starts MPI: any call of MPI would end this program. */
#include <string.h>

#include "mpi/collective.h"
#include "tests/snrq_test.h"

static snrq_context *alone;

static void it_is_the_only_rank(void)
{
    CU_ASSERT(alone->rank == 0 && alone->size == 1 && alone->job_rank == 0);
    CU_ASSERT(alone->node_rank == 0 && alone->node_size == 1);
    CU_ASSERT(alone->node_index == 0 && alone->nodes == 1 && alone->node_of_rank[0] == 0);
    CU_ASSERT(alone->comm == MPI_COMM_NULL && alone->node == MPI_COMM_NULL);
}

static void it_agrees_with_itself(void)
{
    CU_ASSERT_EQUAL(snrq_agree(alone, SNRQ_OK), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_agree(alone, snrq_fail(SNRQ_BAD_DATA, "file: damaged")), SNRQ_BAD_DATA);
    CU_ASSERT_STRING_EQUAL(snrq_error_message(), "file: damaged");
}

static void collectives_keep_what_it_has(void)
{
    char text[] = "abc";
    double reals[] = {1.5, -2};
    int64_t integers[] = {INT64_MAX, -7};
    CU_ASSERT_EQUAL(snrq_broadcast(alone, text, sizeof text), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_collect(alone, reals, 2), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_max_double(alone, reals, 2), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_sum_int64(alone, integers, 2), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_barrier(alone), SNRQ_OK);
    CU_ASSERT_STRING_EQUAL(text, "abc");
    CU_ASSERT(reals[0] == 1.5 && reals[1] == -2);
    CU_ASSERT(integers[0] == INT64_MAX && integers[1] == -7);
}

static void a_group_of_it_is_alone(void)
{
    snrq_context *group = NULL, *none = alone;
    CU_ASSERT_EQUAL(snrq_context_split(alone, 3, &group), SNRQ_OK);
    CU_ASSERT(group != NULL && group != alone && group->size == 1);
    CU_ASSERT_EQUAL(snrq_context_split(alone, -1, &none), SNRQ_OK);
    CU_ASSERT_PTR_NULL(none);
    snrq_context_destroy(&group);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(it_is_the_only_rank),
        SNRQ_TEST(it_agrees_with_itself),
        SNRQ_TEST(collectives_keep_what_it_has),
        SNRQ_TEST(a_group_of_it_is_alone),
    };
    if (snrq_context_create_alone(&alone) != SNRQ_OK) return 1;
    int result = snrq_run_tests("context alone", tests, sizeof tests / sizeof *tests, 1);
    snrq_context_destroy(&alone);
    return result;
}
