/* Lines for people, on standard error. */
#ifndef SNRQ_LOG_H
#define SNRQ_LOG_H

#include "mpi/context.h"

/* A line of the whole job: rank 0 prints it, printf style. Not collective. */
void snrq_note(const snrq_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same with the local time before it, "14:05:09 ": for what happens in the course of a run. */
void snrq_note_timed(const snrq_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The local time, "14:05:09". */
enum { SNRQ_TIME_TEXT = 16 };
void snrq_time_text(char out[SNRQ_TIME_TEXT]);

/* A line of this process alone, after "snrq: "; for what knows no ranks, or happens on one. */
void snrq_note_here(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "1:02:03" or "2:03". */
void snrq_clock_text(double seconds, char *out, size_t size);

#endif
