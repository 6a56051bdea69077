/* KL(model || model with one block changed).
 */
#ifndef SNRQ_ASSESS_DIVERGENCE_H
#define SNRQ_ASSESS_DIVERGENCE_H

#include "mpi/watch.h"
#include "pipeline/model/model.h"
#include "pipeline/model/stream.h"

/* What it is measured on. All borrowed. */
typedef struct snrq_divergence {
    const snrq_context *context;
    const snrq_model *model;
    const snrq_ropes *ropes;
    const snrq_windows *windows;
    const snrq_stream *before; /* as it enters the block; nothing is rounded in it */
    const float *after;        /* h of the same sequences behind the last block */
    const snrq_watch *watch;   /* NULL: nobody can stop it */
} snrq_divergence;

/* kl [count], in nats per token, of each variant of block `layer`. All go through the blocks behind
 * it together. Collective; agreed. */
snrq_status snrq_divergence_measure(const snrq_divergence *of, int64_t layer,
                                    const snrq_block *variant, int count, double *kl);

/* *kl <- that of the OUT directory `path` of the same model; of->before is what enters the first
 * block. Collective; agreed. */
snrq_status snrq_divergence_of_output(const snrq_divergence *of, const char *path, double *kl);

#endif
