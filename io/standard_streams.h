/* Standard output and standard error as they are promised to be: an answer that cannot be written
 * is an error (exit code 74), never silence. */
#ifndef SNRQ_STANDARD_STREAMS_H
#define SNRQ_STANDARD_STREAMS_H

#include <stdio.h>

#include "mpi/status.h"

/* First call of a program: a reader that goes away is an error of the write instead of a signal
 * that kills, and a standard stream that is closed is not given to the next file that is opened.
 */
void snrq_standard_streams_start(void);

/* Prints a text on standard output, to its end. SNRQ_IO_ERROR if it cannot be written. */
snrq_status snrq_print(const char *text);

/* Last call after an answer on `stream` (stdout or stderr): everything that was printed since the
 * start is written, or SNRQ_IO_ERROR. Not collective. */
snrq_status snrq_print_end(FILE *stream);

#endif
