/* The command `sensitivity`: one backward pass of a full-precision model over calibration windows
 * (sensitivity_pass.h), and the file of what it says of the outputs of every module. */
#ifndef SNRQ_SENSITIVITY_H
#define SNRQ_SENSITIVITY_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* Writes the file and tells about it. Collective; agreed. */
snrq_status snrq_sensitivity(const snrq_context *context, const snrq_options *options);

#endif
