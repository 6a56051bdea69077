/* Rank-count independent collectives; see collective.h. */
#include "mpi/collective.h"

#include <limits.h>
#include <stdlib.h>

/* Chunks stay far below 2^31 items; 64 MiB ones were also faster than single huge calls. */
enum { CHUNK_ITEMS = 1 << 23 };

snrq_range snrq_share(int64_t total, int64_t unit, int size, int rank)
{
    int64_t units = (total + unit - 1) / unit;
    int64_t base = units / size, extra = units % size;
    snrq_range r;
    r.begin = (base * rank + (rank < extra ? rank : extra)) * unit;
    r.end = r.begin + (base + (rank < extra)) * unit;
    if (r.begin > total) r.begin = total;
    if (r.end > total) r.end = total;
    return r;
}

static snrq_status reduce(const snrq_context *c, void *data, int64_t count, MPI_Datatype type,
                          size_t size, MPI_Op op)
{
    if (c->size == 1) return SNRQ_OK;
    for (int64_t at = 0; at < count; at += CHUNK_ITEMS) {
        int64_t left = count - at;
        int items = left < CHUNK_ITEMS ? (int)left : CHUNK_ITEMS;
        SNRQ_TRY(snrq_mpi_check(
            MPI_Allreduce(MPI_IN_PLACE, (char *)data + (size_t)at * size, items, type, op, c->comm),
            "MPI_Allreduce"));
    }
    return SNRQ_OK;
}

snrq_status snrq_broadcast_from_at(snrq_site site, const snrq_context *c, int root, void *data,
                                   size_t bytes)
{
    if (c->size == 1) return SNRQ_OK;
    if (root == 0) SNRQ_TRY(snrq_call_check(c, site, "broadcasts %zu bytes", bytes));
    if (root != 0)
        SNRQ_TRY(snrq_call_check(c, site, "broadcasts %zu bytes of rank %d", bytes, root));
    for (size_t at = 0; at < bytes; at += CHUNK_ITEMS) {
        size_t left = bytes - at;
        int items = left < CHUNK_ITEMS ? (int)left : CHUNK_ITEMS;
        SNRQ_TRY(snrq_mpi_check(MPI_Bcast((char *)data + at, items, MPI_BYTE, root, c->comm),
                                "MPI_Bcast"));
    }
    return SNRQ_OK;
}

snrq_status snrq_collect_at(snrq_site site, const snrq_context *c, double *data, int64_t count)
{
    SNRQ_TRY(snrq_call_check(c, site, "collects %lld numbers", (long long)count));
    return reduce(c, data, count, MPI_DOUBLE, sizeof *data, MPI_SUM);
}

snrq_status snrq_max_double_at(snrq_site site, const snrq_context *c, double *data, int64_t count)
{
    SNRQ_TRY(snrq_call_check(c, site, "takes the maxima of %lld numbers", (long long)count));
    return reduce(c, data, count, MPI_DOUBLE, sizeof *data, MPI_MAX);
}

snrq_status snrq_sum_int64_at(snrq_site site, const snrq_context *c, int64_t *data, int64_t count)
{
    SNRQ_TRY(snrq_call_check(c, site, "sums %lld integers", (long long)count));
    return reduce(c, data, count, MPI_INT64_T, sizeof *data, MPI_SUM);
}

/* counts, begins [size]: of what each rank has. Gives all of it to all ranks. */
static snrq_status gather(const snrq_context *c, const void *mine, size_t bytes, int *counts,
                          int *begins, char **all, size_t *total)
{
    int64_t here = bytes <= INT_MAX ? (int64_t)bytes : INT_MAX, sum = here;
    int count = (int)here;
    SNRQ_TRY(reduce(c, &sum, 1, MPI_INT64_T, sizeof sum, MPI_SUM));
    snrq_status status = SNRQ_OK;
    if (sum >= INT_MAX)
        status = snrq_fail(SNRQ_INTERNAL, "all ranks together have more than 2^31 bytes to gather");
    else
        status = snrq_allocate((size_t)sum + 1, 1, "what all ranks have", all);
    SNRQ_TRY(snrq_agree(c, status));
    SNRQ_TRY(snrq_mpi_check(MPI_Allgather(&count, 1, MPI_INT, counts, 1, MPI_INT, c->comm),
                            "MPI_Allgather"));
    for (int r = 1; r < c->size; r++) begins[r] = begins[r - 1] + counts[r - 1];
    *total = (size_t)sum;
    return snrq_mpi_check(
        MPI_Allgatherv(mine, count, MPI_BYTE, *all, counts, begins, MPI_BYTE, c->comm),
        "MPI_Allgatherv");
}

snrq_status snrq_gather_bytes_at(snrq_site site, const snrq_context *c, const void *mine,
                                 size_t bytes, char **all, size_t *total)
{
    int *counts = NULL;
    *all = NULL;
    *total = 0;
    SNRQ_TRY(snrq_call_check(c, site, "gathers what every rank has"));
    SNRQ_TRY(
        snrq_agree(c, snrq_allocate(2 * (size_t)c->size, sizeof *counts, "byte counts", &counts)));
    snrq_status status =
        snrq_agree(c, gather(c, mine, bytes, counts, counts + c->size, all, total));
    free(counts);
    if (status != SNRQ_OK) free(*all);
    if (status != SNRQ_OK) *all = NULL;
    return status;
}

snrq_status snrq_barrier_at(snrq_site site, const snrq_context *c)
{
    if (c->size == 1) return SNRQ_OK;
    SNRQ_TRY(snrq_call_check(c, site, "waits for all ranks"));
    return snrq_mpi_check(MPI_Barrier(c->comm), "MPI_Barrier");
}
