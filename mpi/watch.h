/* Who looks after work that takes long: the watchdog, which is told that it goes on, and requests
 * to stop it. For work below a run, which knows nothing else of that run.
 */
#ifndef SNRQ_WATCH_H
#define SNRQ_WATCH_H

#include "mpi/stop.h"
#include "mpi/timers.h"

typedef struct snrq_watch {
    snrq_stop *stop;     /* borrowed, as the next one */
    snrq_timers *timers; /* that a watchdog looks at */
} snrq_watch;

/* What is done from now on, also if it is what was done before: a sign of life. watch may be NULL:
 * nobody looks. Not collective. */
void snrq_watch_enter(const snrq_watch *watch, int phase);
/* The same phase goes on. */
void snrq_watch_go_on(const snrq_watch *watch);

/* A safe point, as snrq_stop_check(), and a sign of life; of NULL, nothing. Collective; agreed. */
snrq_status snrq_watch_check(const snrq_context *context, const snrq_watch *watch);

#endif
