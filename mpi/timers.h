/* Wall-clock timers per phase, and what they say over all ranks.
 *
 * Phases are numbered by the caller and do not nest: starting one stops the one that runs. What no
 * phase accounts for is the "rest" row of the report.
 */
#ifndef SNRQ_TIMERS_H
#define SNRQ_TIMERS_H

#include "mpi/context.h"

enum {
    SNRQ_MAX_PHASES = 16,
    /* Phases are told to tools that look at MPI calls, by MPI_Pcontrol(this + 1 + phase). */
    SNRQ_PHASE_LEVEL = 100
};

typedef struct snrq_timers {
    int phases;
    _Atomic int running;     /* -1: none */
    _Atomic int64_t entered; /* how often a phase was entered: watched by another thread */
    double created, started;
    double seconds[SNRQ_MAX_PHASES];
} snrq_timers;

/* Seconds since some fixed point. */
double snrq_now(void);

void snrq_timers_reset(snrq_timers *timers, int phases);
/* Stops the running phase, starts `phase` (-1: none). */
void snrq_timers_enter(snrq_timers *timers, int phase);

typedef struct snrq_phase_report {
    double min, mean, max;
    int slowest; /* rank */
} snrq_phase_report;

/* report [phases + 1] over all ranks; the last row is the rest. *total is the wall-clock time of
 * the slowest rank. Collective. */
snrq_status snrq_timers_report(const snrq_context *context, const snrq_timers *timers,
                               snrq_phase_report *report, double *total);

/* Largest resident memory of this process so far, in bytes. */
double snrq_peak_memory(void);

#endif
