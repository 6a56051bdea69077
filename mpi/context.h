/* The ranks that work together, and how they agree.
 *
 * A context owns a communicator of its own, and one of the ranks that share memory with this one.
 * Everything in mpi/ takes a context; only main() names MPI_COMM_WORLD. pipeline/ and io/ call no
 * MPI themselves, but for main() and for HDF5's writer: they see ranks through the headers of mpi/.
 *
 * "Collective; agreed" at a function: every rank of the context makes the call, in the same order;
 * each tries its own part; at the end all get the same status and the message of the lowest failing
 * rank. "Not collective": a rank may call it alone.
 *
 * A function is collective over the context that it takes, or over the one that its object was made
 * with (a grid and its matrices, a set of files): all ranks of that context call it, in the same
 * order, and no other rank has to. A group of ranks is a context made by snrq_context_split():
 * groups work at the same time, and what one of them agrees on is nothing to the others.
 *
 * With one rank there is nobody to ask: agreeing, splitting and collective.h return at once and
 * call no MPI. So a process that starts no MPI works with the context of
 * snrq_context_create_alone().
 */
#ifndef SNRQ_CONTEXT_H
#define SNRQ_CONTEXT_H

#include <mpi.h>
#include <stdint.h>

#include "mpi/call_check.h"
#include "mpi/status.h"

typedef struct snrq_context {
    MPI_Comm comm;    /* owned; this and the next are MPI_COMM_NULL where MPI was not started */
    MPI_Comm node;    /* owned: the ranks of this rank's node */
    MPI_Comm leaders; /* owned: rank 0 of every node; MPI_COMM_NULL on the other ranks */
    int rank, size;
    int job_rank; /* of this rank in the context that was not split from another: for messages */
    int node_rank, node_size;
    int node_index, nodes;      /* which node this is, and how many there are */
    int *node_of_rank;          /* [size] owned: node_index of every rank */
    snrq_call_checker *checker; /* owned; NULL: calls are not compared */
} snrq_context;

/* Makes a context from `comm` (duplicated). Collective over comm; agreed. The caller destroys it
 * before MPI_Finalize. */
snrq_status snrq_context_create(MPI_Comm comm, snrq_context **out);

/* Makes the context of a process that has not started MPI: its only rank. Good for agreeing,
 * splitting, and the operations of collective.h; whatever else takes a context (memory of a node,
 * matrices, transfers, files that ranks write together) needs MPI. Not collective. The caller
 * destroys it. */
snrq_status snrq_context_create_alone(snrq_context **out);

/* Splits a context: the ranks of `parent` that pass the same `group` (>= 0) get a context of their
 * own, in the order of their ranks; ranks that pass a negative number are in no group, and their
 * *out is NULL. Calls are compared (call_check.h) as in the parent. The new context
 * does not need `parent`: both are destroyed in any order. If one group's context
 * cannot be made, no rank of the parent gets one. Collective over the parent; agreed. The caller
 * destroys it before MPI_Finalize. */
snrq_status snrq_context_split(const snrq_context *parent, int group, snrq_context **out);

/* Frees the context and sets *context to NULL. Collective. */
void snrq_context_destroy(snrq_context **context);

/* Agrees on the outcome of a step that each rank tried on its own: returns SNRQ_OK if every rank
 * passes SNRQ_OK, else the same status on all ranks, with the message of the lowest failing rank
 * (prefixed by its job_rank where the context has more than one). Collective; call it after each
 * file open, large allocation or one-rank step. */
#define snrq_agree(context, local) snrq_agree_at(SNRQ_HERE, context, local)
snrq_status snrq_agree_at(snrq_site site, const snrq_context *context, snrq_status local);

/* Turns an MPI return code into a status, naming the call. A failure that no agreement follows is
 * one of this rank alone (lone_failure.h). Not collective. */
snrq_status snrq_mpi_check(int code, const char *call);

/* What the MPI library calls itself, in short: "Open MPI v4.1.4". Before a context is there, too.
 * Not collective. */
void snrq_mpi_library(char *out, size_t size);

#endif
