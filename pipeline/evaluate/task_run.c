/* A task from its file to its answers; see task_run.h. What is told of them is in task_figures.c.
 */
#include "pipeline/evaluate/task_run.h"

#include <math.h>
#include <stdlib.h>

#include "io/json_lines.h"
#include "mpi/collective.h"

static snrq_status allocate_items(snrq_task_run *run)
{
    size_t items = (size_t)run->rows.count;
    SNRQ_TRY(snrq_allocate(items + 1, sizeof *run->first, "items", &run->first));
    SNRQ_TRY(snrq_allocate(items, sizeof *run->gold, "items", &run->gold));
    SNRQ_TRY(snrq_allocate(items, sizeof *run->words, "items", &run->words));
    return snrq_allocate(items, sizeof *run->bytes, "items", &run->bytes);
}

/* This rank's items: numbers of questions are SNRQ_MOST_CHOICES apart at first, as nobody knows how
 * many the items of other ranks ask. counts [items], lengths [items, SNRQ_MOST_CHOICES]. */
static snrq_status add_items(const snrq_request_rules *rules, const snrq_context *c,
                             snrq_passages *passages, snrq_task_run *run, double *counts,
                             double *lengths)
{
    snrq_item item = {0};
    snrq_status status = SNRQ_OK;
    for (int64_t i = 0; i < run->rows.count && status == SNRQ_OK; i++) {
        char where[4400];
        json_t *row = NULL;
        size_t bytes;
        if (run->rows.owner[i] != c->rank) continue;
        char *text = snrq_task_row(&run->rows, i, &bytes);
        snprintf(where, sizeof where, "%s: line %lld", run->rows.path,
                 (long long)run->rows.line[i]);
        status = snrq_json_line_object(run->rows.path, run->rows.line[i], text, bytes, &row);
        if (status == SNRQ_OK) status = snrq_task_item(run->task, where, row, &item);
        json_decref(row);
        if (status == SNRQ_OK)
            status =
                snrq_requests_add(rules, where, run->task, &item, i * SNRQ_MOST_CHOICES, passages);
        if (status != SNRQ_OK) break;
        counts[i] = item.requests;
        run->gold[i] = (double)item.gold;
        run->words[i] = (double)item.words;
        run->bytes[i] = (double)item.bytes;
        for (int k = 0; k < item.requests; k++)
            lengths[i * SNRQ_MOST_CHOICES + k] = (double)item.request[k].length;
    }
    snrq_item_free(&item);
    return status;
}

/* The numbers of the questions follow each other, from `before` on. `target` is the first of this
 * task. */
static snrq_status number_questions(int64_t before, int64_t target, snrq_passages *passages,
                                    const double *counts, const double *lengths, snrq_task_run *run)
{
    run->first[0] = before;
    for (int64_t i = 0; i < run->rows.count; i++)
        run->first[i + 1] = run->first[i] + (int64_t)counts[i];
    size_t count = (size_t)(run->first[run->rows.count] - before);
    SNRQ_TRY(snrq_allocate(count, sizeof *run->length, "lengths", &run->length));
    SNRQ_TRY(snrq_allocate(count, sizeof *run->logprob, "log-probabilities", &run->logprob));
    SNRQ_TRY(snrq_allocate(count, sizeof *run->greedy, "first choices", &run->greedy));
    SNRQ_TRY(snrq_allocate(count, sizeof *run->targets, "targets", &run->targets));
    for (int64_t i = 0; i < run->rows.count; i++)
        for (int64_t k = 0; k < run->first[i + 1] - run->first[i]; k++)
            run->length[run->first[i] - before + k] = lengths[i * SNRQ_MOST_CHOICES + k];
    for (int64_t t = target; t < passages->targets_used; t++) {
        int64_t *question = &passages->target[t].question;
        *question = run->first[*question / SNRQ_MOST_CHOICES] + *question % SNRQ_MOST_CHOICES;
        run->targets[*question - before]++;
    }
    return SNRQ_OK;
}

static snrq_status collect_items(const snrq_context *c, snrq_task_run *run, double *counts,
                                 double *lengths)
{
    int64_t items = run->rows.count;
    SNRQ_TRY(snrq_collect(c, counts, items));
    SNRQ_TRY(snrq_collect(c, run->gold, items));
    SNRQ_TRY(snrq_collect(c, run->words, items));
    SNRQ_TRY(snrq_collect(c, run->bytes, items));
    return snrq_collect(c, lengths, items * SNRQ_MOST_CHOICES);
}

snrq_status snrq_task_ask(const snrq_context *c, const snrq_request_rules *rules,
                          const char *directory, int64_t limit, int64_t *load,
                          snrq_passages *passages, int64_t *questions, snrq_task_run *run)
{
    double *counts = NULL, *lengths = NULL;
    int64_t target = passages->targets_used;
    SNRQ_TRY(snrq_task_rows_read(c, directory, run->task->name, limit, load, &run->rows));
    size_t items = (size_t)run->rows.count;
    snrq_status status = allocate_items(run);
    if (status == SNRQ_OK) status = snrq_allocate(items, sizeof *counts, "items", &counts);
    if (status == SNRQ_OK)
        status = snrq_allocate(items * SNRQ_MOST_CHOICES, sizeof *lengths, "lengths", &lengths);
    if (status == SNRQ_OK) status = add_items(rules, c, passages, run, counts, lengths);
    status = snrq_agree(c, status);
    if (status == SNRQ_OK) status = collect_items(c, run, counts, lengths);
    if (status == SNRQ_OK)
        status =
            snrq_agree(c, number_questions(*questions, target, passages, counts, lengths, run));
    if (status == SNRQ_OK) *questions = run->first[items];
    free(counts);
    free(lengths);
    return status;
}

void snrq_task_run_free(snrq_task_run *run)
{
    void *owned[] = {run->first,  run->gold,    run->words,  run->bytes,
                     run->length, run->logprob, run->greedy, run->targets};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    snrq_task_rows_free(&run->rows);
    *run = (snrq_task_run){0};
}

snrq_status snrq_task_answer(const snrq_context *c, const snrq_answers *answers, const char *model,
                             snrq_task_run *run)
{
    int64_t before = run->first[0], count = run->first[run->rows.count] - before;
    SNRQ_TRY(snrq_sum_int64(c, run->targets, count));
    for (int64_t q = 0; q < count; q++) {
        run->logprob[q] = answers->logprob[before + q];
        run->greedy[q] = answers->first[before + q] == (double)run->targets[q];
        if (!isfinite(run->logprob[q]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: task %s: the log-probability of request %lld is %g: the model's "
                             "weights or activations are not finite",
                             model, run->task->name, (long long)q, run->logprob[q]);
    }
    return SNRQ_OK;
}
