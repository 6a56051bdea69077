/* The ranks that work together, and how they agree.
 *
 * A context owns a duplicate of the communicator it was made from, and a communicator of the ranks
 * that share memory with this one. Everything in mpi/ takes a context; only main() names
 * MPI_COMM_WORLD. pipeline/ and io/ see ranks through this header and collective.h alone.
 */
#ifndef SNRQ_CONTEXT_H
#define SNRQ_CONTEXT_H

#include <mpi.h>
#include <stdint.h>

#include "mpi/call_check.h"
#include "mpi/status.h"

typedef struct snrq_context {
    MPI_Comm comm;    /* owned */
    MPI_Comm node;    /* owned: the ranks of this rank's node */
    MPI_Comm leaders; /* owned: rank 0 of every node; MPI_COMM_NULL on the other ranks */
    int rank, size;
    int node_rank, node_size;
    int node_index, nodes;      /* which node this is, and how many there are */
    int *node_of_rank;          /* [size] owned: node_index of every rank */
    snrq_call_checker *checker; /* owned; NULL: calls are not compared */
} snrq_context;

/* Makes a context from `comm` (duplicated). Collective over comm. The caller destroys it before
 * MPI_Finalize. */
snrq_status snrq_context_create(MPI_Comm comm, snrq_context **out);

/* Frees the context and sets *context to NULL. Collective. */
void snrq_context_destroy(snrq_context **context);

/* Agrees on the outcome of a step that each rank tried on its own: returns SNRQ_OK if every rank
 * passes SNRQ_OK, else the same status on all ranks, with the message of the lowest failing rank
 * (prefixed by its rank where there is more than one). Collective; call it after each file open,
 * large allocation or one-rank step. */
#define snrq_agree(context, local) snrq_agree_at(SNRQ_HERE, context, local)
snrq_status snrq_agree_at(snrq_site site, const snrq_context *context, snrq_status local);

/* Turns an MPI return code into a status, naming the call. A failure that no agreement follows is
 * one of this rank alone (lone_failure.h). Not collective. */
snrq_status snrq_mpi_check(int code, const char *call);

#endif
