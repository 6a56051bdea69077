/* What every program in tests/ranks shares: MPI start and end, a context of all ranks, contexts of
 * fewer ranks, and one verdict for all ranks.
 *
 *     static void behaves(void) { ... rank_test_world ... }
 *     int main(int argc, char **argv)
 *     {
 *         const snrq_test tests[] = {SNRQ_TEST(behaves)};
 *         return rank_test_main(argc, argv, "thing", tests, sizeof tests / sizeof *tests);
 *     }
 *
 * Tests that make collective calls must make them on all ranks alike: no fatal assertions.
 */
#ifndef SNRQ_RANK_TEST_H
#define SNRQ_RANK_TEST_H

#include <mpi.h>

#include "mpi/algebra/blas.h"
#include "mpi/algebra/matrix.h"
#include "mpi/context.h"
#include "tests/snrq_test.h"

static snrq_context *rank_test_world;

static inline int rank_test_main(int argc, char **argv, const char *name, const snrq_test *tests,
                                 size_t count)
{
    int provided, failed = 1, all_failed = 1;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    snrq_blas_single_thread();
    if (snrq_context_create(MPI_COMM_WORLD, &rank_test_world) == SNRQ_OK) {
        failed = snrq_run_tests(name, tests, count, rank_test_world->rank == 0);
        MPI_Allreduce(&failed, &all_failed, 1, MPI_INT, MPI_MAX, rank_test_world->comm);
        snrq_context_destroy(&rank_test_world);
    }
    MPI_Finalize();
    return all_failed;
}

/* A context of `ranks` neighbouring ranks, this one among them; what is left over makes a smaller
 * one. Collective over all ranks. The caller destroys it. */
static inline snrq_context *rank_test_group(int ranks)
{
    snrq_context *group = NULL;
    MPI_Comm comm;
    MPI_Comm_split(rank_test_world->comm, rank_test_world->rank / ranks, 0, &comm);
    CU_ASSERT_EQUAL(snrq_context_create(comm, &group), SNRQ_OK);
    MPI_Comm_free(&comm);
    return group;
}

/* Calls test(grid) for every grid that these ranks allow. */
static inline void rank_test_on_every_grid(void (*test)(const snrq_process_grid *grid))
{
    int size = rank_test_world->size;
    for (int rows = 1; rows <= size; rows++)
        for (int columns = 1; rows * columns <= size; columns++) {
            snrq_process_grid *grid = NULL;
            CU_ASSERT_EQUAL(snrq_process_grid_create(rank_test_world, rows, columns, &grid),
                            SNRQ_OK);
            test(grid);
            snrq_process_grid_destroy(&grid);
            CU_ASSERT_PTR_NULL(grid);
        }
}

/* A number in [-1, 1) that depends on (a, b, c) alone. */
static inline double rank_test_number(int64_t a, int64_t b, int64_t c)
{
    uint64_t h = (uint64_t)a * 0x9e3779b97f4a7c15u ^ (uint64_t)b * 0xc2b2ae3d27d4eb4fu ^
                 (uint64_t)c * 0x165667b19e3779f9u;
    for (int k = 0; k < 3; k++) h = (h ^ h >> 31) * 0xd6e8feb86659fd93u + 1;
    return (double)(h >> 11) * 0x1p-52 - 1;
}

#endif
