/* A task from its file to its figures. */
#ifndef SNRQ_TASK_RUN_H
#define SNRQ_TASK_RUN_H

#include <jansson.h>
#include <stdio.h>

#include "pipeline/evaluate/figures.h"
#include "pipeline/evaluate/requests.h"
#include "pipeline/evaluate/score.h"
#include "pipeline/evaluate/task_rows.h"

/* One task. Item i asks questions [first[i], first[i + 1]), counted over everything that is asked.
 * Every rank has all of it. */
typedef struct snrq_task_run {
    const snrq_task *task;        /* borrowed from the table */
    snrq_task_rows rows;          /* owned, as the rest */
    int64_t *first;               /* [items + 1] */
    double *gold, *words, *bytes; /* [items] */
    double *length;               /* [questions of the task] of their choices, in characters */
    double *logprob, *greedy;     /* [questions of the task] answers; greedy: 1 or 0 */
    int64_t *targets;             /* [questions of the task] of this rank's items */
} snrq_task_run;

/* Reads the file, deals its items, and adds those of this rank to the passages. *questions: how
 * many are asked before; grows. The rest as snrq_task_rows_read(). Collective; agreed. Release with
 * snrq_task_run_free(), after a failure, too. */
snrq_status snrq_task_ask(const snrq_context *context, const snrq_request_rules *rules,
                          const char *directory, int64_t limit, int64_t *load,
                          snrq_passages *passages, int64_t *questions, snrq_task_run *run);
void snrq_task_run_free(snrq_task_run *run);

/* Takes the answers of all ranks. SNRQ_BAD_DATA: one is no number. Collective; agreed. */
snrq_status snrq_task_answer(const snrq_context *context, const snrq_answers *answers,
                             const char *model, snrq_task_run *run);

/* A figure as the harness calls it, and its value. */
typedef struct snrq_task_figure {
    const char *name;
    snrq_figure value;
} snrq_task_figure;
enum { SNRQ_MOST_FIGURES = 3 };
/* Of a choice: acc, and acc_norm where the task has it; of the last word: acc, perplexity; of a
 * rolling text: word_perplexity, byte_perplexity, bits_per_byte. *count: how many. Not collective.
 * SNRQ_INTERNAL without memory. */
snrq_status snrq_task_figures(const snrq_task_run *run, snrq_task_figure *figures, int *count);

/* The mean of the six tasks of the papers, of acc_norm where there is one, else acc. *printed: as
 * the SNRQ code prints it: every one rounded to four digits before, and the mean after. *all: they
 * are all there; else nothing is set. */
snrq_status snrq_task_average(const snrq_task_run *runs, int count, double *mean, double *printed,
                              bool *all);

/* For people, a table; for programs, an object under "tasks", and the averages; a line for each
 * item. */
snrq_status snrq_tasks_print(const snrq_task_run *runs, int count, FILE *out);
snrq_status snrq_tasks_json(const snrq_task_run *runs, int count, json_t *object);
snrq_status snrq_task_samples(const snrq_task_run *run, FILE *out);

#endif
