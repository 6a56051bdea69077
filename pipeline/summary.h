/* The last screen of a run: quality per kind of module, the worst modules, what to ask for next
 * time. */
#ifndef SNRQ_SUMMARY_H
#define SNRQ_SUMMARY_H

#include "io/checkpoint/output.h"

/* Reads the committed records of `directory`, prints the summary on rank 0 and logs it as an event
 * "summary". seconds: the run's own time. What cannot be read is left out: a report never fails a
 * run. Collective. */
snrq_status snrq_summary(const snrq_context *context, const char *directory, double seconds,
                         snrq_output *output);

#endif
