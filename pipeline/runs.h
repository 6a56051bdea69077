/* Laying out the runs of a table, for the scripts that start them. */
#ifndef SNRQ_RUNS_H
#define SNRQ_RUNS_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* `snrq runs TABLE -o ROOT [--data DIR]`: reads a table of runs (pipeline/results/experiment.h) and
 * writes into ROOT, which is made,
 *
 *     table.json                 the table
 *     runs.tsv                   a line for every run: name, directory of the model, "fp" or
 *                                "quantize", evaluations with commas between
 *     NAME/quantize.options      of `snrq quantize --options`
 *     NAME/EVALUATION.options    of `snrq evaluate --options`, for every evaluation
 *
 * Relative paths of the table are in DIR, or where TABLE lies. All options are checked. Called
 * again, it adds what is new. The result of an evaluation whose options differ from those of the
 * last time is removed; a quantization with other options is refused (SNRQ_USAGE). SNRQ_BAD_DATA
 * for what is wrong with the table. Collective; agreed: rank 0 works. */
snrq_status snrq_runs(const snrq_context *context, const snrq_options *options);

#endif
