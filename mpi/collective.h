/* The few collective operations the pipeline needs, each with a result that does not depend on the
 * number of ranks. All are collective over the context and return the same status on all ranks. The
 * macros pass the place of the call along, for call_check.h. */
#ifndef SNRQ_COLLECTIVE_H
#define SNRQ_COLLECTIVE_H

#include <stdint.h>

#include "mpi/context.h"

/* A contiguous run of items: [begin, end). */
typedef struct snrq_range {
    int64_t begin, end;
} snrq_range;

/* The part of `total` items, in units of `unit`, that `rank` of `size` owns: contiguous, in rank
 * order, as even as whole units allow; the last unit may be short. Not collective. */
snrq_range snrq_share(int64_t total, int64_t unit, int size, int rank);

/* Copies `bytes` bytes from rank 0, or from rank `root`, to all ranks, in chunks. */
#define snrq_broadcast(context, data, bytes)                                                       \
    snrq_broadcast_from_at(SNRQ_HERE, context, 0, data, bytes)
#define snrq_broadcast_from(context, root, data, bytes)                                            \
    snrq_broadcast_from_at(SNRQ_HERE, context, root, data, bytes)
snrq_status snrq_broadcast_from_at(snrq_site site, const snrq_context *context, int root,
                                   void *data, size_t bytes);

/* data[i] <- the value of the one rank that owns item i; every other rank passes zero there. Exact:
 * a sum in which one term is not zero. Used for per-sequence and per-row figures, which are then
 * added up in item order by every rank alike. */
#define snrq_collect(context, data, count) snrq_collect_at(SNRQ_HERE, context, data, count)
snrq_status snrq_collect_at(snrq_site site, const snrq_context *context, double *data,
                            int64_t count);

/* data[i] <- MAX (or SUM) over ranks. Order-free, hence the same for any number of ranks. */
#define snrq_max_double(context, data, count) snrq_max_double_at(SNRQ_HERE, context, data, count)
snrq_status snrq_max_double_at(snrq_site site, const snrq_context *context, double *data,
                               int64_t count);
#define snrq_sum_int64(context, data, count) snrq_sum_int64_at(SNRQ_HERE, context, data, count)
snrq_status snrq_sum_int64_at(snrq_site site, const snrq_context *context, int64_t *data,
                              int64_t count);

/* Every rank's `bytes` bytes, which may differ in number, one after the other in the order of the
 * ranks, on all ranks: *all [*total], followed by a NUL that is not counted. Agreed. The caller
 * frees *all. For small things: all of it must be less than 2^31 bytes. */
#define snrq_gather_bytes(context, mine, bytes, all, total)                                        \
    snrq_gather_bytes_at(SNRQ_HERE, context, mine, bytes, all, total)
snrq_status snrq_gather_bytes_at(snrq_site site, const snrq_context *context, const void *mine,
                                 size_t bytes, char **all, size_t *total);

/* Waits for all ranks. */
#define snrq_barrier(context) snrq_barrier_at(SNRQ_HERE, context)
snrq_status snrq_barrier_at(snrq_site site, const snrq_context *context);

#endif
