/* Reading what became of a table; see outcome.h. */
#include "pipeline/results/outcome.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"

enum { MOST_ANSWER = 64 << 20, MOST_WORD = 4096 };

/* ---- one run ---- */

__attribute__((format(printf, 2, 3))) static void say_missing(snrq_run_outcome *o,
                                                              const char *format, ...)
{
    size_t used = strlen(o->missing);
    va_list values;
    if (used > 0) used += (size_t)snprintf(o->missing + used, sizeof o->missing - used, "; ");
    if (used >= sizeof o->missing) return;
    va_start(values, format);
    vsnprintf(o->missing + used, sizeof o->missing - used, format, values);
    va_end(values);
}

/* The script that starts runs leaves a word where one failed. */
static void say_failed(const char *folder, snrq_run_outcome *o)
{
    char path[PATH_MAX], *text = NULL;
    size_t bytes = 0;
    if (snrq_path_join(folder, "failed", path, sizeof path) != SNRQ_OK ||
        snrq_file_read(path, MOST_WORD, &text, &bytes) != SNRQ_OK)
        return;
    text[strcspn(text, "\r\n")] = '\0';
    say_missing(o, "failed: %s", text);
    free(text);
}

static void read_quantization(const char *folder, snrq_run_outcome *o)
{
    if (o->run->full) return;
    if (snrq_path_join(folder, "out", o->folder, sizeof o->folder) != SNRQ_OK ||
        !snrq_output_is(o->folder)) {
        say_missing(o, "not started");
        return;
    }
    if (snrq_run_read(o->folder, &o->results) != SNRQ_OK) {
        say_missing(o, "cannot be read: %s", snrq_error_message());
        snrq_run_free(&o->results);
        return;
    }
    o->there = true;
    if (!o->results.output.complete)
        say_missing(o, "%lld of %lld blocks", (long long)o->results.committed,
                    (long long)o->results.blocks);
}

/* The value at "tasks.boolq.acc", or "evaluations.0.perplexity"; NaN if it is not there. */
static double value_at(const json_t *answer, const char *keys)
{
    char key[SNRQ_OPTION_TEXT];
    while (answer != NULL && *keys != '\0') {
        size_t length = strcspn(keys, ".");
        snprintf(key, sizeof key, "%.*s", (int)length, keys);
        answer = json_is_array(answer) ? json_array_get(answer, strtoul(key, NULL, 10))
                                       : json_object_get(answer, key);
        keys += length + (keys[length] == '.');
    }
    return json_is_number(answer) ? json_number_value(answer) : NAN;
}

/* Takes the figures of an evaluation from its answer. */
static void take_figures(const snrq_experiment *x, const char *evaluation, const json_t *answer,
                         snrq_run_outcome *o)
{
    for (int f = 0; f < x->figures; f++) {
        const snrq_table_figure *figure = &x->figure[f];
        if (strcmp(figure->evaluation, evaluation) != 0) continue;
        o->figure[f] = figure->scale * value_at(answer, figure->value);
        if (isnan(o->figure[f]) && !figure->optional && !o->run->full)
            say_missing(o, "%s has no %s", evaluation, figure->value);
    }
}

static void read_evaluation(const char *folder, const snrq_experiment *x, const char *evaluation,
                            snrq_run_outcome *o)
{
    char path[PATH_MAX], name[SNRQ_OPTION_TEXT + 8];
    json_t *answer = NULL;
    snprintf(name, sizeof name, "%s.json", evaluation);
    snrq_status status = snrq_path_join(folder, name, path, sizeof path);
    if (status == SNRQ_OK) status = snrq_json_read(path, MOST_ANSWER, &answer);
    if (status == SNRQ_OK)
        take_figures(x, evaluation, answer, o);
    else if (status == SNRQ_NO_INPUT)
        say_missing(o, "no %s", evaluation);
    else
        say_missing(o, "%s cannot be read: %s", evaluation, snrq_error_message());
    json_decref(answer);
}

static void read_run(const char *root, const snrq_experiment *x, snrq_run_outcome *o)
{
    char folder[PATH_MAX];
    const char *evaluation;
    json_t *options;
    for (int f = 0; f < x->figures; f++) o->figure[f] = NAN;
    if (snrq_path_join(root, o->run->name, folder, sizeof folder) != SNRQ_OK) {
        say_missing(o, "%s", snrq_error_message());
        return;
    }
    say_failed(folder, o);
    read_quantization(folder, o);
    json_object_foreach(x->evaluations, evaluation, options)
        read_evaluation(folder, x, evaluation, o);
}

/* ---- rows ---- */

const char *snrq_row_option(const snrq_row_outcome *row, const char *name,
                            char out[SNRQ_OPTION_TEXT])
{
    return snrq_option_text(json_object_get(row->key, name), out);
}

static bool is_figure(const snrq_experiment *x, const char *name)
{
    for (int f = 0; f < x->figures; f++)
        if (strcmp(x->figure[f].name, name) == 0) return true;
    return strcmp(name, "seconds") == 0;
}

/* Is the published row of these options, no more and no fewer? 3 and "3" are the same. */
static bool is_published(const snrq_experiment *x, const json_t *published, const json_t *key)
{
    char a[SNRQ_OPTION_TEXT], b[SNRQ_OPTION_TEXT];
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)key, name, value)
    {
        const json_t *there = json_object_get(published, name);
        if (strcmp(snrq_option_text(value, a), snrq_option_text(there, b)) != 0) return false;
    }
    json_object_foreach((json_t *)(uintptr_t)published, name, value)
    {
        if (!is_figure(x, name) && json_object_get(key, name) == NULL) return false;
    }
    return true;
}

static const json_t *find_published(const snrq_experiment *x, const json_t *key)
{
    const json_t *row;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)x->published, i, row)
    {
        if (is_published(x, row, key)) return row;
    }
    return NULL;
}

snrq_spread snrq_row_published(const snrq_row_outcome *row, const char *name)
{
    const json_t *value = json_object_get(row->published, name);
    const json_t *mean = json_is_array(value) ? json_array_get(value, 0) : value;
    const json_t *sd = json_array_get(value, 1);
    if (!json_is_number(mean)) return (snrq_spread){0};
    return (snrq_spread){.mean = json_number_value(mean),
                         .sd = sd != NULL ? json_number_value(sd) : NAN,
                         .count = 1};
}

static void add_value(snrq_spread *spread, double value)
{
    if (!isnan(value)) snrq_spread_add(spread, value);
}

static snrq_status add_to_row(const snrq_outcome *o, int run, snrq_row_outcome *row)
{
    const snrq_run_outcome *r = &o->run[run];
    int *more = realloc(row->run, ((size_t)row->runs + 1) * sizeof *more);
    if (more == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for a row");
    row->run = more;
    row->run[row->runs++] = run;
    for (int f = 0; f < o->experiment->figures; f++) add_value(&row->figure[f], r->figure[f]);
    if (!r->there || !r->results.output.complete) return SNRQ_OK;
    add_value(&row->seconds, r->results.seconds);
    add_value(&row->memory, r->results.peak_memory / 1e6);
    add_value(&row->bytes, r->results.bytes / 1e6);
    return SNRQ_OK;
}

static void close_row(const snrq_outcome *o, snrq_row_outcome *row)
{
    for (int f = 0; f < o->experiment->figures; f++) snrq_spread_close(&row->figure[f]);
    snrq_spread_close(&row->seconds);
    snrq_spread_close(&row->memory);
    snrq_spread_close(&row->bytes);
    row->published = find_published(o->experiment, row->key);
}

static snrq_status make_rows(snrq_outcome *o)
{
    const snrq_experiment *x = o->experiment;
    SNRQ_TRY(snrq_allocate((size_t)x->runs, sizeof *o->row, "rows of the table", &o->row));
    for (int r = 0; r < x->runs; r++) {
        int at = 0;
        while (at < o->rows && !json_equal(o->row[at].key, x->run[r].key)) at++;
        if (at == o->rows) {
            o->row[at] = (snrq_row_outcome){.key = x->run[r].key, .first = r};
            o->rows++;
        }
        SNRQ_TRY(add_to_row(o, r, &o->row[at]));
    }
    for (int i = 0; i < o->rows; i++) close_row(o, &o->row[i]);
    return SNRQ_OK;
}

/* ---- axes ---- */

static bool has_option(const snrq_outcome *o, const char *name)
{
    for (int r = 0; r < o->rows; r++)
        if (json_object_get(o->row[r].key, name) != NULL) return true;
    return false;
}

/* Rows of the model itself have no options. */
static bool is_full(const snrq_outcome *o, const snrq_row_outcome *row)
{
    return o->experiment->run[row->first].full;
}

static bool varies(const snrq_outcome *o, const char *name)
{
    char first[SNRQ_OPTION_TEXT] = "", other[SNRQ_OPTION_TEXT];
    bool found = false;
    for (int r = 0; r < o->rows; r++) {
        bool counts =
            !is_full(o, &o->row[r]) || strcmp(name, "model") == 0 || strcmp(name, "method") == 0;
        if (!counts) continue;
        if (!found) snrq_row_option(&o->row[r], name, first);
        if (found && strcmp(first, snrq_row_option(&o->row[r], name, other)) != 0) return true;
        found = true;
    }
    return false;
}

static void add_axis(snrq_outcome *o, const char *name)
{
    for (int a = 0; a < o->axes; a++)
        if (strcmp(o->axis[a].name, name) == 0) return;
    if (o->axes == SNRQ_MOST_AXES || !has_option(o, name)) return;
    o->axis[o->axes++] = (snrq_axis){name, varies(o, name)};
}

static void find_axes(snrq_outcome *o)
{
    static const char *const first[] = {"model", "bits", "group-size", "method", "beam", "alpha"};
    const char *name;
    json_t *value;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) add_axis(o, first[i]);
    for (int r = 0; r < o->rows; r++)
        json_object_foreach((json_t *)(uintptr_t)o->row[r].key, name, value) add_axis(o, name);
}

const char *snrq_row_label(const snrq_outcome *o, const snrq_row_outcome *row, const char *without,
                           const char *without_too, char out[SNRQ_LABEL])
{
    char text[SNRQ_OPTION_TEXT];
    size_t used = 0;
    out[0] = '\0';
    for (int a = 0; a < o->axes; a++) {
        const char *name = o->axis[a].name;
        bool left_out = (without != NULL && strcmp(name, without) == 0) ||
                        (without_too != NULL && strcmp(name, without_too) == 0);
        bool named = strcmp(name, "model") != 0 && strcmp(name, "method") != 0;
        if (!o->axis[a].varies || left_out || json_object_get(row->key, name) == NULL) continue;
        int written =
            snprintf(out + used, SNRQ_LABEL - used, "%s%s%s%s", used > 0 ? " " : "",
                     named ? name : "", named ? " " : "", snrq_row_option(row, name, text));
        used += written > 0 ? (size_t)written : 0;
        if (used >= SNRQ_LABEL) break;
    }
    if (used == 0) snprintf(out, SNRQ_LABEL, "%s", snrq_row_option(row, "method", text));
    return out;
}

snrq_status snrq_outcome_read(const char *root, const snrq_experiment *x, snrq_outcome *o)
{
    *o = (snrq_outcome){.experiment = x};
    SNRQ_TRY(snrq_allocate((size_t)x->runs, sizeof *o->run, "results of runs", &o->run));
    for (int r = 0; r < x->runs; r++) {
        o->run[r].run = &x->run[r];
        read_run(root, x, &o->run[r]);
    }
    SNRQ_TRY(make_rows(o));
    find_axes(o);
    return SNRQ_OK;
}

void snrq_outcome_free(snrq_outcome *o)
{
    for (int r = 0; o->run != NULL && r < o->experiment->runs; r++)
        snrq_run_free(&o->run[r].results);
    for (int r = 0; r < o->rows; r++) free(o->row[r].run);
    free(o->run);
    free(o->row);
    *o = (snrq_outcome){0};
}
