/* gnuplot, if there is one: a program of its own that is started for a script. */
#ifndef SNRQ_GNUPLOT_H
#define SNRQ_GNUPLOT_H

#include <stdbool.h>
#include <stddef.h>

#include "mpi/status.h"

/* Runs `gnuplot SCRIPT` in `directory`. *done is false if there is no gnuplot or it failed, and
 * `why` [size] says so; that is no error. SNRQ_INTERNAL if no process can be started. Not
 * collective. */
snrq_status snrq_gnuplot_run(const char *directory, const char *script, bool *done, char *why,
                             size_t size);

#endif
