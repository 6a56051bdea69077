/* The full-precision stream on its way to the first block of every layer group.
 *
 * All ranks of the job take it through the blocks before, sequences shared among all of them, and
 * hand each group its own sequences where it begins.
 */
#ifndef SNRQ_PASS_STREAM_H
#define SNRQ_PASS_STREAM_H

#include "pipeline/job.h"
#include "pipeline/model/stream.h"

/* stream's h = embeddings of its windows. Collective over the context; agreed. */
snrq_status snrq_embed(const snrq_context *context, const snrq_job *job, snrq_stream *stream);

/* The same by the rounded embeddings that the run has committed; nothing where they are not
 * quantized. Collective over the context; agreed. */
snrq_status snrq_embed_coded(const snrq_context *context, const snrq_job *job, snrq_stream *stream);

/* full <- the full-precision stream at the first block of this rank's group, on the ranks of the
 * groups that wait for it: waits [groups], the same on all ranks, not 0 if so. There, `full` has
 * the group's share of sequences; elsewhere it is not looked at. Can be stopped between two blocks.
 * Collective over the job; agreed. */
snrq_status snrq_pass_stream(snrq_job *job, const snrq_ropes *ropes, const int64_t *waits,
                             snrq_stream *full);

#endif
