/* Reading tables of runs; see experiment.h. Their runs: experiment_runs.c. */
#include "pipeline/results/experiment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"

enum { MOST_BYTES = 4 << 20 };

/* Refuses keys that mean nothing: a slip would be passed over. `known` ends with NULL. */
static snrq_status check_keys(const char *where, const json_t *object, const char *const *known)
{
    const char *key;
    json_t *value;
    char shown[SNRQ_SHOWN];
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        int k = 0;
        while (known[k] != NULL && strcmp(known[k], key) != 0) k++;
        if (known[k] == NULL)
            return snrq_fail(SNRQ_BAD_DATA, "%s: unknown key '%s'", where, snrq_shown(key, shown));
    }
    return SNRQ_OK;
}

/* Is it a name for files: letters, digits and ._+-, not too long, no hidden file? */
static bool is_name(const char *text)
{
    size_t length = strlen(text);
    return length > 0 && length <= 64 && text[0] != '.' && text[0] != '-' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-") ==
               length;
}

/* An option's value: a text, a number, true, or (`several`) an array of texts. */
static bool is_value(const json_t *value, bool several)
{
    const json_t *item;
    size_t i;
    if (json_is_array(value) && several) {
        json_array_foreach(value, i, item) if (!snrq_json_is_text(item)) return false;
        return json_array_size(value) > 0;
    }
    return snrq_json_is_text(value) || json_is_number(value) || json_is_true(value);
}

static bool is_option(const char *name)
{
    return name[0] >= 'a' && name[0] <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

static snrq_status check_options(const char *where, const json_t *options)
{
    const char *name;
    json_t *value;
    char shown[SNRQ_SHOWN];
    json_object_foreach((json_t *)(uintptr_t)options, name, value)
    {
        if (!is_option(name))
            return snrq_fail(SNRQ_BAD_DATA, "%s: expected the name of an option, found '%s'", where,
                             snrq_shown(name, shown));
        if (!is_value(value, true))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s: expected a text, a number, true or an array of texts, found "
                             "%s",
                             where, name, snrq_json_kind(value));
    }
    return SNRQ_OK;
}

static snrq_status check_models(const char *where, const json_t *models)
{
    const char *name;
    json_t *path;
    char shown[SNRQ_SHOWN];
    json_object_foreach((json_t *)(uintptr_t)models, name, path)
    {
        if (!is_name(name))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: models: '%s': expected a name of letters, digits and ._+-", where,
                             snrq_shown(name, shown));
        if (!snrq_json_is_text(path) || strpbrk(json_string_value(path), "\t\n\r") != NULL)
            return snrq_fail(SNRQ_BAD_DATA, "%s: models: %s: expected a path, found %s", where,
                             name, snrq_json_kind(path));
    }
    return SNRQ_OK;
}

static snrq_status check_evaluations(const char *where, const json_t *evaluations)
{
    const char *name;
    json_t *options;
    char shown[SNRQ_SHOWN], place[256];
    json_object_foreach((json_t *)(uintptr_t)evaluations, name, options)
    {
        if (!is_name(name) || strcmp(name, "quantize") == 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: evaluations: '%s': expected a name of letters, digits and ._+-, "
                             "not 'quantize'",
                             where, snrq_shown(name, shown));
        if (!json_is_object(options))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: evaluations: %s: expected an object of options, found %s", where,
                             name, snrq_json_kind(options));
        snprintf(place, sizeof place, "%.120s: evaluations: %s", where, name);
        SNRQ_TRY(check_options(place, options));
    }
    return SNRQ_OK;
}

static snrq_status read_figure(const char *where, const snrq_experiment *e, const json_t *object,
                               snrq_table_figure *out)
{
    static const char *const known[] = {"name",   "evaluation", "value",    "scale",
                                        "digits", "better",     "optional", NULL};
    static const double one = 1.0;
    static const int64_t two = 2;
    const char *better = "less";
    int64_t digits = 2;
    if (!json_is_object(object))
        return snrq_fail(SNRQ_BAD_DATA, "%s: expected an object, found %s", where,
                         snrq_json_kind(object));
    SNRQ_TRY(check_keys(where, object, known));
    SNRQ_TRY(snrq_json_string(where, object, "name", NULL, &out->name));
    SNRQ_TRY(snrq_json_string(where, object, "evaluation", NULL, &out->evaluation));
    SNRQ_TRY(snrq_json_string(where, object, "value", NULL, &out->value));
    SNRQ_TRY(snrq_json_number(where, object, "scale", -1e9, 1e9, &one, &out->scale));
    SNRQ_TRY(snrq_json_integer(where, object, "digits", 0, 9, &two, &digits));
    SNRQ_TRY(snrq_json_string(where, object, "better", "less", &better));
    SNRQ_TRY(snrq_json_boolean(where, object, "optional", false, &out->optional));
    out->digits = (int)digits;
    out->more = strcmp(better, "more") == 0;
    if (!out->more && strcmp(better, "less") != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: better: expected less or more", where);
    if (!is_name(out->name))
        return snrq_fail(SNRQ_BAD_DATA, "%s: name: expected letters, digits and ._+-", where);
    if (json_object_get(e->evaluations, out->evaluation) == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: there is no such evaluation", where);
    return SNRQ_OK;
}

static snrq_status read_figures(const char *where, snrq_experiment *e)
{
    json_t *list;
    const json_t *object;
    size_t i;
    char place[256];
    SNRQ_TRY(snrq_json_array(where, e->file, "figures", &list));
    if (json_array_size(list) > SNRQ_MOST_TABLE_FIGURES)
        return snrq_fail(SNRQ_BAD_DATA, "%s: figures: expected at most %d", where,
                         SNRQ_MOST_TABLE_FIGURES);
    json_array_foreach(list, i, object)
    {
        snprintf(place, sizeof place, "%.120s: figures: %zu", where, i + 1);
        SNRQ_TRY(read_figure(place, e, object, &e->figure[i]));
        for (int f = 0; f < e->figures; f++)
            if (strcmp(e->figure[f].name, e->figure[i].name) == 0)
                return snrq_fail(SNRQ_BAD_DATA, "%s: the name was used before", place);
        e->figures++;
    }
    return SNRQ_OK;
}

/* A number with its deviation: [9.87, 0.28]; [9.87] or 9.87 without. */
static bool is_published_figure(const json_t *value)
{
    size_t count = json_array_size(value);
    if (json_is_number(value)) return true;
    return (count == 1 || count == 2) && json_is_number(json_array_get(value, 0)) &&
           (count == 1 || json_is_number(json_array_get(value, 1)));
}

static snrq_status check_published_row(const char *where, const json_t *row)
{
    const char *key;
    json_t *value;
    if (!json_is_object(row))
        return snrq_fail(SNRQ_BAD_DATA, "%s: expected an object, found %s", where,
                         snrq_json_kind(row));
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        char shown[SNRQ_SHOWN];
        if (!is_value(value, false) && !is_published_figure(value))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s: expected a value of an option, or a figure as 9.87 or [9.87, "
                             "0.28], found %s",
                             where, snrq_shown(key, shown), snrq_json_kind(value));
    }
    return SNRQ_OK;
}

static snrq_status read_published(const char *where, snrq_experiment *e)
{
    static const char *const known[] = {"source", "rows", NULL};
    json_t *published = json_object_get(e->file, "published"), *rows = NULL;
    const json_t *row;
    size_t i;
    char place[256];
    e->source = "";
    if (published == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_json_object(where, e->file, "published", &published));
    snprintf(place, sizeof place, "%.120s: published", where);
    SNRQ_TRY(check_keys(place, published, known));
    SNRQ_TRY(snrq_json_string(place, published, "source", "", &e->source));
    SNRQ_TRY(snrq_json_array(place, published, "rows", &rows));
    e->published = rows;
    json_array_foreach(rows, i, row)
    {
        snprintf(place, sizeof place, "%.120s: published: rows: %zu", where, i + 1);
        SNRQ_TRY(check_published_row(place, row));
    }
    return SNRQ_OK;
}

static snrq_status read_notes(const char *where, snrq_experiment *e)
{
    json_t *notes = json_object_get(e->file, "notes");
    const json_t *note;
    size_t i;
    if (notes == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_json_array(where, e->file, "notes", &notes));
    json_array_foreach(notes, i, note)
    {
        if (!snrq_json_is_text(note))
            return snrq_fail(SNRQ_BAD_DATA, "%s: notes: expected texts, found %s", where,
                             snrq_json_kind(note));
    }
    e->notes = notes;
    return SNRQ_OK;
}

static snrq_status read_parts(const char *where, snrq_experiment *e)
{
    static const char *const known[] = {"title",       "notes",   "models",    "options", "runs",
                                        "evaluations", "figures", "published", NULL};
    json_t *part = NULL;
    char place[256];
    SNRQ_TRY(check_keys(where, e->file, known));
    SNRQ_TRY(snrq_json_string(where, e->file, "title", NULL, &e->title));
    SNRQ_TRY(read_notes(where, e));
    SNRQ_TRY(snrq_json_object(where, e->file, "models", &part));
    SNRQ_TRY(check_models(where, part));
    SNRQ_TRY(snrq_json_object(where, e->file, "options", &part));
    snprintf(place, sizeof place, "%.120s: options", where);
    SNRQ_TRY(check_options(place, part));
    SNRQ_TRY(snrq_json_object(where, e->file, "evaluations", &e->evaluations));
    SNRQ_TRY(check_evaluations(where, e->evaluations));
    SNRQ_TRY(read_figures(where, e));
    SNRQ_TRY(read_published(where, e));
    return snrq_experiment_expand(where, e);
}

snrq_status snrq_experiment_parse(const char *where, const char *data, size_t bytes,
                                  snrq_experiment *e)
{
    *e = (snrq_experiment){0};
    SNRQ_TRY(snrq_json_parse(where, data, bytes, &e->file));
    return read_parts(where, e);
}

snrq_status snrq_experiment_read(const char *path, snrq_experiment *e)
{
    char *data = NULL;
    size_t bytes = 0;
    *e = (snrq_experiment){0};
    SNRQ_TRY(snrq_file_read(path, MOST_BYTES, &data, &bytes));
    snrq_status status = snrq_experiment_parse(path, data, bytes, e);
    free(data);
    return status;
}

void snrq_experiment_free(snrq_experiment *e)
{
    for (int r = 0; r < e->runs; r++) {
        json_decref(e->run[r].key);
        json_decref(e->run[r].options);
    }
    free(e->run);
    json_decref(e->file);
    *e = (snrq_experiment){0};
}
