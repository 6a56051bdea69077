/* Lines for people, on standard error. */
#ifndef SNRQ_LOG_H
#define SNRQ_LOG_H

#include "mpi/context.h"

/* A line of the whole job: rank 0 prints it, printf style. Not collective. */
void snrq_note(const snrq_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A line of this process alone, after "snrq: "; for what knows no ranks, or happens on one. */
void snrq_note_here(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "1:02:03" or "2:03". */
void snrq_clock_text(double seconds, char *out, size_t size);

#endif
