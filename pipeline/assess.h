/* `snrq assess`: what rounding each part of a model costs.
 *
 * Block by block, in full precision: H of every unit from the calibration windows; its modules
 * rounded from that H at every width, with the options' method and to nearest; and the divergence
 * KL(model || model with this one step rounded) over windows that nothing was fitted to. A step is
 * what engines fuse, or what is chosen as one (q, k and v; all experts), so it is the part that a
 * recipe gives its own width. Strengths are 0: before the block nothing is rounded.
 *
 *   DIR/uniform-3/         an output of `quantize` with 3 bits everywhere, calibrated on the same
 *                          windows; its divergence tells how far the sum of the others holds
 *   DIR/assess-00003.json   figures of block 3; a run that is started again goes on behind them
 *   DIR/assessment.json     {"format", "configuration", "blocks"}: all of them, for --assessment
 *   DIR/assessment.txt      the same in short, the worst first
 *
 * The bytes do not depend on the number of ranks. docs/method.md, "Bits within a budget".
 */
#ifndef SNRQ_ASSESS_H
#define SNRQ_ASSESS_H

#include "mpi/context.h"
#include "pipeline/options.h"

/* Collective; agreed. */
snrq_status snrq_assess(const snrq_context *context, const snrq_options *options);

#endif
