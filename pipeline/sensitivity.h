/* The command `sensitivity`: one backward pass of a full-precision model over calibration windows,
 * and what it says of the outputs of every module.
 *
 * Some sequences at a time go forward through all blocks, whose inputs are kept, then back from the
 * gradient of drawn labels (label_gradient.h), block by block (block_backward.h). Every rank has
 * sequences of its own; sums over them are in fixed point, so that the file's bytes do not depend
 * on the number of ranks, or on how many sequences are taken at a time.
 */
#ifndef SNRQ_SENSITIVITY_H
#define SNRQ_SENSITIVITY_H

#include "mpi/context.h"
#include "pipeline/options.h"

/* Writes the file (sensitivity_file.h) and tells about it. Collective; agreed. */
snrq_status snrq_sensitivity(const snrq_context *context, const snrq_options *options);

#endif
