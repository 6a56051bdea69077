/* Makes MPI calls fail, for test_mpi_errors.py: preloaded into a rank, it stands before the MPI
 * library.
 *
 * MPI_FAULT="MPI_Bcast 3" makes the third such call fail without doing anything; with
 * MPI_FAULT_RANK=1 only on rank 1, else on all ranks.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fails(const char *name)
{
    static int calls;
    const char *fault = getenv("MPI_FAULT"), *rank = getenv("MPI_FAULT_RANK");
    char wanted[64];
    int number = 0, mine = 0;
    if (fault == NULL || sscanf(fault, "%63s %d", wanted, &number) != 2) return 0;
    if (strcmp(wanted, name) != 0) return 0;
    PMPI_Comm_rank(MPI_COMM_WORLD, &mine);
    if (rank != NULL && atoi(rank) != mine) return 0;
    return ++calls == number;
}

#define FAULTY(name, arguments, parameters)                                                        \
    int name parameters                                                                            \
    {                                                                                              \
        return fails(#name) ? MPI_ERR_OTHER : P##name arguments;                                   \
    }

FAULTY(MPI_Allreduce, (from, to, count, type, op, comm),
       (const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm))
FAULTY(MPI_Iallreduce, (from, to, count, type, op, comm, request),
       (const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
        MPI_Request *request))
FAULTY(MPI_Bcast, (data, count, type, root, comm),
       (void *data, int count, MPI_Datatype type, int root, MPI_Comm comm))
FAULTY(MPI_Barrier, (comm), (MPI_Comm comm))
FAULTY(MPI_Comm_split, (comm, color, key, out), (MPI_Comm comm, int color, int key, MPI_Comm *out))
FAULTY(MPI_Win_allocate_shared, (bytes, unit, info, comm, data, window),
       (MPI_Aint bytes, int unit, MPI_Info info, MPI_Comm comm, void *data, MPI_Win *window))
FAULTY(MPI_Waitall, (count, requests, statuses),
       (int count, MPI_Request requests[], MPI_Status statuses[]))
