/* Contexts: who is where, and agreement on failures. */
#include "mpi/context.h"

#include <string.h>

#include "tests/ranks/rank_test.h"

static void ranks_are_those_of_the_communicator(void)
{
    const snrq_context *w = rank_test_world;
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    CU_ASSERT_EQUAL(w->rank, rank);
    CU_ASSERT_EQUAL(w->size, size);
    CU_ASSERT_NOT_EQUAL(w->comm, MPI_COMM_WORLD);
}

static void nodes_are_numbered_and_every_rank_is_on_one(void)
{
    const snrq_context *w = rank_test_world;
    int on_this_node = 0;
    for (int r = 0; r < w->size; r++) {
        CU_ASSERT_TRUE(w->node_of_rank[r] >= 0 && w->node_of_rank[r] < w->nodes);
        on_this_node += w->node_of_rank[r] == w->node_index;
    }
    CU_ASSERT_EQUAL(w->node_of_rank[w->rank], w->node_index);
    CU_ASSERT_EQUAL(on_this_node, w->node_size);
    CU_ASSERT_EQUAL(w->leaders != MPI_COMM_NULL, w->node_rank == 0);
}

static void success_everywhere_is_success(void)
{
    CU_ASSERT_EQUAL(snrq_agree(rank_test_world, SNRQ_OK), SNRQ_OK);
}

/* Every rank in turn fails alone. */
static void one_failure_is_everyones_with_its_message(void)
{
    const snrq_context *w = rank_test_world;
    for (int culprit = 0; culprit < w->size; culprit++) {
        char expected[100];
        snrq_status local = SNRQ_OK;
        snrq_fail(SNRQ_INTERNAL, "an older message");
        if (w->rank == culprit) local = snrq_fail(SNRQ_NO_INPUT, "cannot open %s", "file.txt");
        CU_ASSERT_EQUAL(snrq_agree(w, local), SNRQ_NO_INPUT);
        if (w->size == 1)
            snprintf(expected, sizeof expected, "cannot open file.txt");
        else
            snprintf(expected, sizeof expected, "rank %d: cannot open file.txt", culprit);
        CU_ASSERT_STRING_EQUAL(snrq_error_message(), expected);
    }
}

static void of_many_failures_the_lowest_rank_is_heard(void)
{
    const snrq_context *w = rank_test_world;
    int lowest = w->size > 1 ? 1 : 0;
    snrq_status local = SNRQ_OK;
    if (w->rank >= lowest)
        local =
            snrq_fail(w->rank == lowest ? SNRQ_BAD_DATA : SNRQ_IO_ERROR, "rank %d speaks", w->rank);
    CU_ASSERT_EQUAL(snrq_agree(w, local), SNRQ_BAD_DATA);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), w->size > 1 ? "rank 1" : "rank 0"));
}

static void agreeing_twice_names_the_rank_once(void)
{
    const snrq_context *w = rank_test_world;
    snrq_status status = snrq_agree(w, snrq_fail(SNRQ_USAGE, "no"));
    char first[100];
    snprintf(first, sizeof first, "%s", snrq_error_message());
    CU_ASSERT_EQUAL(snrq_agree(w, status), SNRQ_USAGE);
    CU_ASSERT_STRING_EQUAL(snrq_error_message(), first);
}

static void messages_of_any_length_are_agreed_on(void)
{
    char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    snrq_status status = snrq_fail(SNRQ_USAGE, "%s", longest);
    CU_ASSERT_EQUAL(snrq_agree(rank_test_world, status), SNRQ_USAGE);
    CU_ASSERT_TRUE(strlen(snrq_error_message()) > 1000);
}

static void groups_are_contexts_of_their_own(void)
{
    snrq_context *pair = rank_test_group(2);
    int expected = rank_test_world->size - rank_test_world->rank / 2 * 2;
    CU_ASSERT_EQUAL(pair->size, expected > 2 ? 2 : expected);
    CU_ASSERT_EQUAL(pair->rank, rank_test_world->rank % 2);
    /* A failure in one group is not one in another. */
    snrq_status local = rank_test_world->rank < 2 ? snrq_fail(SNRQ_USAGE, "first pair") : SNRQ_OK;
    CU_ASSERT_EQUAL(snrq_agree(pair, local), rank_test_world->rank < 2 ? SNRQ_USAGE : SNRQ_OK);
    snrq_context_destroy(&pair);
    CU_ASSERT_PTR_NULL(pair);
    snrq_context_destroy(&pair);
}

/* A broadcast from a rank that is not there comes back with an error, and the run goes on. */
static void mpi_errors_come_back(void)
{
    const snrq_context *w = rank_test_world;
    MPI_Comm all[] = {w->comm, w->node, w->leaders};
    MPI_Errhandler of_files;
    int number = 0;
    for (int i = 0; i < 3; i++) {
        if (all[i] == MPI_COMM_NULL) continue;
        snrq_status status =
            snrq_mpi_check(MPI_Bcast(&number, 1, MPI_INT, w->size + 1, all[i]), "MPI_Bcast");
        CU_ASSERT_EQUAL(status, SNRQ_INTERNAL);
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "MPI_Bcast failed: MPI_ERR_ROOT"));
    }
    CU_ASSERT_EQUAL(MPI_File_get_errhandler(MPI_FILE_NULL, &of_files), MPI_SUCCESS);
    CU_ASSERT_EQUAL(of_files, MPI_ERRORS_RETURN); /* new files have this one's */
    CU_ASSERT_EQUAL(snrq_agree(w, SNRQ_OK), SNRQ_OK);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(ranks_are_those_of_the_communicator),
        SNRQ_TEST(nodes_are_numbered_and_every_rank_is_on_one),
        SNRQ_TEST(success_everywhere_is_success),
        SNRQ_TEST(one_failure_is_everyones_with_its_message),
        SNRQ_TEST(of_many_failures_the_lowest_rank_is_heard),
        SNRQ_TEST(agreeing_twice_names_the_rank_once),
        SNRQ_TEST(messages_of_any_length_are_agreed_on),
        SNRQ_TEST(groups_are_contexts_of_their_own),
        SNRQ_TEST(mpi_errors_come_back),
    };
    return rank_test_main(argc, argv, "context", tests, sizeof tests / sizeof *tests);
}
