/* A file of options, for --options: one option per line, as on the command line.
 *
 *     # a comment, on a line of its own; blank lines count for nothing
 *     --bits 3
 *     --group-size=64
 *     --strict
 *     -o my results/out
 *     --calibration " a name that begins with a blank, or has a \" or a # after a blank"
 *
 * The value is the rest of the line, without blanks around it. In double quotes it is taken as it
 * is, but for \" \\ \n and \r. Bytes need not be UTF-8. */
#ifndef SNRQ_OPTION_FILE_H
#define SNRQ_OPTION_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "mpi/status.h"

typedef struct snrq_option_line {
    int number;  /* from 1 */
    char *name;  /* as written: "--bits", "-o" */
    char *value; /* NULL: none */
} snrq_option_line;

/* Reads a whole file. *text is allocated: what the lines point into; the caller frees it after
 * them. SNRQ_NO_INPUT, SNRQ_BAD_DATA or SNRQ_IO_ERROR as snrq_file_read(); SNRQ_USAGE for a NUL
 * byte, with its line. Not collective. */
snrq_status snrq_option_file_read(const char *path, char **text);

/* Takes the next option from *at and moves *at behind it; number [in, out] counts lines, from 0.
 * *found: false at the end. The text is changed. SNRQ_USAGE names file, line, what was expected and
 * what was found. */
snrq_status snrq_option_file_next(const char *path, char **at, int *number, snrq_option_line *line,
                                  bool *found);

/* Writes a value to `out` [4 + 2 x its length], quoted if it has to be. Returns `out`. */
char *snrq_option_file_quote(const char *value, char *out);

#endif
