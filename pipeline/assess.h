/* `snrq assess`: what rounding each part of a model costs.
 *
 * Block by block, in full precision: H of every unit from the calibration windows; its modules
 * rounded from that H with the options' method and 3 bits, and greedily and to nearest with every
 * width and size of groups. Then the block rounded as `quantize` does it, with all others as they
 * are. Then the divergences KL(model || model with one step, or this block, rounded) over windows
 * that nothing was fitted to; for other widths and groups, they grow as the objective does. A step
 * is what engines fuse, or what is chosen as one (q, k and v; all experts), so it is the part that
 * a recipe gives its own width. Behind the uniform model of the usual width, the mismatch grows,
 * and has the strengths that it would choose (assess_mismatch.h).
 *
 *   DIR/uniform-3/         an output of `quantize` with 3 bits everywhere, calibrated on the same
 *                          windows; its divergence tells how far the sum of the others holds
 *   DIR/assess-00003.json   figures of block 3; a run that is started again goes on behind them
 *   DIR/assessment.json     {"format", "configuration", "blocks"}: all of them, for --assessment
 *   DIR/assessment.txt      the same in short, the worst first
 *   DIR/report/             pictures and tables by layer
 *   DIR/recipe.json         the best choices within the bytes of 3 bits everywhere
 *
 * The bytes do not depend on the number of ranks. docs/method.md, "Bits within a budget".
 */
#ifndef SNRQ_ASSESS_H
#define SNRQ_ASSESS_H

#include "mpi/watch.h"
#include "pipeline/options/options.h"

/* Collective; agreed. */
snrq_status snrq_assess(const snrq_context *context, const snrq_options *options);

/* The assessment that a budget without --assessment goes by: made in OUT, without uniform models,
 * on a part of the run's windows; one that is there already is used. It can be stopped as the run
 * can, whose `watch` is (borrowed): SNRQ_STOPPED, and the next start goes on. path [size] <- its
 * file. Collective; agreed. */
snrq_status snrq_assess_for_budget(const snrq_context *context, const snrq_options *options,
                                   const snrq_watch *watch, char *path, size_t size);

#endif
