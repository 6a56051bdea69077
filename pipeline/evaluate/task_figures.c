/* What is told of tasks; see task_run.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/evaluate/task_run.h"

/* Of the item's choices, the one of the largest log-probability (per character, if asked for); of
 * equals the first. */
static int64_t best_choice(const snrq_task_run *run, int64_t item, bool per_character)
{
    int64_t begin = run->first[item] - run->first[0], best = 0;
    double most = -INFINITY;
    for (int64_t k = 0; k < run->first[item + 1] - run->first[item]; k++) {
        double value = run->logprob[begin + k];
        if (per_character) value /= run->length[begin + k];
        if (!(value > most)) continue;
        most = value;
        best = k;
    }
    return best;
}

static snrq_figure accuracy(const snrq_task_run *run, bool per_character, double *samples)
{
    for (int64_t i = 0; i < run->rows.count; i++)
        samples[i] = (double)best_choice(run, i, per_character) == run->gold[i];
    return snrq_figure_of(samples, run->rows.count);
}

/* -sum of log-probabilities over sum of units; the error is that of a ratio of sums. */
static snrq_figure loss_per(const snrq_task_run *run, const double *units)
{
    double loss = 0.0, total = 0.0, squares = 0.0, n = (double)run->rows.count;
    for (int64_t i = 0; i < run->rows.count; i++) {
        loss -= run->logprob[i];
        total += units[i];
    }
    double ratio = loss / total;
    for (int64_t i = 0; i < run->rows.count; i++) {
        double off = -run->logprob[i] - ratio * units[i];
        squares += off * off;
    }
    return (snrq_figure){ratio, n > 1 ? sqrt(squares * n / (n - 1)) / total : NAN};
}

static void rolling_figures(const snrq_task_run *run, snrq_task_figure *figures, int *count)
{
    snrq_figure word = loss_per(run, run->words), byte = loss_per(run, run->bytes);
    snrq_figure bits = {byte.mean / log(2.0), byte.error / log(2.0)};
    figures[0] = (snrq_task_figure){"word_perplexity", snrq_figure_exp(word)};
    figures[1] = (snrq_task_figure){"byte_perplexity", snrq_figure_exp(byte)};
    figures[2] = (snrq_task_figure){"bits_per_byte", bits};
    *count = 3;
}

static void last_word_figures(const snrq_task_run *run, double *samples, snrq_task_figure *figures,
                              int *count)
{
    figures[0] = (snrq_task_figure){"acc", snrq_figure_of(run->greedy, run->rows.count)};
    for (int64_t i = 0; i < run->rows.count; i++) samples[i] = -run->logprob[i];
    figures[1] =
        (snrq_task_figure){"perplexity", snrq_figure_exp(snrq_figure_of(samples, run->rows.count))};
    *count = 2;
}

snrq_status snrq_task_figures(const snrq_task_run *run, snrq_task_figure *figures, int *count)
{
    double *samples;
    SNRQ_TRY(snrq_allocate((size_t)run->rows.count, sizeof *samples, "samples", &samples));
    *count = 0;
    switch (run->task->kind) {
    case SNRQ_TASK_CHOICE:
        figures[(*count)++] = (snrq_task_figure){"acc", accuracy(run, false, samples)};
        if (run->task->normalized)
            figures[(*count)++] = (snrq_task_figure){"acc_norm", accuracy(run, true, samples)};
        break;
    case SNRQ_TASK_LAST_WORD:
        last_word_figures(run, samples, figures, count);
        break;
    case SNRQ_TASK_ROLLING:
        rolling_figures(run, figures, count);
        break;
    }
    free(samples);
    return SNRQ_OK;
}

/* Rounded to four digits, as Python's round() does it. */
static double rounded(double value)
{
    char text[64];
    snprintf(text, sizeof text, "%.4f", value);
    return strtod(text, NULL);
}

snrq_status snrq_task_average(const snrq_task_run *runs, int count, double *mean, double *printed,
                              bool *all)
{
    double sum = 0.0, of_rounded = 0.0;
    int found = 0, figures_count;
    for (int i = 0; i < count; i++) {
        snrq_task_figure figures[SNRQ_MOST_FIGURES];
        if (!runs[i].task->of_six) continue;
        SNRQ_TRY(snrq_task_figures(&runs[i], figures, &figures_count));
        double value = figures[figures_count - 1].value.mean;
        sum += value;
        of_rounded += rounded(value);
        found++;
    }
    *all = found == 6;
    if (!*all) return SNRQ_OK;
    *mean = sum / 6.0;
    *printed = rounded(of_rounded / 6.0);
    return SNRQ_OK;
}

snrq_status snrq_tasks_print(const snrq_task_run *runs, int count, FILE *out)
{
    double mean, printed;
    bool all;
    fprintf(out, "%-16s %6s  figures, +- standard error\n", "task", "items");
    for (int i = 0; i < count; i++) {
        snrq_task_figure figures[SNRQ_MOST_FIGURES];
        int figures_count;
        SNRQ_TRY(snrq_task_figures(&runs[i], figures, &figures_count));
        fprintf(out, "%-16s %6lld", runs[i].task->name, (long long)runs[i].rows.count);
        for (int k = 0; k < figures_count; k++) {
            bool share = strncmp(figures[k].name, "acc", 3) == 0;
            fprintf(out, share ? "  %s %.4f" : "  %s %.6g", figures[k].name, figures[k].value.mean);
            if (isfinite(figures[k].value.error))
                fprintf(out, share ? " +- %.4f" : " +- %.2g", figures[k].value.error);
        }
        fputc('\n', out);
    }
    SNRQ_TRY(snrq_task_average(runs, count, &mean, &printed, &all));
    if (all)
        fprintf(out, "%-16s %6s  %.4f (acc_norm where there is one, else acc)\n", "average of six",
                "", printed);
    return SNRQ_OK;
}

static json_t *task_json(const snrq_task_run *run, const snrq_task_figure *figures, int count)
{
    json_t *object = json_pack("{s:I}", "n", (json_int_t)run->rows.count);
    for (int k = 0; k < count && object != NULL; k++) {
        char error[64];
        snprintf(error, sizeof error, "%s_stderr", figures[k].name);
        bool good =
            json_object_set_new(object, figures[k].name, json_real(figures[k].value.mean)) == 0;
        if (isfinite(figures[k].value.error))
            good &= json_object_set_new(object, error, json_real(figures[k].value.error)) == 0;
        if (good) continue;
        json_decref(object);
        object = NULL;
    }
    return object;
}

snrq_status snrq_tasks_json(const snrq_task_run *runs, int count, json_t *object)
{
    double mean, printed;
    bool all;
    json_t *tasks = json_object();
    bool good = json_object_set_new(object, "tasks", tasks) == 0;
    for (int i = 0; i < count && good; i++) {
        snrq_task_figure figures[SNRQ_MOST_FIGURES];
        int figures_count;
        SNRQ_TRY(snrq_task_figures(&runs[i], figures, &figures_count));
        good = json_object_set_new(tasks, runs[i].task->name,
                                   task_json(&runs[i], figures, figures_count)) == 0;
    }
    SNRQ_TRY(snrq_task_average(runs, count, &mean, &printed, &all));
    if (good && all)
        good = json_object_set_new(object, "average_of_six", json_real(mean)) == 0 &&
               json_object_set_new(object, "average_of_six_as_printed", json_real(printed)) == 0;
    return good ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for the answer");
}

/* ---- samples ---- */

typedef enum sample_list { LOGPROBS, GREEDY, LENGTHS } sample_list;

static json_t *list_of(const snrq_task_run *run, int64_t item, sample_list what)
{
    json_t *list = json_array();
    for (int64_t q = run->first[item]; q < run->first[item + 1]; q++) {
        int64_t at = q - run->first[0];
        json_array_append_new(list, what == LOGPROBS ? json_real(run->logprob[at])
                                    : what == GREEDY ? json_boolean(run->greedy[at] != 0.0)
                                                     : json_integer((json_int_t)run->length[at]));
    }
    return list;
}

static json_t *sample(const snrq_task_run *run, int64_t item)
{
    const snrq_task *task = run->task;
    if (task->kind == SNRQ_TASK_ROLLING)
        return json_pack("{s:s, s:I, s:f, s:I, s:I}", "task", task->name, "doc", (json_int_t)item,
                         "loglikelihood", run->logprob[item], "words", (json_int_t)run->words[item],
                         "bytes", (json_int_t)run->bytes[item]);
    json_t *object =
        json_pack("{s:s, s:I, s:o, s:o}", "task", task->name, "doc", (json_int_t)item, "ll",
                  list_of(run, item, LOGPROBS), "is_greedy", list_of(run, item, GREEDY));
    if (object == NULL) return NULL;
    if (task->kind == SNRQ_TASK_LAST_WORD) {
        json_object_set_new(object, "acc", json_integer(run->greedy[item] != 0.0));
        return object;
    }
    json_object_set_new(object, "gold", json_integer((json_int_t)run->gold[item]));
    json_object_set_new(object, "pred_acc", json_integer(best_choice(run, item, false)));
    if (!task->normalized) return object;
    json_object_set_new(object, "length", list_of(run, item, LENGTHS));
    json_object_set_new(object, "pred_acc_norm", json_integer(best_choice(run, item, true)));
    return object;
}

snrq_status snrq_task_samples(const snrq_task_run *run, FILE *out)
{
    for (int64_t i = 0; i < run->rows.count; i++) {
        json_t *object = sample(run, i);
        if (object == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the samples");
        json_dumpf(object, out, 0);
        fputc('\n', out);
        json_decref(object);
    }
    return SNRQ_OK;
}
