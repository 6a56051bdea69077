/* runs; see runs.h. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "pipeline/runs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"
#include "io/standard_streams.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "pipeline/options/file.h"
#include "pipeline/results/experiment.h"
#include "pipeline/results/option_text.h"

enum { MOST_TABLE = 4 << 20, MOST_OPTIONS_FILE = 1 << 20 };

typedef struct layout {
    const char *root;
    char data[PATH_MAX]; /* where relative paths of the table are */
    snrq_experiment experiment;
} layout;

/* Options whose values are files or directories. */
static bool is_path(const char *option)
{
    static const char *const paths[] = {"calibration", "text",   "token-file", "reference",
                                        "task-dir",    "recipe", "sensitivity"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (strcmp(paths[i], option) == 0) return true;
    return false;
}

static void put_option(FILE *f, const layout *l, const snrq_experiment_run *run, const char *name,
                       const json_t *value)
{
    char text[SNRQ_OPTION_TEXT], path[2 * PATH_MAX], quoted[4 * PATH_MAX + 8];
    const char *typed =
        json_is_string(value) ? json_string_value(value) : snrq_option_text(value, text);
    /* "model" as a reference is the model that the run is of. */
    if (strcmp(name, "reference") == 0 && strcmp(typed, "model") == 0) typed = run->path;
    if (is_path(name) && typed[0] != '/')
        snprintf(path, sizeof path, "%s/%s", l->data, typed);
    else
        snprintf(path, sizeof path, "%s", typed);
    if (json_is_true(value))
        fprintf(f, "--%s\n", name);
    else
        fprintf(f, "--%s %s\n", name, snrq_option_file_quote(path, quoted));
}

/* The text of a file of options, which the caller frees. */
static snrq_status make_options(const layout *l, const snrq_experiment_run *run,
                                const json_t *options, char **text)
{
    size_t bytes = 0, i;
    const char *name;
    json_t *value;
    const json_t *item;
    FILE *f = open_memstream(text, &bytes);
    if (f == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the options of a run");
    json_object_foreach((json_t *)(uintptr_t)options, name, value)
    {
        if (!json_is_array(value)) put_option(f, l, run, name, value);
        json_array_foreach(value, i, item) put_option(f, l, run, name, item);
    }
    if (fclose(f) == 0) return SNRQ_OK;
    free(*text);
    return snrq_fail(SNRQ_INTERNAL, "no memory for the options of a run");
}

/* Does the command take them? They need not be there: nothing is opened but the file of options. */
static snrq_status check_options(const char *command, const char *path)
{
    char *text = NULL, *argv[] = {(char *)"snrq",      (char *)(uintptr_t)command, (char *)"MODEL",
                                  (char *)"--options", (char *)(uintptr_t)path,    (char *)"-o",
                                  (char *)"OUT"};
    snrq_options options;
    int argc = strcmp(command, "quantize") == 0 ? 7 : 5;
    snrq_status status = snrq_options_parse(argc, argv, &options, &text);
    snrq_options_free(&options);
    free(text);
    if (status == SNRQ_OK) return SNRQ_OK;
    return snrq_fail(status, "the table's options of %s: %s", command, snrq_error_message());
}

/* Does the file hold just this text? */
static bool is_same(const char *path, const char *text)
{
    char *before = NULL;
    size_t bytes = 0;
    bool same = snrq_file_read(path, MOST_OPTIONS_FILE, &before, &bytes) == SNRQ_OK &&
                strcmp(before, text) == 0;
    free(before);
    return same;
}

static bool exists(const char *path)
{
    struct stat facts;
    return lstat(path, &facts) == 0;
}

/* What was made with other options must not be taken for the result of these. */
static snrq_status retire(const char *folder, const char *name, const char *path)
{
    char old[PATH_MAX], file[SNRQ_RUN_NAME];
    bool quantize = strcmp(name, "quantize") == 0;
    snprintf(file, sizeof file, "%s%s", quantize ? "out" : name, quantize ? "" : ".json");
    SNRQ_TRY(snrq_path_join(folder, file, old, sizeof old));
    if (!exists(old)) return SNRQ_OK;
    if (quantize)
        return snrq_fail(SNRQ_USAGE,
                         "%s was made with the options in %s, which are others now: remove %s, or "
                         "take another ROOT",
                         old, path, folder);
    if (unlink(old) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE, "%s cannot be removed: %s", old, strerror(errno));
}

/* NAME.options in the folder of a run. */
static snrq_status put_options(const layout *l, const snrq_experiment_run *run, const char *folder,
                               const char *name, const json_t *options)
{
    char path[PATH_MAX], file[SNRQ_RUN_NAME], *text = NULL;
    snprintf(file, sizeof file, "%s.options", name);
    SNRQ_TRY(snrq_path_join(folder, file, path, sizeof path));
    SNRQ_TRY(make_options(l, run, options, &text));
    snrq_status status = SNRQ_OK;
    if (!is_same(path, text)) {
        status = retire(folder, name, path);
        if (status == SNRQ_OK) status = snrq_file_replace(path, text, strlen(text));
    }
    free(text);
    if (status == SNRQ_OK)
        status = check_options(strcmp(name, "quantize") == 0 ? name : "evaluate", path);
    return status;
}

static snrq_status lay_out_run(const layout *l, const snrq_experiment_run *run)
{
    char folder[PATH_MAX];
    const char *name;
    json_t *options;
    SNRQ_TRY(snrq_path_join(l->root, run->name, folder, sizeof folder));
    SNRQ_TRY(snrq_directory_make(folder));
    if (!run->full) SNRQ_TRY(put_options(l, run, folder, "quantize", run->options));
    json_object_foreach(l->experiment.evaluations, name, options)
        SNRQ_TRY(put_options(l, run, folder, name, options));
    return SNRQ_OK;
}

/* "wikitext2,c4" */
static void put_evaluations(const json_t *evaluations, FILE *f)
{
    const char *name, *comma = "";
    json_t *options;
    json_object_foreach((json_t *)(uintptr_t)evaluations, name, options)
    {
        fprintf(f, "%s%s", comma, name);
        comma = ",";
    }
}

static snrq_status put_list(const layout *l)
{
    char path[PATH_MAX], *text = NULL;
    size_t bytes = 0;
    SNRQ_TRY(snrq_path_join(l->root, "runs.tsv", path, sizeof path));
    FILE *f = open_memstream(&text, &bytes);
    if (f == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the list of runs");
    for (int r = 0; r < l->experiment.runs; r++) {
        const snrq_experiment_run *run = &l->experiment.run[r];
        bool absolute = run->path[0] == '/';
        fprintf(f, "%s\t%s%s%s\t%s\t", run->name, absolute ? "" : l->data, absolute ? "" : "/",
                run->path, run->full ? "fp" : "quantize");
        put_evaluations(l->experiment.evaluations, f);
        fputc('\n', f);
    }
    snrq_status status = fclose(f) == 0
                             ? snrq_file_replace(path, text, bytes)
                             : snrq_fail(SNRQ_INTERNAL, "no memory for the list of runs");
    free(text);
    return status;
}

/* The table itself, last: with it the directory is one that `report` knows. */
static snrq_status put_table(const layout *l, const char *table)
{
    char path[PATH_MAX], *data = NULL;
    size_t bytes = 0;
    SNRQ_TRY(snrq_path_join(l->root, "table.json", path, sizeof path));
    SNRQ_TRY(snrq_file_read(table, MOST_TABLE, &data, &bytes));
    snrq_status status = snrq_file_replace(path, data, bytes);
    free(data);
    return status;
}

/* Absolute, so that jobs find it wherever they start. */
static snrq_status find_data(const snrq_options *o, char out[PATH_MAX])
{
    char folder[PATH_MAX];
    const char *slash = strrchr(o->path, '/');
    if (o->data != NULL)
        snprintf(folder, sizeof folder, "%s", o->data);
    else if (slash == NULL)
        snprintf(folder, sizeof folder, ".");
    else
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - o->path + 1), o->path);
    if (realpath(folder, out) != NULL && strpbrk(out, "\t\n") == NULL) return SNRQ_OK;
    return snrq_fail(SNRQ_NO_INPUT, "%s: the directory of models and texts (--data) cannot be used",
                     folder);
}

static snrq_status lay_out(const snrq_options *o)
{
    layout l = {.root = o->output};
    SNRQ_TRY(find_data(o, l.data));
    snrq_status status = snrq_experiment_read(o->path, &l.experiment);
    if (status == SNRQ_OK) status = snrq_directory_make(o->output);
    for (int r = 0; status == SNRQ_OK && r < l.experiment.runs; r++)
        status = lay_out_run(&l, &l.experiment.run[r]);
    if (status == SNRQ_OK) status = put_list(&l);
    if (status == SNRQ_OK) status = put_table(&l, o->path);
    if (status == SNRQ_OK) printf("%d runs in %s/runs.tsv\n", l.experiment.runs, o->output);
    if (status == SNRQ_OK) status = snrq_print_end(stdout);
    snrq_experiment_free(&l.experiment);
    return status;
}

snrq_status snrq_runs(const snrq_context *context, const snrq_options *o)
{
    return snrq_agree(context, context->rank == 0 ? lay_out(o) : SNRQ_OK);
}
