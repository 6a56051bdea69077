/* Files of an output that are replaced together; see snrq_output_prepare() in output.h.
 *
 * The new files lie beside the old ones as NAME.next. What makes them the output's is a new
 * manifest, manifest.jsonl.next, which appears at once: from then on it is read in place of the old
 * one, and NAME.next in place of NAME as long as it is there. Giving all of them their names is
 * what a run does next, or the next one that opens the directory. Before that, files called
 * NAME.next are leftovers of a run that was interrupted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/output_internal.h"
#include "io/directory.h"
#include "io/file.h"

static const char manifest[] = "manifest.jsonl";

static snrq_status next_path(const char *directory, const char *name, char path[PATH_MAX])
{
    char next[NAME_MAX + 1];
    snprintf(next, sizeof next, "%.*s" SNRQ_NEXT_SUFFIX, SNRQ_FILE_NAME, name);
    return snrq_path_join(directory, next, path, PATH_MAX);
}

bool snrq_output_is_replacing(const char *directory)
{
    char path[PATH_MAX];
    return next_path(directory, manifest, path) == SNRQ_OK && access(path, F_OK) == 0;
}

snrq_status snrq_output_current_path(const char *directory, const char *name, char path[PATH_MAX])
{
    if (snrq_output_is_replacing(directory)) {
        SNRQ_TRY(next_path(directory, name, path));
        if (access(path, F_OK) == 0) return SNRQ_OK;
    }
    return snrq_path_join(directory, name, path, PATH_MAX);
}

/* ---- rank 0 ---- */

/* Gives NAME.next its name; it may have it already. */
static snrq_status rename_next(const char *directory, const char *name)
{
    char next[PATH_MAX], path[PATH_MAX];
    SNRQ_TRY(next_path(directory, name, next));
    SNRQ_TRY(snrq_path_join(directory, name, path, sizeof path));
    if (rename(next, path) == 0 || errno == ENOENT) return SNRQ_OK;
    return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed: %s", next, strerror(errno));
}

snrq_status snrq_output_finish_replacing(const snrq_output *output)
{
    for (size_t i = 0; i < json_array_size(output->records); i++) {
        const json_t *record = json_array_get(output->records, i);
        const char *name = json_string_value(json_object_get(record, "file"));
        if (name != NULL) SNRQ_TRY(rename_next(output->directory, name));
    }
    /* All of them are there before the old manifest is gone. */
    SNRQ_TRY(snrq_directory_sync(output->directory));
    SNRQ_TRY(rename_next(output->directory, manifest));
    return snrq_directory_sync(output->directory);
}

/* Hashes NAME.tmp, which becomes NAME.next, for its record. */
static snrq_status prepare_file(snrq_output *output, const char *name, json_t *record)
{
    char path[PATH_MAX];
    const char *temporary = snrq_output_temporary(output, name);
    SNRQ_TRY(next_path(output->directory, name, path));
    SNRQ_TRY(snrq_output_describe_file(temporary, name, record));
    if (rename(temporary, path) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed: %s", temporary, strerror(errno));
    return json_array_append(output->next, record) == 0
               ? SNRQ_OK
               : snrq_fail(SNRQ_INTERNAL, "no memory for a record");
}

/* The records of files that are replaced become the new ones. */
static snrq_status take_next(const snrq_output *output)
{
    bool changed;
    int failed = 0;
    for (size_t i = 0; i < json_array_size(output->records); i++) {
        const json_t *record = json_array_get(output->records, i);
        const char *name = json_string_value(json_object_get(record, "file"));
        json_t *next = name != NULL ? (json_t *)snrq_manifest_find(output->next, name) : NULL;
        if (next != NULL) failed |= json_array_set(output->records, i, next);
    }
    if (failed != 0) return snrq_fail(SNRQ_INTERNAL, "no memory for records");
    return snrq_manifest_sort(output->records, &changed);
}

static snrq_status replace(const snrq_output *output)
{
    char path[PATH_MAX];
    char *text = NULL;
    size_t bytes = 0;
    SNRQ_TRY(snrq_output_check_lock(output));
    SNRQ_TRY(snrq_directory_sync(output->directory));
    SNRQ_TRY(take_next(output));
    SNRQ_TRY(next_path(output->directory, manifest, path));
    snrq_status status = snrq_output_lines(output->records, &text, &bytes);
    if (status == SNRQ_OK) status = snrq_file_replace(path, text, bytes);
    free(text);
    return status == SNRQ_OK ? snrq_output_finish_replacing(output) : status;
}

/* ---- all ranks ---- */

snrq_status snrq_output_prepare(snrq_output *output, const char *name, const json_t *details)
{
    const snrq_context *context = output->context;
    json_t *record = NULL;
    snrq_status status = SNRQ_OK;
    if (snrq_output_record(output, name) == NULL || snrq_output_complete(output))
        return snrq_fail(SNRQ_INTERNAL,
                         "%s/%s: replaced before it was committed, or after the run was complete",
                         output->directory, name);
    SNRQ_TRY(snrq_output_sync(output, context, name));
    if (context->rank == 0) {
        status = snrq_output_check_lock(output);
        if (status == SNRQ_OK) status = snrq_output_make_record(output, context, details, &record);
        if (status == SNRQ_OK) status = prepare_file(output, name, record);
    }
    json_decref(record);
    return snrq_agree(context, status);
}

snrq_status snrq_output_replace(snrq_output *output)
{
    SNRQ_TRY(snrq_output_merge(output));
    SNRQ_TRY(snrq_agree(output->context, output->context->rank == 0 ? replace(output) : SNRQ_OK));
    json_array_clear(output->next);
    return snrq_output_share_records(output);
}

/* Rank 0. */
static snrq_status rename_tuning(snrq_output *output)
{
    char path[PATH_MAX];
    const char *temporary = snrq_output_temporary(output, SNRQ_TUNING_FILE);
    SNRQ_TRY(snrq_output_check_lock(output));
    SNRQ_TRY(snrq_path_join(output->directory, SNRQ_TUNING_FILE, path, sizeof path));
    if (rename(temporary, path) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed: %s", temporary, strerror(errno));
    return snrq_directory_sync(output->directory);
}

snrq_status snrq_output_put_tuning(snrq_output *output)
{
    const snrq_context *context = output->context;
    SNRQ_TRY(snrq_output_sync(output, context, SNRQ_TUNING_FILE));
    return snrq_agree(context, context->rank == 0 ? rename_tuning(output) : SNRQ_OK);
}
