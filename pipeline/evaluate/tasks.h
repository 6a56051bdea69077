/* Tasks: how rows of a data set become questions, as lm-evaluation-harness asks them (0-shot).
 *
 * The table in tasks.c has a row for each task; its templates are the harness's. A row of a file is
 * that of the data set, as the `datasets` library writes it to JSON lines, or a prepared one:
 * {"query", "choices", "gold"}, or {"context_options", "continuation", "gold"}. */
#ifndef SNRQ_TASKS_H
#define SNRQ_TASKS_H

#include <jansson.h>

#include "pipeline/evaluate/python_text.h"

typedef enum snrq_task_kind {
    SNRQ_TASK_CHOICE,    /* the most likely of several requests should be the right one */
    SNRQ_TASK_LAST_WORD, /* one request, whose tokens should all be the most likely */
    SNRQ_TASK_ROLLING    /* a text as a whole: perplexity per word and byte */
} snrq_task_kind;

typedef struct snrq_task {
    const char *name;
    const struct snrq_task_form *raw, *prepared; /* prepared NULL: there is no such form */
    snrq_task_kind kind;
    bool normalized; /* has acc_norm */
    bool of_six;     /* one of the six whose average the papers print */
} snrq_task;

/* How likely is the continuation after the context? A blank between them is part of the
 * continuation. */
typedef struct snrq_request {
    snrq_string context, continuation;
    int64_t length; /* characters of the choice, without the blank before it */
} snrq_request;

/* What a row asks. Zero-initialized is empty; it may be filled again. */
enum { SNRQ_MOST_CHOICES = 32 };
typedef struct snrq_item {
    int requests;
    snrq_request request[SNRQ_MOST_CHOICES]; /* owned */
    int64_t gold;                            /* of a choice: the right one */
    int64_t words, bytes;                    /* of a rolling text, as the data set has it */
} snrq_item;
void snrq_item_free(snrq_item *item);

/* The tasks that `names` lists, with commas between them: tasks [SNRQ_MOST_TASKS]. SNRQ_USAGE: no
 * such task, or twice. */
enum { SNRQ_MOST_TASKS = 32 };
snrq_status snrq_tasks_parse(const char *names, const snrq_task **tasks, int *count);

/* Makes an item of a row. SNRQ_BAD_DATA begins with `where` and says what was expected and found.
 * Not collective. */
snrq_status snrq_task_item(const snrq_task *task, const char *where, const json_t *row,
                           snrq_item *out);

#endif
