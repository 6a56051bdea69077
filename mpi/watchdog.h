/* A watchdog: ends a process that makes no progress, and says where it hangs.
 *
 * Progress is that a timer's phase changes (timers.h). A thread of every rank looks at its own
 * rank: where one hangs, the others soon wait for it and hang too, each in its own phase. A hang
 * inside MPI cannot be agreed upon, so this is the one place below main() that ends the process.
 */
#ifndef SNRQ_WATCHDOG_H
#define SNRQ_WATCHDOG_H

#include "mpi/timers.h"

enum { SNRQ_HUNG = 76 }; /* exit code */

typedef struct snrq_watchdog snrq_watchdog;

/* Watches `timers` (borrowed): after `seconds` without a change prints the job's number of this
 * rank, its host and phase (named by `phase_name`) and exits with SNRQ_HUNG. 0 seconds: does
 * nothing, *out is NULL. Not collective. */
snrq_status snrq_watchdog_start(const snrq_context *context, const snrq_timers *timers,
                                const char *(*phase_name)(int phase), double seconds,
                                snrq_watchdog **out);

/* Ends the thread; *watchdog becomes NULL. */
void snrq_watchdog_stop(snrq_watchdog **watchdog);

#endif
