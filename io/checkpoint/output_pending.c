/* Records that groups of ranks committed, until they are in the manifest; see output.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/output_internal.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"

static const char suffix[] = ".record";
enum { SUFFIX = sizeof suffix - 1, RECORD_LIMIT = 64 << 20 };

/* out <- the name of the file that the record called `name` belongs to; false: it is no record. */
static bool file_of_record(const char *name, char out[SNRQ_FILE_NAME + 1])
{
    if (!snrq_ends_with(name, ".h5.record") || strlen(name) - SUFFIX > SNRQ_FILE_NAME) return false;
    snprintf(out, SNRQ_FILE_NAME + 1, "%.*s", (int)(strlen(name) - SUFFIX), name);
    return snrq_manifest_name_is_valid(out);
}

snrq_status snrq_output_put_record(const snrq_output *output, const char *name,
                                   const json_t *record, bool *there)
{
    char path[PATH_MAX], record_name[SNRQ_FILE_NAME + SUFFIX + 1];
    char *line = NULL;
    snprintf(record_name, sizeof record_name, "%s%s", name, suffix);
    SNRQ_TRY(snrq_path_join(output->directory, record_name, path, sizeof path));
    SNRQ_TRY(snrq_manifest_line(record, &line));
    snrq_status status = snrq_file_replace(path, line, strlen(line));
    *there = snrq_is_plain_file(output->directory, record_name);
    free(line);
    return status;
}

/* Reads one record that is beside its file `name`. */
static snrq_status read_record(const char *path, const char *name, json_t **record)
{
    char *data = NULL;
    size_t bytes = 0, used = 0;
    json_t *records = NULL;
    *record = NULL;
    SNRQ_TRY(snrq_file_read(path, RECORD_LIMIT, &data, &bytes));
    snrq_status status = snrq_manifest_parse(path, data, bytes, NULL, &records, &used);
    free(data);
    SNRQ_TRY(status);
    json_t *first = json_array_get(records, 0);
    const char *file = json_string_value(json_object_get(first, "file"));
    if (json_array_size(records) != 1 || used != bytes || file == NULL || strcmp(file, name) != 0 ||
        snrq_manifest_block(first) < 0)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: expected one line, the record of a block's file %s",
                           path, name);
    else
        *record = json_incref(first);
    json_decref(records);
    return status;
}

snrq_status snrq_output_load_pending(const char *directory, json_t **pending)
{
    char path[PATH_MAX], file[SNRQ_FILE_NAME + 1];
    char **names = NULL;
    int count = 0;
    *pending = NULL;
    SNRQ_TRY(snrq_directory_names(directory, &names, &count));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        json_t *record = NULL;
        if (!file_of_record(names[i], file)) continue;
        status = snrq_path_join(directory, names[i], path, sizeof path);
        if (status == SNRQ_OK) status = read_record(path, file, &record);
        if (status == SNRQ_NO_INPUT) { /* it was moved into the manifest meanwhile */
            status = SNRQ_OK;
            continue;
        }
        if (status == SNRQ_OK && *pending == NULL) *pending = json_array();
        if (status == SNRQ_OK && json_array_append_new(*pending, record) != 0)
            status = snrq_fail(SNRQ_INTERNAL, "%s: no memory", path);
    }
    snrq_names_free(&names, count);
    if (status != SNRQ_OK) {
        json_decref(*pending);
        *pending = NULL;
    }
    return status;
}

snrq_status snrq_output_add_pending(const char *directory, const char *configuration,
                                    const json_t *pending, json_t *records)
{
    bool changed;
    if (configuration == NULL) {
        const json_t *first = json_array_get(json_array_size(records) > 0 ? records : pending, 0);
        configuration = json_string_value(json_object_get(first, "configuration"));
    }
    for (size_t i = 0; i < json_array_size(pending); i++) {
        json_t *record = json_array_get(pending, i);
        const char *name = json_string_value(json_object_get(record, "file"));
        const char *own = json_string_value(json_object_get(record, "configuration"));
        /* A kill after the manifest was replaced leaves records that are in it. */
        if (snrq_manifest_find(records, name) != NULL) continue;
        if (strcmp(own, configuration) != 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s/%s%s: made with another configuration than the manifest, or than "
                             "snrq.json",
                             directory, name, suffix);
        if (snrq_manifest_complete(records))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s/%s%s: not in the manifest, though that says the run is complete",
                             directory, name, suffix);
        if (json_array_append(records, record) != 0)
            return snrq_fail(SNRQ_INTERNAL, "%s/%s%s: no memory", directory, name, suffix);
    }
    return snrq_manifest_sort(records, &changed);
}

snrq_status snrq_output_lines(const json_t *records, char **text, size_t *bytes)
{
    FILE *stream = open_memstream(text, bytes);
    if (stream == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the manifest");
    snrq_status status = SNRQ_OK;
    for (size_t i = 0; i < json_array_size(records) && status == SNRQ_OK; i++) {
        char *line = NULL;
        status = snrq_manifest_line(json_array_get(records, i), &line);
        if (status == SNRQ_OK && fputs(line, stream) < 0)
            status = snrq_fail(SNRQ_INTERNAL, "no memory for the manifest");
        free(line);
    }
    if (fclose(stream) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for the manifest");
    return status;
}

/* A record beside its file that is in the manifest as well. */
static bool is_settled(const void *user, const char *name)
{
    char file[SNRQ_FILE_NAME + 1];
    const snrq_output *output = user;
    return file_of_record(name, file) && snrq_manifest_find(output->records, file) != NULL;
}

snrq_status snrq_output_find_settled(const snrq_output *output, bool *found)
{
    char **names = NULL;
    int count = 0;
    *found = false;
    SNRQ_TRY(snrq_directory_names(output->directory, &names, &count));
    for (int i = 0; i < count; i++) *found = *found || is_settled(output, names[i]);
    snrq_names_free(&names, count);
    return SNRQ_OK;
}

snrq_status snrq_output_settle(const snrq_output *output)
{
    char path[PATH_MAX];
    char *text = NULL;
    size_t bytes = 0;
    SNRQ_TRY(snrq_path_join(output->directory, "manifest.jsonl", path, sizeof path));
    snrq_status status = snrq_output_lines(output->records, &text, &bytes);
    if (status == SNRQ_OK) status = snrq_file_replace(path, text, bytes);
    free(text);
    SNRQ_TRY(status);
    return snrq_directory_remove(output->directory, is_settled, output);
}

/* Merging. */

/* One line for each record that this rank put beside its file. The caller frees *text. */
static snrq_status write_pending(const snrq_output *output, char **text, size_t *bytes)
{
    FILE *stream = open_memstream(text, bytes);
    if (stream == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for records");
    snrq_status status = SNRQ_OK;
    for (size_t i = 0; i < json_array_size(output->pending) && status == SNRQ_OK; i++) {
        char *line = NULL;
        status = snrq_canonical(json_array_get(output->pending, i), &line);
        if (status == SNRQ_OK && fprintf(stream, "%s\n", line) < 0)
            status = snrq_fail(SNRQ_INTERNAL, "no memory for records");
        free(line);
    }
    if (fclose(stream) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for records");
    return status;
}

/* Takes a record that some group committed in place of this rank's own, if it has it. */
static snrq_status take_record(snrq_output *output, const char *line, size_t length)
{
    json_t *record = NULL;
    SNRQ_TRY(snrq_json_parse("record", line, length, &record));
    const json_t *own =
        snrq_manifest_find(output->records, json_string_value(json_object_get(record, "file")));
    for (size_t i = 0; i < json_array_size(output->records); i++)
        if (own != NULL && json_array_get(output->records, i) == own) {
            json_array_remove(output->records, i);
            own = NULL;
        }
    if (json_array_append_new(output->records, record) != 0)
        return snrq_fail(SNRQ_INTERNAL, "no memory for a record");
    return SNRQ_OK;
}

static snrq_status take_records(snrq_output *output, const char *lines, bool *changed)
{
    const char *end;
    for (const char *line = lines; (end = strchr(line, '\n')) != NULL; line = end + 1)
        SNRQ_TRY(take_record(output, line, (size_t)(end - line)));
    return snrq_manifest_sort(output->records, changed);
}

snrq_status snrq_output_merge(snrq_output *output)
{
    const snrq_context *context = output->context;
    char *mine = NULL, *all = NULL;
    size_t bytes = 0, total = 0;
    bool changed = false;
    snrq_status status = snrq_agree(context, write_pending(output, &mine, &bytes));
    if (status == SNRQ_OK) status = snrq_gather_bytes(context, mine, bytes, &all, &total);
    if (status == SNRQ_OK) {
        status = take_records(output, all, &changed);
        if (status == SNRQ_OK && context->rank == 0 && (total > 0 || changed)) {
            status = snrq_output_check_lock(output);
            if (status == SNRQ_OK) status = snrq_output_settle(output);
        }
        status = snrq_agree(context, status);
    }
    if (status == SNRQ_OK) json_array_clear(output->pending);
    free(mine);
    free(all);
    return status;
}
