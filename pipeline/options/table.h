/* What options and commands there are. The texts of help, manual pages and completion are made from
 * these tables (help.h), and so are parsing and the stored configuration (options.c). */
#ifndef SNRQ_OPTION_TABLE_H
#define SNRQ_OPTION_TABLE_H

#include "pipeline/options/row.h"

enum { SNRQ_MOST_OPTIONS = 128 };

extern const snrq_option_row snrq_option_table[]; /* [snrq_option_rows] */
extern const int snrq_option_rows;

/* Where the default of an option depends on others. */
typedef struct snrq_option_exception {
    const char *name, *otherwise, *when;
} snrq_option_exception;

enum {
    SNRQ_EXCEPTION_GRID,
    SNRQ_EXCEPTION_REFINE,
    SNRQ_EXCEPTION_FIRST_TOKENS,
    SNRQ_EXCEPTION_REGRID,
    SNRQ_EXCEPTION_SHRINK,
    SNRQ_EXCEPTION_SIGNS,
    SNRQ_OPTION_EXCEPTIONS
};
extern const snrq_option_exception snrq_option_exceptions[SNRQ_OPTION_EXCEPTIONS];

typedef struct snrq_command_row {
    const char *name, *argument;
    snrq_command command;
    const char *help, *example;
} snrq_command_row;

extern const snrq_command_row snrq_command_table[]; /* [snrq_command_rows] */
extern const int snrq_command_rows;

/* The command of that name, or NULL. */
const snrq_command_row *snrq_command_find(const char *name);

#endif
