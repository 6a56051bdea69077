/* The rows of a task's file, and which rank works on which. */
#ifndef SNRQ_TASK_ROWS_H
#define SNRQ_TASK_ROWS_H

#include <stdbool.h>

#include "mpi/context.h"

typedef struct snrq_task_rows {
    char path[4300];
    int64_t count;
    char *text;          /* of all rows, one after the other; owned, as the rest */
    int64_t *end, *line; /* [count] where each ends in `text`, and its line in the file */
    int32_t *owner;      /* [count] rank */
} snrq_task_rows;

/* Reads DIRECTORY/TASK.jsonl, or .jsonl.gz: the first `limit` rows (0: all). Rank 0 reads, every
 * rank gets them. Rows are dealt by length: to the rank that has least so far; load [ranks] is what
 * each has, and grows. Collective; agreed. SNRQ_NO_INPUT: there is no such file. Release with
 * snrq_task_rows_free(), after a failure, too. */
snrq_status snrq_task_rows_read(const snrq_context *context, const char *directory,
                                const char *task, int64_t limit, int64_t *load,
                                snrq_task_rows *out);
void snrq_task_rows_free(snrq_task_rows *rows);

/* A row's text, which may be changed, and its bytes. */
char *snrq_task_row(const snrq_task_rows *rows, int64_t row, size_t *bytes);

#endif
