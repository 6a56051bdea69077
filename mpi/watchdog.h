/* A watchdog: ends a process that makes no progress, and says where it hangs.
 *
 * Progress is that a timer's phase changes (timers.h). A thread of every rank looks at its own
 * rank: where one hangs, the others soon wait for it and hang too, each in its own phase. A hang
 * inside MPI cannot be agreed upon, so this is the one place below main() that ends the process.
 */
#ifndef SNRQ_WATCHDOG_H
#define SNRQ_WATCHDOG_H

#include "mpi/timers.h"

typedef struct snrq_watchdog snrq_watchdog;

/* Told of the end, on a thread of its own, so that a file system that hangs does not keep the
 * process: it has some seconds. */
typedef void snrq_watchdog_report(const void *user, const char *message);

typedef struct snrq_watchdog_settings {
    const snrq_timers *timers;            /* watched; borrowed */
    const char *(*phase_name)(int phase); /* of the timers */
    double seconds;                       /* 0: nothing is watched */
    snrq_watchdog_report *report;         /* NULL: nobody is told */
    const void *user;                     /* passed to report; borrowed */
} snrq_watchdog_settings;

/* After `seconds` without a change prints the job's number of this rank, its host and phase, and
 * exits with SNRQ_HUNG. 0 seconds: does nothing, *out is NULL. Not collective. */
snrq_status snrq_watchdog_start(const snrq_context *context, const snrq_watchdog_settings *settings,
                                snrq_watchdog **out);

/* Ends the thread; *watchdog becomes NULL. */
void snrq_watchdog_stop(snrq_watchdog **watchdog);

#endif
