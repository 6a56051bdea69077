/* Node-shared memory: one copy per node, seen by all its ranks. */
#include "mpi/node_memory.h"

#include <string.h>

#include "mpi/collective.h"
#include "tests/ranks/rank_test.h"

static unsigned char item(int64_t row, size_t byte)
{
    return (unsigned char)(row * 31 + (int64_t)byte * 7 + 1);
}

static void memory_starts_as_zero(void)
{
    snrq_node_memory *m = NULL;
    size_t not_zero = 0;
    CU_ASSERT_EQUAL(snrq_node_memory_create(rank_test_world, 100000, &m), SNRQ_OK);
    CU_ASSERT_EQUAL(m->bytes, 100000);
    for (size_t i = 0; i < m->bytes; i++) not_zero += m->data[i] != 0;
    CU_ASSERT_EQUAL(not_zero, 0);
    snrq_node_memory_destroy(&m);
    CU_ASSERT_PTR_NULL(m);
    snrq_node_memory_destroy(&m);
}

static void what_one_rank_writes_its_node_reads(void)
{
    const snrq_context *w = rank_test_world;
    snrq_node_memory *m = NULL;
    snrq_node_memory_create(w, (size_t)w->node_size * 1000, &m);
    for (int round = 0; round < 5; round++) {
        int wrong = 0;
        memset(m->data + w->node_rank * 1000, w->node_rank + round + 1, 1000);
        CU_ASSERT_EQUAL(snrq_node_memory_sync(w, m), SNRQ_OK);
        for (int i = 0; i < w->node_size * 1000; i++) wrong += m->data[i] != i / 1000 + round + 1;
        CU_ASSERT_EQUAL(wrong, 0);
        CU_ASSERT_EQUAL(snrq_node_memory_sync(w, m), SNRQ_OK);
    }
    snrq_node_memory_destroy(&m);
}

/* A context that believes every rank is a node of its own: what a cluster of one-rank nodes looks
 * like. */
static snrq_context one_rank_nodes(const snrq_context *w, int *nodes)
{
    snrq_context c = *w;
    MPI_Comm_split(w->comm, w->rank, 0, &c.node);
    MPI_Comm_dup(w->comm, &c.leaders);
    c.node_rank = 0;
    c.node_size = 1;
    c.node_index = w->rank;
    c.nodes = w->size;
    for (int r = 0; r < w->size; r++) nodes[r] = r;
    c.node_of_rank = nodes;
    return c;
}

static void share_rows(const snrq_context *c, int64_t rows, int64_t unit, size_t row_bytes)
{
    const size_t offset = 40;
    snrq_node_memory *m = NULL;
    snrq_range own = snrq_share(rows, unit, c->size, c->rank);
    int64_t wrong = 0;
    CU_ASSERT_EQUAL(snrq_node_memory_create(c, offset + (size_t)rows * row_bytes, &m), SNRQ_OK);
    for (int64_t r = own.begin; r < own.end; r++)
        for (size_t i = 0; i < row_bytes; i++)
            m->data[offset + (size_t)r * row_bytes + i] = item(r, i);
    CU_ASSERT_EQUAL(snrq_node_memory_share_rows(c, m, offset, rows, unit, row_bytes), SNRQ_OK);
    for (int64_t r = 0; r < rows; r++)
        for (size_t i = 0; i < row_bytes; i++)
            wrong += m->data[offset + (size_t)r * row_bytes + i] != item(r, i);
    CU_ASSERT_EQUAL(wrong, 0);
    snrq_node_memory_destroy(&m);
}

static void rows_reach_every_rank_of_a_node(void)
{
    share_rows(rank_test_world, 100, 16, 33);
    share_rows(rank_test_world, 1, 16, 8);
}

static void rows_reach_every_node(void)
{
    int *nodes = malloc((size_t)rank_test_world->size * sizeof *nodes);
    snrq_context c = one_rank_nodes(rank_test_world, nodes);
    share_rows(&c, 100, 16, 33);
    share_rows(&c, 3, 1, 1000);
    MPI_Comm_free(&c.node);
    MPI_Comm_free(&c.leaders);
    free(nodes);
}

/* Teams write one table after the other; the ranks of all nodes see all of them. */
static void share_rows_of_teams(const snrq_context *c, int count, int64_t rows, size_t row_bytes)
{
    const size_t table = (size_t)rows * row_bytes;
    snrq_node_memory *m = NULL;
    snrq_teams teams = {0};
    int64_t wrong = 0;
    CU_ASSERT_EQUAL_FATAL(snrq_teams_deal(rank_test_world, count, &teams), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_node_memory_create(c, (size_t)count * table, &m), SNRQ_OK);
    for (int k = 0; k < count; k++) {
        const snrq_team team = snrq_teams_at(&teams, k);
        CU_ASSERT_EQUAL(team.context != NULL, k == teams.mine);
        if (team.context == NULL) continue;
        CU_ASSERT_EQUAL(team.size, team.context->size);
        CU_ASSERT_EQUAL(team.first + team.context->rank, c->rank);
        snrq_range own = snrq_share(rows, 4, team.size, team.context->rank);
        for (int64_t r = own.begin; r < own.end; r++)
            for (size_t i = 0; i < row_bytes; i++)
                m->data[(size_t)k * table + (size_t)r * row_bytes + i] = item(r + 100 * k, i);
    }
    for (int k = 0; k < count; k++) {
        const snrq_team team = snrq_teams_at(&teams, k);
        CU_ASSERT_EQUAL(
            snrq_node_memory_share_team_rows(c, &team, m, (size_t)k * table, rows, 4, row_bytes),
            SNRQ_OK);
    }
    for (size_t at = 0; at < (size_t)count * table; at++) {
        int64_t row = (int64_t)(at % table / row_bytes) + 100 * (int64_t)(at / table);
        wrong += m->data[at] != item(row, at % row_bytes);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    snrq_node_memory_destroy(&m);
    snrq_teams_free(&teams);
}

static void rows_of_teams_reach_every_node(void)
{
    int *nodes = malloc((size_t)rank_test_world->size * sizeof *nodes);
    snrq_context c = one_rank_nodes(rank_test_world, nodes);
    for (int count = 1; count <= rank_test_world->size; count++) {
        share_rows_of_teams(rank_test_world, count, 30, 7);
        share_rows_of_teams(&c, count, 30, 7);
    }
    MPI_Comm_free(&c.node);
    MPI_Comm_free(&c.leaders);
    free(nodes);
}

static void no_bytes_are_allowed(void)
{
    snrq_node_memory *m = NULL;
    CU_ASSERT_EQUAL(snrq_node_memory_create(rank_test_world, 0, &m), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_node_memory_share_rows(rank_test_world, m, 0, 0, 1, 8), SNRQ_OK);
    snrq_node_memory_destroy(&m);
}

static void errors_of_the_window_come_back(void)
{
    snrq_node_memory *memory = NULL;
    CU_ASSERT_EQUAL(snrq_node_memory_create(rank_test_world, 8, &memory), SNRQ_OK);
    char byte = 0;
    int nobody = rank_test_world->size + 1;
    CU_ASSERT_NOT_EQUAL(MPI_Put(&byte, 1, MPI_CHAR, nobody, 0, 1, MPI_CHAR, memory->window),
                        MPI_SUCCESS);
    CU_ASSERT_EQUAL(snrq_node_memory_sync(rank_test_world, memory), SNRQ_OK);
    snrq_node_memory_destroy(&memory);
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(memory_starts_as_zero),           SNRQ_TEST(what_one_rank_writes_its_node_reads),
        SNRQ_TEST(rows_reach_every_rank_of_a_node), SNRQ_TEST(rows_reach_every_node),
        SNRQ_TEST(rows_of_teams_reach_every_node),  SNRQ_TEST(no_bytes_are_allowed),
        SNRQ_TEST(errors_of_the_window_come_back),
    };
    return rank_test_main(argc, argv, "node_memory", tests, sizeof tests / sizeof *tests);
}
