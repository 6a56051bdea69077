/* Contexts: who is where, and agreement on failures. */
#include "mpi/context.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "mpi/algebra/factor.h"
#include "mpi/node_memory.h"
#include "tests/ranks/rank_test.h"

/* The next call fails on this rank, after the others got what they wait for. */
static int split_type_fails;

int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *out)
{
    int code = PMPI_Comm_split_type(comm, type, key, info, out);
    if (!split_type_fails) return code;
    split_type_fails = 0;
    MPI_Comm_free(out);
    return MPI_ERR_OTHER;
}

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

/* Splits the world by group[rank] and looks at what every rank gets. The caller destroys it. */
static snrq_context *split_and_check(const int *group)
{
    const snrq_context *w = rank_test_world;
    snrq_context *c = NULL;
    int rank = 0, size = 0, mine = group[w->rank];
    CU_ASSERT_EQUAL(snrq_context_split(w, mine, &c), SNRQ_OK);
    CU_ASSERT_EQUAL(c == NULL, mine < 0);
    if (c == NULL) return NULL;
    for (int r = 0; r < w->size; r++) {
        rank += r < w->rank && group[r] == mine;
        size += group[r] == mine;
    }
    CU_ASSERT_EQUAL(c->rank, rank);
    CU_ASSERT_EQUAL(c->size, size);
    CU_ASSERT_EQUAL(c->job_rank, w->rank);
    CU_ASSERT_EQUAL(c->checker != NULL && c->checker != w->checker, w->checker != NULL);
    int on_this_node = 0, nodes = 0;
    for (int r = 0; r < c->size; r++) {
        on_this_node += c->node_of_rank[r] == c->node_index;
        nodes = c->node_of_rank[r] >= nodes ? c->node_of_rank[r] + 1 : nodes;
    }
    CU_ASSERT_EQUAL(on_this_node, c->node_size);
    CU_ASSERT_EQUAL(nodes, c->nodes);
    CU_ASSERT_EQUAL(c->node_of_rank[c->rank], c->node_index);
    CU_ASSERT_EQUAL(c->leaders != MPI_COMM_NULL, c->node_rank == 0);
    return c;
}

/* All ways to put four ranks into groups 0 and INT_MAX and none. */
static void a_split_has_the_ranks_that_asked_for_it(void)
{
    static const int numbers[] = {0, INT_MAX, -1};
    int ways = 1;
    for (int r = 0; r < rank_test_world->size; r++) ways *= 3;
    for (int way = 0; way < ways; way++) {
        int group[8] = {0};
        for (int r = 0, left = way; r < rank_test_world->size; r++, left /= 3)
            group[r] = numbers[left % 3];
        snrq_context *c = split_and_check(group);
        if (c != NULL) CU_ASSERT_EQUAL(snrq_agree(c, SNRQ_OK), SNRQ_OK);
        snrq_context_destroy(&c);
    }
}

static void every_rank_can_be_a_group(void)
{
    const snrq_context *w = rank_test_world;
    int group[8] = {0};
    int64_t sum = w->rank;
    for (int r = 0; r < w->size; r++) group[r] = w->size - r; /* the numbers order nothing */
    snrq_context *c = split_and_check(group);
    CU_ASSERT_EQUAL(c->size, 1);
    CU_ASSERT_EQUAL(snrq_sum_int64(c, &sum, 1), SNRQ_OK);
    CU_ASSERT_EQUAL(sum, w->rank);
    snrq_context_destroy(&c);
}

/* What the groups do here takes a different number of calls in each of them. */
static void groups_do_not_wait_for_each_other(void)
{
    const snrq_context *w = rank_test_world;
    snrq_context *c = NULL;
    CU_ASSERT_EQUAL(snrq_context_split(w, w->rank % 2, &c), SNRQ_OK);
    for (int i = 0; i < 20; i++) {
        int64_t sum = w->rank + i, expected = 0;
        double most[3] = {w->rank, -w->rank, i};
        int first = w->rank;
        for (int r = w->rank % 2; r < w->size; r += 2) expected += r + i;
        CU_ASSERT_EQUAL(snrq_sum_int64(c, &sum, 1), SNRQ_OK);
        CU_ASSERT_EQUAL(sum, expected);
        if (w->rank % 2 == 0) continue;
        CU_ASSERT_EQUAL(snrq_max_double(c, most, 3), SNRQ_OK);
        CU_ASSERT_EQUAL(most[1], -1);
        CU_ASSERT_EQUAL(snrq_broadcast(c, &first, sizeof first), SNRQ_OK);
        CU_ASSERT_EQUAL(first, 1);
        CU_ASSERT_EQUAL(snrq_barrier(c), SNRQ_OK);
    }
    CU_ASSERT_EQUAL(snrq_barrier(w), SNRQ_OK);
    snrq_context_destroy(&c);
}

/* The even ranks fail, the odd ones go on; then all of them hear of it. */
static void a_failure_stays_in_its_group_until_the_job_agrees(void)
{
    const snrq_context *w = rank_test_world;
    snrq_context *c = NULL;
    char expected[100] = "cannot open file.txt";
    int culprit = (w->size - 1) / 2 * 2; /* the last rank of the even ones */
    bool even = w->rank % 2 == 0;
    CU_ASSERT_EQUAL(snrq_context_split(w, even ? 7 : 3, &c), SNRQ_OK);
    if (culprit > 0) snprintf(expected, sizeof expected, "rank %d: cannot open file.txt", culprit);
    snrq_status status = SNRQ_OK;
    if (w->rank == culprit) status = snrq_fail(SNRQ_NO_INPUT, "cannot open file.txt");
    status = snrq_agree(c, status);
    CU_ASSERT_EQUAL(status, even ? SNRQ_NO_INPUT : SNRQ_OK);
    if (even) CU_ASSERT_STRING_EQUAL(snrq_error_message(), expected);
    for (int i = 0; i < 3 && !even; i++) CU_ASSERT_EQUAL(snrq_agree(c, SNRQ_OK), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_agree(w, status), SNRQ_NO_INPUT);
    if (w->size > 1 && culprit == 0) strcpy(expected, "rank 0: cannot open file.txt");
    CU_ASSERT_STRING_EQUAL(snrq_error_message(), expected);
    snrq_context_destroy(&c);
}

/* The message names the rank that the user knows, however deep the group is. */
static void splits_can_be_split(void)
{
    const snrq_context *w = rank_test_world;
    snrq_context *tail = NULL, *last = NULL;
    CU_ASSERT_EQUAL(snrq_context_split(w, w->rank > 0 ? 1 : -1, &tail), SNRQ_OK);
    if (tail != NULL) {
        CU_ASSERT_EQUAL(snrq_context_split(tail, tail->rank > 0 ? 1 : -1, &last), SNRQ_OK);
        CU_ASSERT_EQUAL(last == NULL, w->rank == 1);
    }
    if (last != NULL) {
        CU_ASSERT_EQUAL(last->size, w->size - 2);
        CU_ASSERT_EQUAL(last->rank, w->rank - 2);
        snrq_status status = last->rank == 0 ? snrq_fail(SNRQ_USAGE, "no") : SNRQ_OK;
        CU_ASSERT_EQUAL(snrq_agree(last, status), SNRQ_USAGE);
        CU_ASSERT_STRING_EQUAL(snrq_error_message(), w->size > 3 ? "rank 2: no" : "no");
    }
    snrq_context_destroy(&tail); /* before what was split from it */
    if (last != NULL) CU_ASSERT_EQUAL(snrq_agree(last, SNRQ_OK), SNRQ_OK);
    snrq_context_destroy(&last);
}

static void contexts_outlive_what_they_were_split_from(void)
{
    const snrq_context *w = rank_test_world;
    snrq_context *whole = NULL, *half = NULL, *other = NULL;
    int64_t ones = 1;
    CU_ASSERT_EQUAL(snrq_context_split(w, 0, &whole), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_context_split(whole, w->rank % 2, &half), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_context_split(whole, w->rank / 2, &other), SNRQ_OK);
    snrq_context_destroy(&whole);
    CU_ASSERT_EQUAL(snrq_sum_int64(half, &ones, 1), SNRQ_OK);
    CU_ASSERT_EQUAL(ones, half->size);
    /* Each in its own order. */
    if (w->rank % 2 == 0) snrq_context_destroy(&half);
    snrq_context_destroy(&other);
    snrq_context_destroy(&half);
}

/* Each rank in turn cannot make its group's context: nobody gets one, in either group. */
static void a_context_that_cannot_be_made_is_everyones_failure(void)
{
    const snrq_context *w = rank_test_world;
    for (int culprit = 0; culprit < w->size; culprit++) {
        snrq_context *c = NULL;
        char expected[100] = "MPI_Comm_split_type failed";
        if (w->size > 1)
            snprintf(expected, sizeof expected, "rank %d: MPI_Comm_split_type failed", culprit);
        split_type_fails = w->rank == culprit;
        /* The last rank is in no group of a larger job, and its call is the one that succeeds. */
        int group = w->size > 2 && w->rank == w->size - 1 ? -1 : w->rank % 2;
        if (group < 0) split_type_fails = 0;
        bool none = w->size > 2 && culprit == w->size - 1;
        snrq_status status = snrq_context_split(w, group, &c);
        CU_ASSERT_EQUAL(status, none ? SNRQ_OK : SNRQ_INTERNAL);
        if (!none) {
            CU_ASSERT_PTR_NULL(c);
            CU_ASSERT_EQUAL(strncmp(snrq_error_message(), expected, strlen(expected)), 0);
        }
        snrq_context_destroy(&c);
    }
    CU_ASSERT_EQUAL(snrq_barrier(w), SNRQ_OK);
}

/* Two groups share memory at once, each its own. */
static void node_memory_belongs_to_a_group(void)
{
    const snrq_context *w = rank_test_world;
    snrq_context *c = NULL;
    snrq_node_memory *m = NULL;
    CU_ASSERT_EQUAL(snrq_context_split(w, w->rank % 2, &c), SNRQ_OK);
    size_t bytes = 1000 * (size_t)c->size;
    CU_ASSERT_EQUAL(snrq_node_memory_create(c, bytes, &m), SNRQ_OK);
    for (int round = 1; round <= (w->rank % 2 == 0 ? 3 : 5); round++) {
        snrq_range own = snrq_share((int64_t)bytes, 1, c->size, c->rank);
        size_t wrong = 0;
        memset(m->data + own.begin, w->rank % 2 * 100 + round, (size_t)(own.end - own.begin));
        CU_ASSERT_EQUAL(snrq_node_memory_share_rows(c, m, 0, (int64_t)bytes, 1, 1), SNRQ_OK);
        for (size_t i = 0; i < bytes; i++) wrong += m->data[i] != w->rank % 2 * 100 + round;
        CU_ASSERT_EQUAL(wrong, 0);
        CU_ASSERT_EQUAL(snrq_node_memory_sync(c, m), SNRQ_OK);
    }
    snrq_node_memory_destroy(&m);
    snrq_context_destroy(&c);
}

enum { ORDER = 300 };

/* L of a Gram that `seed` chooses, on a grid of the context: dense, the same on all its ranks. The
 * caller frees it. */
static double *factor_in(const snrq_context *c, int rows, int columns, int seed)
{
    snrq_process_grid *grid = NULL;
    snrq_matrix *h = NULL, *l = NULL;
    snrq_factor_report report;
    double *dense = calloc((size_t)ORDER * ORDER, sizeof *dense);
    for (int j = 0; j < ORDER; j++)
        for (int i = 0; i < ORDER; i++) {
            for (int v = 0; v < 5; v++)
                dense[j * ORDER + i] += rank_test_number(v, i, seed) * rank_test_number(v, j, seed);
            dense[j * ORDER + i] += i == j;
        }
    CU_ASSERT_EQUAL(snrq_process_grid_create(c, rows, columns, &grid), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, ORDER, ORDER, &h), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_create(grid, ORDER, ORDER, &l), SNRQ_OK);
    snrq_matrix_set_panel(h, 0, ORDER, 0, dense);
    CU_ASSERT_EQUAL(snrq_factor_cholesky(h, 0.01, l, &report), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_matrix_broadcast_panel(l, 0, ORDER, 0, dense), SNRQ_OK);
    snrq_matrix_destroy(&l);
    snrq_matrix_destroy(&h);
    snrq_process_grid_destroy(&grid);
    return dense;
}

/* Two groups factorize matrices of their own at the same time, on grids of different shapes. */
static void process_grids_belong_to_a_group(void)
{
    const snrq_context *w = rank_test_world;
    for (int first = 1; first <= w->size; first++) { /* ranks of the first group */
        snrq_context *c = NULL, *alone = NULL;
        double most = 0;
        int group = w->rank >= first;
        CU_ASSERT_EQUAL(snrq_context_split(w, group, &c), SNRQ_OK);
        CU_ASSERT_EQUAL(snrq_context_split(w, w->rank, &alone), SNRQ_OK);
        for (int round = 0; round < 3; round++) {
            double *found = factor_in(c, group ? c->size : 1, group ? 1 : c->size, group + round);
            double *expected = factor_in(alone, 1, 1, group + round);
            for (int i = 0; i < ORDER * ORDER; i++) most = fmax(most, fabs(found[i] - expected[i]));
            if (c->size == 1) CU_ASSERT_EQUAL(most, 0);
            free(found);
            free(expected);
        }
        CU_ASSERT_TRUE(most < 1e-13); /* numbers of about 1, sums of a few terms that matter */
        snrq_context_destroy(&alone);
        snrq_context_destroy(&c);
    }
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
        SNRQ_TEST(a_split_has_the_ranks_that_asked_for_it),
        SNRQ_TEST(every_rank_can_be_a_group),
        SNRQ_TEST(groups_do_not_wait_for_each_other),
        SNRQ_TEST(a_failure_stays_in_its_group_until_the_job_agrees),
        SNRQ_TEST(splits_can_be_split),
        SNRQ_TEST(contexts_outlive_what_they_were_split_from),
        SNRQ_TEST(a_context_that_cannot_be_made_is_everyones_failure),
        SNRQ_TEST(node_memory_belongs_to_a_group),
        SNRQ_TEST(process_grids_belong_to_a_group),
        SNRQ_TEST(mpi_errors_come_back),
    };
    return rank_test_main(argc, argv, "context", tests, sizeof tests / sizeof *tests);
}
