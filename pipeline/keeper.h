/* Activations kept between blocks, so that a run that resumes need not take them through all the
 * committed blocks again (--keep-activations).
 *
 * Nothing depends on it: replayed activations have the same bits. What fails here is said, and the
 * run goes on without.
 */
#ifndef SNRQ_KEEPER_H
#define SNRQ_KEEPER_H

#include "io/checkpoint/output.h"
#include "pipeline/model/stream.h"
#include "pipeline/report.h"

typedef struct snrq_keeper {
    const snrq_context *context; /* borrowed: the ranks that share the streams */
    snrq_output *output;         /* borrowed */
    snrq_range blocks;           /* that they work on */
    int64_t windows;             /* of all ranks of the context */
    bool on;                     /* activations are to be kept */
    snrq_progress *progress;     /* borrowed: is told */
} snrq_keeper;

/* Keeps both streams as they are after `block`, the last one that is committed, in place of those
 * after an earlier one. If that fails - the disk is full - everything kept is removed, to leave the
 * room to the blocks, and the keeper turns itself off. Collective. */
void snrq_keeper_write(snrq_keeper *keeper, int64_t block, const snrq_stream *quantized,
                       const snrq_stream *full);

/* Fills both streams (created, not embedded) with what they were after one of the blocks before
 * `committed`, the last one there is something for: *next is the block to go on with. The first of
 * the keeper's blocks if nothing is kept or what is kept is damaged or of another run: then the
 * streams must be started. Collective; agreed. */
snrq_status snrq_keeper_read(const snrq_keeper *keeper, int64_t committed, snrq_stream *quantized,
                             snrq_stream *full, int64_t *next);

#endif
