/* Where the time of a run goes: the phases of its timers (mpi/timers.h). */
#ifndef SNRQ_PHASE_H
#define SNRQ_PHASE_H

typedef enum snrq_phase {
    SNRQ_PHASE_READ,
    SNRQ_PHASE_BACKWARD, /* of --sensitivity auto */
    SNRQ_PHASE_FORWARD,
    SNRQ_PHASE_GRAM,
    SNRQ_PHASE_FACTOR,
    SNRQ_PHASE_GRID,
    SNRQ_PHASE_SEARCH,
    SNRQ_PHASE_TUNE,
    SNRQ_PHASE_WRITE,
    SNRQ_PHASES
} snrq_phase;

/* Names of the phases, for reports; "rest" beyond the last. Borrowed. */
const char *snrq_phase_name(int phase);

#endif
