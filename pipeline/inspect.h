/* Looking at directories without computing anything. */
#ifndef SNRQ_INSPECT_H
#define SNRQ_INSPECT_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* `snrq inspect MODEL|OUT`: configuration, shapes, sizes; for an OUT directory one row per module
 * with its quality. Rank 0 works and prints. Collective; agreed. */
snrq_status snrq_inspect(const snrq_context *context, const snrq_options *options);

/* `snrq verify OUT`: every committed file against the manifest, and whether the run is complete.
 * Rank 0 works and prints. With --export see export.h. SNRQ_BAD_DATA if anything is wrong or
 * missing. Collective; agreed. */
snrq_status snrq_verify(const snrq_context *context, const snrq_options *options);

#endif
