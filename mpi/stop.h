/* Requests to stop a run at a safe point, and how the ranks agree on one.
 *
 * A request is a signal (SIGUSR1, SIGUSR2, SIGTERM, or SIGHUP, unless it is ignored) to any rank, a
 * file that appears, a time that is up, or another group of ranks that has stopped. A signal
 * handler only sets a flag; at each safe point the ranks agree with one MAX reduction, so that all
 * of them stop at the same one, or none does.
 */
#ifndef SNRQ_STOP_H
#define SNRQ_STOP_H

#include <stdbool.h>

#include "mpi/context.h"

typedef struct snrq_stop {
    const char *halt_file; /* stop when it exists; NULL: none. Borrowed; rank 0 looks for it */
    double seconds;        /* stop before so much time has passed since `started`; 0: no limit */
    double started;
    double last, longest; /* the last safe point, and the longest time between two of them */
    bool asked;           /* another group of ranks has stopped: set by whoever heard of it */
    bool for_others;      /* that is why this group stopped: the same on all of its ranks */
} snrq_stop;

/* Catches the signals from now on. Call it first of all: until then, they end the process. Not
 * collective. */
void snrq_stop_listen(void);

/* For work that has no safe points: lets the signals end the process again, at once if one was
 * caught already. Not collective. */
void snrq_stop_ignore(void);

/* Starts the clock. */
void snrq_stop_begin(const char *halt_file, double seconds, snrq_stop *out);

/* A safe point: SNRQ_OK, or SNRQ_STOPPED on all ranks, with a message that says why. A time is up
 * if another step as long as the longest so far would not end before. Collective. */
snrq_status snrq_stop_check(const snrq_context *context, snrq_stop *stop);

#endif
