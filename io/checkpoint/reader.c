/* Reading an output directory; see reader.h. */
#include "io/checkpoint/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/output_internal.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"

enum { LOG_LIMIT = 1 << 30 };

bool snrq_output_is(const char *path)
{
    return snrq_is_plain_file(path, "snrq.json");
}

snrq_status snrq_output_find_foreign(const char *directory, char name[NAME_MAX + 1])
{
    char **names = NULL;
    int count = 0;
    name[0] = '\0';
    SNRQ_TRY(snrq_directory_names(directory, &names, &count));
    for (int i = 0; i < count && name[0] == '\0'; i++)
        if (strncmp(names[i], "snrq.lock", 9) != 0 && strcmp(names[i], "snrq.halt") != 0 &&
            strcmp(names[i], "snrq.json.tmp") != 0 && strcmp(names[i], SNRQ_OWN_ASSESSMENT) != 0)
            snprintf(name, NAME_MAX + 1, "%s", names[i]);
    snrq_names_free(&names, count);
    return SNRQ_OK;
}

snrq_status snrq_output_load_configuration(const char *directory, json_t **configuration,
                                           char fingerprint[33])
{
    char path[PATH_MAX];
    *configuration = NULL;
    SNRQ_TRY(snrq_path_join(directory, "snrq.json", path, sizeof path));
    SNRQ_TRY(snrq_json_read(path, SNRQ_CONFIGURATION_LIMIT, configuration));
    snrq_status status = snrq_fingerprint(*configuration, fingerprint);
    if (status != SNRQ_OK) json_decref(*configuration);
    if (status != SNRQ_OK) *configuration = NULL;
    return status;
}

snrq_status snrq_output_load_manifest(const char *directory, const char *configuration,
                                      json_t **records, size_t *used, size_t *torn)
{
    char path[PATH_MAX];
    char *data = NULL;
    struct stat facts;
    size_t bytes = 0;
    json_t *pending = NULL;
    snrq_status status = SNRQ_OK;
    *records = NULL;
    SNRQ_TRY(snrq_output_current_path(directory, "manifest.jsonl", path));
    /* First what may be moved into the manifest meanwhile. */
    SNRQ_TRY(snrq_output_load_pending(directory, &pending));
    /* A run that was stopped early has no manifest yet. */
    if (lstat(path, &facts) == 0 || errno != ENOENT)
        status = snrq_file_read(path, LOG_LIMIT, &data, &bytes);
    if (status == SNRQ_OK)
        status = snrq_manifest_parse(path, data != NULL ? data : "", bytes, configuration, records,
                                     used);
    if (status == SNRQ_OK) *torn = bytes - *used;
    if (status == SNRQ_OK && pending != NULL)
        status = snrq_output_add_pending(directory, configuration, pending, *records);
    free(data);
    json_decref(pending);
    if (status != SNRQ_OK) {
        json_decref(*records);
        *records = NULL;
    }
    return status;
}

/* The manifest does not fit snrq.json, or is damaged itself: then out->records stay NULL. */
static snrq_status find_culprit(const char *directory, snrq_output_facts *out)
{
    size_t used, torn;
    SNRQ_TRY(snrq_output_load_manifest(directory, NULL, &out->records, &used, &torn));
    SNRQ_TRY(snrq_output_check_configuration(directory, out->records));
    return snrq_fail(SNRQ_BAD_DATA, "%s/manifest.jsonl: does not belong to snrq.json", directory);
}

snrq_status snrq_output_read(const char *directory, snrq_output_facts *out)
{
    char fingerprint[33];
    size_t used, torn;
    *out = (snrq_output_facts){.directory = directory};
    if (!snrq_output_is(directory))
        return snrq_fail(SNRQ_NO_INPUT, "%s: no output of snrq: it holds no snrq.json", directory);
    SNRQ_TRY(snrq_output_load_configuration(directory, &out->configuration, fingerprint));
    snrq_status status =
        snrq_output_load_manifest(directory, fingerprint, &out->records, &used, &torn);
    /* Which of the two was changed? */
    if (status == SNRQ_BAD_DATA) status = find_culprit(directory, out);
    SNRQ_TRY(status);
    out->complete = snrq_manifest_complete(out->records);
    return SNRQ_OK;
}

void snrq_output_facts_free(snrq_output_facts *facts)
{
    json_decref(facts->configuration);
    json_decref(facts->records);
    *facts = (snrq_output_facts){0};
}

/* Reads the modules of all records into room for them. */
static snrq_status read_modules(const snrq_output_facts *facts, snrq_module_record *out)
{
    char where[PATH_MAX];
    size_t i, k;
    const json_t *record, *module;
    SNRQ_TRY(snrq_path_join(facts->directory, "manifest.jsonl", where, sizeof where));
    json_array_foreach(facts->records, i, record)
        json_array_foreach(json_object_get(record, "modules"), k, module)
            SNRQ_TRY(snrq_module_record_from_json(where, module, out++));
    return SNRQ_OK;
}

snrq_status snrq_output_modules(const snrq_output_facts *facts, snrq_module_record **modules,
                                int64_t *count)
{
    size_t i, total = 0;
    const json_t *record;
    json_array_foreach(facts->records, i, record) total +=
        json_array_size(json_object_get(record, "modules"));
    *count = (int64_t)total;
    SNRQ_TRY(snrq_allocate(total, sizeof **modules, "records of modules", modules));
    snrq_status status = read_modules(facts, *modules);
    if (status == SNRQ_OK) return SNRQ_OK;
    free(*modules);
    *modules = NULL;
    return status;
}

/* A log of the directory; *data stays NULL if it was not written yet. The caller frees it. */
static snrq_status read_log(const char *directory, const char *name, char **data, size_t *bytes)
{
    char path[PATH_MAX];
    *data = NULL;
    *bytes = 0;
    SNRQ_TRY(snrq_path_join(directory, name, path, sizeof path));
    if (!snrq_is_plain_file(directory, name)) return SNRQ_OK;
    return snrq_file_read(path, LOG_LIMIT, data, bytes);
}

snrq_status snrq_output_read_status(const char *directory, json_t **status)
{
    char *data = NULL;
    size_t bytes = 0;
    *status = NULL;
    SNRQ_TRY(read_log(directory, "status.json", &data, &bytes));
    if (data != NULL) *status = json_loadb(data, bytes, 0, NULL);
    free(data);
    if (*status == NULL) *status = json_object();
    return *status != NULL ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for a status");
}

snrq_status snrq_output_read_events(const char *directory, json_t **events)
{
    char *data = NULL;
    size_t bytes = 0;
    *events = NULL;
    SNRQ_TRY(read_log(directory, "run.jsonl", &data, &bytes));
    *events = json_array();
    for (char *at = data, *end; at != NULL && at < data + bytes; at = end + 1) {
        end = memchr(at, '\n', (size_t)(data + bytes - at));
        if (end == NULL) break;
        json_t *event = json_loadb(at, (size_t)(end - at), 0, NULL);
        if (event != NULL) json_array_append_new(*events, event);
    }
    free(data);
    return *events != NULL ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for events");
}

snrq_status snrq_output_read_lock(const char *directory, snrq_lock_facts *lock)
{
    char path[PATH_MAX];
    SNRQ_TRY(snrq_path_join(directory, "snrq.lock", path, sizeof path));
    return snrq_lock_look(path, lock);
}

static snrq_status check_modules(const char *path, const snrq_block_file *file, int64_t block,
                                 const snrq_expected_module *modules, int count)
{
    if (snrq_block_file_block(file) != block)
        return snrq_fail(SNRQ_BAD_DATA, "%s: is block %lld, expected %lld", path,
                         (long long)snrq_block_file_block(file), (long long)block);
    if (snrq_block_file_count(file) != count)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %d modules, expected %d", path,
                         snrq_block_file_count(file), count);
    for (int i = 0; i < count; i++) {
        const snrq_module_record *r = snrq_block_file_record(file, i);
        const snrq_expected_module *e = &modules[i];
        if (strcmp(r->name, e->name) != 0 || r->rows != e->rows || r->columns != e->columns)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: module %d is '%s' [%lld, %lld], expected '%s' [%lld, %lld]", path,
                             i, r->name, (long long)r->rows, (long long)r->columns, e->name,
                             (long long)e->rows, (long long)e->columns);
    }
    return SNRQ_OK;
}

snrq_status snrq_output_block_open(const char *directory, int64_t block,
                                   const snrq_expected_module *modules, int count,
                                   snrq_block_file **out)
{
    char path[PATH_MAX], name[32];
    *out = NULL;
    snrq_block_file_name(block, name);
    SNRQ_TRY(snrq_path_join(directory, name, path, sizeof path));
    SNRQ_TRY(snrq_block_file_open(path, out));
    snrq_status status = check_modules(path, *out, block, modules, count);
    if (status != SNRQ_OK) snrq_block_file_close(out);
    return status;
}
