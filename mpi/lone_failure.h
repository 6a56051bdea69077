/* A rank that fails alone ends the run.
 *
 * Failures are agreed on (context.h), and all ranks end together. Where that is not possible - an
 * MPI call failed on one rank, and the others wait in it, or for it - the rank that failed would
 * wait, too, as soon as it frees what the ranks own together. So a rank whose failure began sets
 * itself a time, and ends by itself if it is still there then; the launcher ends the others.
 */
#ifndef SNRQ_LONE_FAILURE_H
#define SNRQ_LONE_FAILURE_H

#include "mpi/status.h"

/* Turns it on for this process: a failed rank has so many seconds left. For main(): it uses SIGALRM
 * and ends the process. Not collective. */
void snrq_lone_failure_listen(int rank, unsigned seconds);

/* A failure began, with the message of the last snrq_fail(): unless the process ends in time, it
 * prints that message and ends with `status` as its exit code. Only the first failure counts. Does
 * nothing if it is not turned on. */
void snrq_lone_failure_begin(snrq_status status);

/* The others ended, too: the process may take its time from here on. */
void snrq_lone_failure_end(void);

#endif
