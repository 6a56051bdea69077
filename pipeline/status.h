/* What a run is doing, seen from outside. */
#ifndef SNRQ_JOB_STATUS_H
#define SNRQ_JOB_STATUS_H

#include "mpi/status.h"
#include "pipeline/options.h"

/* `snrq status OUT`: prints state, progress and last error of a running or ended run from the files
 * in OUT, to which it does nothing. Needs no MPI. SNRQ_NO_INPUT if OUT is no output of snrq. */
snrq_status snrq_job_status(const snrq_options *options);

#endif
