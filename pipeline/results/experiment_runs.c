/* The runs of a table: all combinations of its values; see experiment.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/results/experiment.h"
#include "pipeline/results/option_text.h"

enum { MOST_OPTIONS = 64 };

/* An entry of "runs": options with one or several values each. */
typedef struct entry {
    const char *name[MOST_OPTIONS];
    const json_t *value[MOST_OPTIONS]; /* one value, or an array of them */
    size_t choice[MOST_OPTIONS];       /* which one is taken */
    int options;
} entry;

static size_t choices_of(const json_t *value)
{
    return json_is_array(value) ? json_array_size(value) : 1;
}

static const json_t *chosen(const entry *e, int option)
{
    const json_t *value = e->value[option];
    return json_is_array(value) ? json_array_get(value, e->choice[option]) : value;
}

static bool is_single(const json_t *value)
{
    return snrq_json_is_text(value) || json_is_number(value) || json_is_true(value);
}

static snrq_status read_entry(const char *where, const json_t *object, entry *out)
{
    const char *name;
    json_t *value;
    const json_t *item;
    size_t i;
    char shown[SNRQ_SHOWN];
    *out = (entry){.options = 0};
    if (!json_is_object(object) || json_object_get(object, "method") == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: expected an object with a method, found %s", where,
                         json_is_object(object) ? "none in it" : snrq_json_kind(object));
    if (json_object_size(object) > MOST_OPTIONS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: expected at most %d options", where, MOST_OPTIONS);
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        bool good = is_single(value) || json_array_size(value) > 0;
        json_array_foreach(value, i, item) good &= is_single(item);
        if (!good)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s: expected a text, a number, true, or an array "
                             "of them, found %s",
                             where, snrq_shown(name, shown), snrq_json_kind(value));
        out->name[out->options] = name;
        out->value[out->options++] = value;
    }
    return SNRQ_OK;
}

/* The next combination, the last option first; false after the last one. */
static bool next_choice(entry *e)
{
    for (int o = e->options - 1; o >= 0; o--) {
        if (++e->choice[o] < choices_of(e->value[o])) return true;
        e->choice[o] = 0;
    }
    return false;
}

/* Adds "_NAME-VALUE" (NULL: "_VALUE") with what a file's name can hold. */
static void add_to_name(snrq_experiment_run *run, const char *name, const char *value)
{
    size_t used = strlen(run->name);
    snprintf(run->name + used, sizeof run->name - used, "%s%s%s%s", used > 0 ? "_" : "",
             name != NULL ? name : "", name != NULL ? "-" : "", value);
    for (char *at = run->name + used; *at != '\0'; at++) {
        bool good = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                    (*at >= '0' && *at <= '9') || strchr("._+-", *at) != NULL;
        if (!good) *at = '-';
    }
}

/* Paths and the like are no part of what a row is. */
static snrq_status fill_run(const entry *e, const json_t *common, snrq_experiment_run *run)
{
    int failed = 0;
    char text[SNRQ_OPTION_TEXT];
    run->options = json_deep_copy(common);
    run->key = json_object();
    failed |= json_object_set_new(run->key, "model", json_string(run->model));
    add_to_name(run, NULL, run->model);
    for (int o = 0; o < e->options; o++) {
        const json_t *value = chosen(e, o);
        bool method = strcmp(e->name[o], "method") == 0;
        add_to_name(run, method ? NULL : e->name[o], snrq_option_text(value, text));
        failed |= json_object_set_new(run->options, e->name[o], json_deep_copy(value));
        if (strcmp(e->name[o], "seed") != 0)
            failed |= json_object_set_new(run->key, e->name[o], json_deep_copy(value));
        if (method) run->full = strcmp(text, "fp") == 0;
    }
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for a run");
}

static snrq_status add_run(const char *where, const entry *e, const char *model, const char *path,
                           snrq_experiment *x)
{
    if (x->runs == SNRQ_MOST_RUNS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: more than %d runs", where, SNRQ_MOST_RUNS);
    snrq_experiment_run *more = realloc(x->run, ((size_t)x->runs + 1) * sizeof *more);
    if (more == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the runs");
    x->run = more;
    snrq_experiment_run *run = &x->run[x->runs++];
    *run = (snrq_experiment_run){.model = model, .path = path};
    SNRQ_TRY(fill_run(e, json_object_get(x->file, "options"), run));
    if (strlen(run->name) == sizeof run->name - 1)
        return snrq_fail(SNRQ_BAD_DATA, "%s: the run %s... has too many options for a name", where,
                         run->name);
    return SNRQ_OK;
}

static snrq_status add_model(const char *where, const char *model, const char *path,
                             const json_t *entries, snrq_experiment *x)
{
    const json_t *object;
    size_t i;
    char place[256];
    entry e;
    json_array_foreach(entries, i, object)
    {
        snprintf(place, sizeof place, "%.120s: runs: %zu", where, i + 1);
        SNRQ_TRY(read_entry(place, object, &e));
        do SNRQ_TRY(add_run(place, &e, model, path, x));
        while (next_choice(&e));
    }
    return SNRQ_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static snrq_status check_names(const char *where, const snrq_experiment *x)
{
    const char **names = NULL;
    SNRQ_TRY(snrq_allocate((size_t)x->runs, sizeof *names, "names of runs", &names));
    for (int r = 0; r < x->runs; r++) names[r] = x->run[r].name;
    qsort(names, (size_t)x->runs, sizeof *names, compare_names);
    snrq_status status = SNRQ_OK;
    for (int r = 1; r < x->runs && status == SNRQ_OK; r++)
        if (strcmp(names[r - 1], names[r]) == 0)
            status = snrq_fail(SNRQ_BAD_DATA, "%s: two runs would be called %s", where, names[r]);
    free(names);
    return status;
}

snrq_status snrq_experiment_expand(const char *where, snrq_experiment *x)
{
    json_t *entries, *path;
    const char *model;
    SNRQ_TRY(snrq_json_array(where, x->file, "runs", &entries));
    json_object_foreach(json_object_get(x->file, "models"), model, path)
        SNRQ_TRY(add_model(where, model, json_string_value(path), entries, x));
    if (x->runs == 0) return snrq_fail(SNRQ_BAD_DATA, "%s: there are no runs", where);
    return check_names(where, x);
}
