/* What a run is doing, or what became of it, seen from outside. */
#ifndef SNRQ_JOB_STATUS_H
#define SNRQ_JOB_STATUS_H

#include "mpi/status.h"
#include "pipeline/options/options.h"

/* `snrq status OUT`: prints state, progress, last error and what to do next from the files in OUT,
 * to which it does nothing; damage by the sizes of files, with --full by their hashes. Needs no
 * MPI.
 *
 * Returns the exit code of the state, with an empty message: SNRQ_OK complete, SNRQ_BUSY a process
 * is at work, SNRQ_STOPPED not started, stopped or killed, SNRQ_HUNG, SNRQ_BAD_DATA damaged; of a
 * run that failed, the code with which it ended. With a message: SNRQ_NO_INPUT if OUT is not there,
 * no output of snrq, or may not be read; SNRQ_IO_ERROR. */
snrq_status snrq_job_status(const snrq_options *options);

#endif
