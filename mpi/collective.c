/* Rank-count independent collectives; see collective.h. */
#include "mpi/collective.h"

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

snrq_status snrq_broadcast_at(snrq_site site, const snrq_context *c, void *data, size_t bytes)
{
    if (c->size == 1) return SNRQ_OK;
    SNRQ_TRY(snrq_call_check(c, site, "broadcasts %zu bytes", bytes));
    for (size_t at = 0; at < bytes; at += CHUNK_ITEMS) {
        size_t left = bytes - at;
        int items = left < CHUNK_ITEMS ? (int)left : CHUNK_ITEMS;
        SNRQ_TRY(
            snrq_mpi_check(MPI_Bcast((char *)data + at, items, MPI_BYTE, 0, c->comm), "MPI_Bcast"));
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

snrq_status snrq_barrier_at(snrq_site site, const snrq_context *c)
{
    if (c->size == 1) return SNRQ_OK;
    SNRQ_TRY(snrq_call_check(c, site, "waits for all ranks"));
    return snrq_mpi_check(MPI_Barrier(c->comm), "MPI_Barrier");
}
