/* How the ranks were started and where they were put: mistakes that would otherwise show only as a
 * slow run, a wrong one, or one that is killed hours later. */
#ifndef SNRQ_PLACEMENT_H
#define SNRQ_PLACEMENT_H

#include <stdbool.h>

#include "mpi/context.h"

/* SNRQ_USAGE if Slurm started several tasks and each of them believes to be the only rank (srun
 * without the MPI library's plugin): they would all do the same work. Collective; agreed. */
snrq_status snrq_check_launch(const snrq_context *context);

/* SNRQ_USAGE if node-shared memory of so many bytes does not fit where MPI puts it (/dev/shm).
 * Collective; agreed. */
snrq_status snrq_check_shared_memory(const snrq_context *context, double bytes);

/* SNRQ_USAGE if so many bytes are more than this node's job may use (memory_limit.h). Collective;
 * agreed. */
snrq_status snrq_check_memory(const snrq_context *context, double bytes_per_node);

/* Cores that a rank may use; and, as ranks may share them, a set of cores of a node and the threads
 * of all ranks that can run nowhere else. The same on all ranks. Collective. */
typedef struct snrq_placement {
    int64_t threads, cores;           /* of the rank with the fewest cores for its threads */
    int64_t node_threads, node_cores; /* of the most crowded set: a node's cores, or a rank's */
} snrq_placement;
snrq_status snrq_placement_find(const snrq_context *context, int threads, snrq_placement *out);

#endif
