/* Memory that the ranks of one node share: an MPI-3 shared-memory window.
 *
 * The weights of a block exist once per node in such memory. Ranks write disjoint parts, then
 * snrq_node_memory_sync() makes everything visible to all ranks of the node.
 */
#ifndef SNRQ_NODE_MEMORY_H
#define SNRQ_NODE_MEMORY_H

#include <stdbool.h>

#include "mpi/team.h"

typedef struct snrq_node_memory {
    unsigned char *data; /* [bytes], the same memory on all ranks of the node; zeroed at creation */
    size_t bytes;
    MPI_Win window; /* owned */
    bool locked;    /* the access epoch is open */
} snrq_node_memory;

/* Allocates `bytes` (the same on all ranks) once per node. Collective over the context; agreed. */
snrq_status snrq_node_memory_create(const snrq_context *context, size_t bytes,
                                    snrq_node_memory **out);

/* Frees the memory and sets *memory to NULL. Collective over the ranks of the node in the context
 * it was made with. */
void snrq_node_memory_destroy(snrq_node_memory **memory);

/* After this, what any rank of the node wrote before is seen by all of them. Collective over the
 * context, though only the ranks of a node wait for each other. */
snrq_status snrq_node_memory_sync(const snrq_context *context, snrq_node_memory *memory);

/* Copies rows between nodes: rank r wrote rows snrq_share(rows, unit, size, r) of a [rows,
 * row_bytes] table at `offset`, in its own node's memory; afterwards every node has all rows.
 * Includes the sync. Collective over the context. */
snrq_status snrq_node_memory_share_rows(const snrq_context *context, snrq_node_memory *memory,
                                        size_t offset, int64_t rows, int64_t unit,
                                        size_t row_bytes);

/* The same for rows that the ranks of a team wrote: its rank r those of snrq_share(rows, unit, size
 * of the team, r). Collective over the context. */
snrq_status snrq_node_memory_share_team_rows(const snrq_context *context, const snrq_team *team,
                                             snrq_node_memory *memory, size_t offset, int64_t rows,
                                             int64_t unit, size_t row_bytes);

#endif
