/* quantize --tune: after all blocks are quantized, scales and norms are tuned end to end.
 *
 * Codes are frozen. What is minimized is KL(full-precision model || quantized model) of the tokens
 * of the calibration windows, by Adam (tuned_model.h) over `--tune` epochs with a rate that falls
 * to 0. An epoch takes every window once, some at a time: which ones together depends on the seed,
 * the epoch and the number of windows alone. Gradients are summed in fixed point, so that the bytes
 * do not depend on the number of ranks. After each epoch KL over the held-out windows says whether
 * this is the best model so far; when it has not improved for some epochs, tuning ends. If the best
 * is not the one it began with, all files of OUT that change are replaced at once (output.h).
 */
#ifndef SNRQ_TUNE_H
#define SNRQ_TUNE_H

#include "pipeline/job.h"

/* SNRQ_USAGE for what --tune cannot do: weights in formats of llama.cpp, whose scales depend on
 * each other; and nothing held out to stop by. Not collective. */
snrq_status snrq_tune_check(const snrq_rules *rules, const snrq_model *model,
                            const snrq_windows *windows);

/* Does nothing without --tune. job->tuning becomes what is to be recorded. Collective; agreed. */
snrq_status snrq_tune(snrq_job *job);

#endif
