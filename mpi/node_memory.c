/* Node-shared memory; see node_memory.h. */
#include "mpi/node_memory.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"

enum { CHUNK_BYTES = 1 << 26 };

/* Zeroes this rank's part, with all its threads: what takes time is that the system finds a place
 * for every page. */
static void clear(const snrq_context *c, snrq_node_memory *m)
{
    enum { PIECE = 1 << 21 };
    snrq_range mine = snrq_share((int64_t)m->bytes, PIECE, c->node_size, c->node_rank);
#pragma omp parallel for schedule(static)
    for (int64_t at = mine.begin; at < mine.end; at += PIECE)
        memset(m->data + at, 0, (size_t)(mine.end - at < PIECE ? mine.end - at : PIECE));
}

static snrq_status allocate_window(const snrq_context *c, snrq_node_memory *m)
{
    void *base = NULL;
    MPI_Aint size = c->node_rank == 0 ? (MPI_Aint)m->bytes : 0;
    int unit = 1;
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "allocates %zu bytes per node", m->bytes));
    SNRQ_TRY(
        snrq_mpi_check(MPI_Win_allocate_shared(size, 1, MPI_INFO_NULL, c->node, &base, &m->window),
                       "MPI_Win_allocate_shared (is /dev/shm large enough?)"));
    /* A window does not inherit the error handler of its communicator. */
    SNRQ_TRY(snrq_mpi_check(MPI_Win_set_errhandler(m->window, MPI_ERRORS_RETURN),
                            "MPI_Win_set_errhandler"));
    SNRQ_TRY(snrq_mpi_check(MPI_Win_shared_query(m->window, 0, &size, &unit, &base),
                            "MPI_Win_shared_query"));
    m->data = base;
    SNRQ_TRY(snrq_mpi_check(MPI_Win_lock_all(MPI_MODE_NOCHECK, m->window), "MPI_Win_lock_all"));
    m->locked = true;
    clear(c, m);
    return SNRQ_OK;
}

snrq_status snrq_node_memory_create(const snrq_context *c, size_t bytes, snrq_node_memory **out)
{
    snrq_node_memory *m = NULL;
    *out = NULL;
    snrq_status status = snrq_agree(c, snrq_allocate(1, sizeof *m, "node memory", &m));
    if (m != NULL) *m = (snrq_node_memory){.bytes = bytes, .window = MPI_WIN_NULL};
    if (status == SNRQ_OK) status = snrq_agree(c, allocate_window(c, m));
    if (status == SNRQ_OK) status = snrq_agree(c, snrq_node_memory_sync(c, m));
    if (status != SNRQ_OK)
        snrq_node_memory_destroy(&m);
    else
        *out = m;
    return status;
}

void snrq_node_memory_destroy(snrq_node_memory **memory)
{
    snrq_node_memory *m = *memory;
    if (m == NULL) return;
    if (m->window != MPI_WIN_NULL) {
        if (m->locked) MPI_Win_unlock_all(m->window);
        MPI_Win_free(&m->window);
    }
    free(m);
    *memory = NULL;
}

snrq_status snrq_node_memory_sync(const snrq_context *c, snrq_node_memory *m)
{
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "waits for what its node wrote to %zu bytes", m->bytes));
    SNRQ_TRY(snrq_mpi_check(MPI_Win_sync(m->window), "MPI_Win_sync"));
    SNRQ_TRY(snrq_mpi_check(MPI_Barrier(c->node), "MPI_Barrier"));
    return snrq_mpi_check(MPI_Win_sync(m->window), "MPI_Win_sync");
}

/* Every node's leader gives the rows that its ranks of the team wrote to the other leaders. */
static snrq_status exchange_rows(const snrq_context *c, const snrq_team *team, unsigned char *table,
                                 int64_t rows, int64_t unit, size_t row_bytes)
{
    const int first = team->first, end = team->first + team->size;
    for (int rank = first, next; rank < end; rank = next) {
        snrq_range r = snrq_share(rows, unit, team->size, rank - first);
        /* Neighbours on one node are sent together: messages grow with the nodes, not the ranks. */
        for (next = rank + 1; next < end && c->node_of_rank[next] == c->node_of_rank[rank]; next++)
            r.end = snrq_share(rows, unit, team->size, next - first).end;
        unsigned char *at = table + (size_t)r.begin * row_bytes;
        for (size_t left = (size_t)(r.end - r.begin) * row_bytes; left > 0;) {
            int bytes = left < CHUNK_BYTES ? (int)left : CHUNK_BYTES;
            SNRQ_TRY(snrq_mpi_check(
                MPI_Bcast(at, bytes, MPI_BYTE, c->node_of_rank[rank], c->leaders), "MPI_Bcast"));
            at += bytes;
            left -= (size_t)bytes;
        }
    }
    return SNRQ_OK;
}

snrq_status snrq_node_memory_share_rows(const snrq_context *c, snrq_node_memory *m, size_t offset,
                                        int64_t rows, int64_t unit, size_t row_bytes)
{
    const snrq_team all = snrq_team_of_all(c);
    return snrq_node_memory_share_team_rows(c, &all, m, offset, rows, unit, row_bytes);
}

snrq_status snrq_node_memory_share_team_rows(const snrq_context *c, const snrq_team *team,
                                             snrq_node_memory *m, size_t offset, int64_t rows,
                                             int64_t unit, size_t row_bytes)
{
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "shares %lld rows of %zu bytes from byte %zu",
                             (long long)rows, row_bytes, offset));
    SNRQ_TRY(snrq_node_memory_sync(c, m));
    if (c->nodes == 1) return SNRQ_OK;
    snrq_status status = SNRQ_OK;
    if (c->leaders != MPI_COMM_NULL)
        status = exchange_rows(c, team, m->data + offset, rows, unit, row_bytes);
    SNRQ_TRY(snrq_agree(c, status));
    return snrq_node_memory_sync(c, m);
}
