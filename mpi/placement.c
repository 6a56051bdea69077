/* Checks of how ranks were started; see placement.h. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "mpi/placement.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "mpi/memory_limit.h"

snrq_status snrq_check_launch(const snrq_context *c)
{
    const char *tasks = getenv("SLURM_NTASKS");
    bool by_mpirun = getenv("OMPI_COMM_WORLD_SIZE") != NULL;
    snrq_status status = SNRQ_OK;
    if (c->size == 1 && !by_mpirun && tasks != NULL && strtol(tasks, NULL, 10) > 1)
        status = snrq_fail(
            SNRQ_USAGE,
            "SLURM_NTASKS is %s, but this process is the only rank: expected one MPI "
            "program, found a program that was started alone or %s times; start it with "
            "srun --mpi=pmix (`srun --mpi=list` shows what there is) or mpirun; if one rank "
            "is meant: mpirun -n 1",
            tasks, tasks);
    return snrq_agree(c, status);
}

snrq_status snrq_check_shared_memory(const snrq_context *c, double bytes)
{
    const char *directory = getenv("OMPI_MCA_osc_sm_backing_directory");
    snrq_status status = SNRQ_OK;
    struct statvfs facts;
    if (directory == NULL) directory = "/dev/shm";
    if (c->node_rank == 0 && statvfs(directory, &facts) == 0) {
        double available = (double)facts.f_bavail * (double)facts.f_frsize;
        if (bytes > available)
            status = snrq_fail(
                SNRQ_USAGE,
                "%s has %.0f MB left on this node, the weights that its ranks share need %.0f MB: "
                "make "
                "it larger (mount -o remount,size=...; a container: --shm-size), or name another "
                "directory in memory with OMPI_MCA_osc_sm_backing_directory",
                directory, available / 1e6, bytes / 1e6);
    }
    return snrq_agree(c, status);
}

snrq_status snrq_check_memory(const snrq_context *c, double bytes)
{
    const char *source = NULL;
    snrq_status status = SNRQ_OK;
    double limit = snrq_memory_limit("", &source);
    if (c->node_rank == 0 && limit > 0 && bytes > limit)
        status = snrq_fail(
            SNRQ_USAGE,
            "about %.0f MB are needed on a node with %d rank%s, %.0f MB are allowed (%s): ask for "
            "more "
            "memory or more nodes, or take fewer --sequences (--ignore-memory starts all the same)",
            bytes / 1e6, c->node_size, c->node_size == 1 ? "" : "s", limit / 1e6, source);
    return snrq_agree(c, status);
}

/* Orders pairs (threads, cores) by threads per core. */
static void keep_worse(const int64_t *a, int64_t *worst)
{
    if (worst[1] == 0 || a[0] * worst[1] > worst[0] * a[1]) memcpy(worst, a, 2 * sizeof *a);
}

/* Adds up the threads of the node's ranks that may run on no other cores than `cores`. */
static int64_t threads_within(const cpu_set_t *cores, const cpu_set_t *masks,
                              const int64_t *threads, int ranks)
{
    int64_t sum = 0;
    for (int r = 0; r < ranks; r++) {
        cpu_set_t both;
        CPU_AND(&both, cores, &masks[r]);
        if (CPU_EQUAL(&both, &masks[r])) sum += threads[r];
    }
    return sum;
}

/* crowd <- threads and cores of the node's most crowded set of cores: all of them, or those of this
 * rank. */
static snrq_status find_crowd(const snrq_context *c, const cpu_set_t *mine, int64_t threads,
                              int64_t crowd[2])
{
    cpu_set_t all, *masks = NULL;
    int64_t *of_rank = NULL;
    size_t ranks = (size_t)c->node_size;
    snrq_status status = snrq_allocate(ranks, sizeof *masks, "placement", &masks);
    if (status == SNRQ_OK) status = snrq_allocate(ranks, sizeof *of_rank, "placement", &of_rank);
    status = snrq_agree(c, status);
    if (status == SNRQ_OK)
        status = snrq_mpi_check(MPI_Allgather(mine, (int)sizeof *mine, MPI_BYTE, masks,
                                              (int)sizeof *mine, MPI_BYTE, c->node),
                                "MPI_Allgather");
    if (status == SNRQ_OK)
        status = snrq_mpi_check(
            MPI_Allgather(&threads, 1, MPI_INT64_T, of_rank, 1, MPI_INT64_T, c->node),
            "MPI_Allgather");
    if (status == SNRQ_OK) {
        CPU_ZERO(&all);
        for (int r = 0; r < c->node_size; r++) CPU_OR(&all, &all, &masks[r]);
        const int64_t own[2] = {threads_within(mine, masks, of_rank, c->node_size),
                                CPU_COUNT(mine)};
        crowd[0] = threads_within(&all, masks, of_rank, c->node_size);
        crowd[1] = CPU_COUNT(&all);
        keep_worse(own, crowd);
    }
    free(masks);
    free(of_rank);
    return status;
}

snrq_status snrq_placement_find(const snrq_context *c, int threads, snrq_placement *out)
{
    cpu_set_t mine;
    int64_t facts[4] = {threads, 0, 0, 0}, *all = NULL;
    CPU_ZERO(&mine);
    *out = (snrq_placement){0};
    if (sched_getaffinity(0, sizeof mine, &mine) == 0) facts[1] = CPU_COUNT(&mine);
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "compares cores"));
    SNRQ_TRY(find_crowd(c, &mine, threads, facts + 2));
    snrq_status status =
        snrq_agree(c, snrq_allocate((size_t)c->size, sizeof facts, "placement", &all));
    if (status == SNRQ_OK)
        status = snrq_mpi_check(MPI_Allgather(facts, 4, MPI_INT64_T, all, 4, MPI_INT64_T, c->comm),
                                "MPI_Allgather");
    int64_t worst[4] = {0};
    for (int r = 0; status == SNRQ_OK && r < c->size; r++) {
        keep_worse(all + 4 * r, worst);
        keep_worse(all + 4 * r + 2, worst + 2);
    }
    *out = (snrq_placement){worst[0], worst[1], worst[2], worst[3]};
    free(all);
    return status;
}
