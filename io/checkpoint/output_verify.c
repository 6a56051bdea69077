/* Verifying an output directory; see reader.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/checkpoint/activation_file.h"
#include "io/checkpoint/manifest.h"
#include "io/checkpoint/output_internal.h"
#include "io/checkpoint/reader.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"

snrq_status snrq_output_configuration_text(const json_t *configuration, char **text)
{
    char *body =
        json_dumps(configuration, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    *text = NULL;
    if (body == NULL)
        return snrq_fail(SNRQ_INTERNAL,
                         "the configuration cannot be composed: it is %s, or there is no memory",
                         snrq_json_kind(configuration));
    snrq_status status = snrq_allocate(strlen(body) + 2, 1, "configuration", text);
    if (status == SNRQ_OK) sprintf(*text, "%s\n", body);
    free(body);
    return status;
}

snrq_status snrq_output_check_configuration(const char *directory, const json_t *records)
{
    char path[PATH_MAX], fingerprint[33];
    char *data = NULL, *expected = NULL;
    size_t bytes = 0;
    json_t *configuration = NULL;
    const char *known =
        json_string_value(json_object_get(json_array_get(records, 0), "configuration"));
    SNRQ_TRY(snrq_path_join(directory, "snrq.json", path, sizeof path));
    SNRQ_TRY(snrq_output_load_configuration(directory, &configuration, fingerprint));
    snrq_status status = snrq_file_read(path, SNRQ_CONFIGURATION_LIMIT, &data, &bytes);
    if (status == SNRQ_OK) status = snrq_output_configuration_text(configuration, &expected);
    if (status == SNRQ_OK && ((known != NULL && strcmp(fingerprint, known) != 0) ||
                              bytes != strlen(expected) || memcmp(data, expected, bytes) != 0))
        status = snrq_fail(SNRQ_BAD_DATA, "%s: was changed after the run wrote it", path);
    free(data);
    free(expected);
    json_decref(configuration);
    return status;
}

snrq_status snrq_output_check_size(const char *directory, const json_t *record)
{
    char path[PATH_MAX];
    const char *name = json_string_value(json_object_get(record, "file"));
    json_int_t expected = json_integer_value(json_object_get(record, "bytes"));
    struct stat facts;
    SNRQ_TRY(snrq_output_current_path(directory, name, path));
    if (lstat(path, &facts) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s, though its manifest record says it is complete",
                         path, errno == ENOENT ? "missing" : strerror(errno));
    if (!S_ISREG(facts.st_mode)) return snrq_fail(SNRQ_BAD_DATA, "%s: not a regular file", path);
    if ((json_int_t)facts.st_size != expected)
        return snrq_fail(SNRQ_BAD_DATA, "%s: has %lld bytes, its manifest record says %lld", path,
                         (long long)facts.st_size, (long long)expected);
    return SNRQ_OK;
}

snrq_status snrq_output_check_file(const char *directory, const json_t *record)
{
    char path[PATH_MAX], hash[33];
    uint64_t bytes = 0;
    const char *name = json_string_value(json_object_get(record, "file"));
    json_int_t expected = json_integer_value(json_object_get(record, "bytes"));
    const char *expected_hash = json_string_value(json_object_get(record, "xxh3"));
    SNRQ_TRY(snrq_output_check_size(directory, record));
    SNRQ_TRY(snrq_output_current_path(directory, name, path));
    SNRQ_TRY(snrq_file_hash(path, hash, &bytes));
    if (bytes != (uint64_t)expected || strcmp(hash, expected_hash) != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: has changed: its hash is %s, its manifest record says "
                         "%s",
                         path, hash, expected_hash);
    return SNRQ_OK;
}

bool snrq_output_is_stray(const char *directory, const char *name, const json_t *records)
{
    bool kept = snrq_output_kept_block(name) >= 0 && !snrq_manifest_complete(records);
    return snrq_ends_with(name, ".h5") && !kept && snrq_manifest_find(records, name) == NULL &&
           snrq_is_plain_file(directory, name);
}

/* Passes findings on, and keeps the first failure with its message. */
struct findings {
    snrq_verify_report *report;
    void *user;
    snrq_status first;
    char message[2048];
    int64_t redo, blocks; /* redo: the block from which damaged files can be made again, or -1 */
    bool beyond;          /* something else is wrong */
};

static void note(struct findings *f, const char *file, snrq_status status)
{
    const char *problem = status == SNRQ_OK ? NULL : snrq_error_message();
    if (status != SNRQ_OK && f->first == SNRQ_OK) {
        f->first = status;
        snprintf(f->message, sizeof f->message, "%s", problem);
    }
    if (f->report != NULL) f->report(f->user, file, problem);
}

/* A file with a record: it can be made again. */
static void note_file(struct findings *f, const char *file, const json_t *record,
                      snrq_status status)
{
    int64_t block = status == SNRQ_BAD_DATA ? snrq_output_redo_block(record, f->blocks) : -1;
    note(f, file, status);
    if (block >= 0 && (f->redo < 0 || block < f->redo)) f->redo = block;
    f->beyond = f->beyond || (status != SNRQ_OK && block < 0);
}

/* Something that no block made. */
static void note_other(struct findings *f, const char *file, snrq_status status)
{
    note(f, file, status);
    f->beyond = f->beyond || status != SNRQ_OK;
}

static snrq_status first_finding(const struct findings *f)
{
    if (f->first == SNRQ_OK) return SNRQ_OK;
    snrq_status status = snrq_fail(f->first, "%s", f->message);
    return f->redo >= 0 && !f->beyond ? snrq_output_advise(status, f->redo, f->blocks) : status;
}

/* A run says in status.json that it is complete when its last record is there. */
static bool has_lost_records(const json_t *status, const json_t *records)
{
    const char *state = json_string_value(json_object_get(status, "state"));
    return state != NULL && strcmp(state, "complete") == 0 && !snrq_manifest_complete(records);
}

static snrq_status lost_records(const char *directory)
{
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s/manifest.jsonl: its end is missing: status.json says that the run was "
                     "complete, the last record does not; run snrq quantize again to make what "
                     "has no record",
                     directory);
}

static snrq_status check_manifest(const char *directory, json_t **records)
{
    size_t used, torn;
    json_t *status = NULL;
    /* First the status, which a run that just ends changes last. */
    SNRQ_TRY(snrq_output_read_status(directory, &status));
    snrq_status read = snrq_output_load_manifest(directory, NULL, records, &used, &torn);
    bool lost = read == SNRQ_OK && has_lost_records(status, *records);
    json_decref(status);
    SNRQ_TRY(read);
    if (torn > 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s/manifest.jsonl: ends with %zu bytes of an unfinished line; run snrq "
                         "quantize again to drop it and go on",
                         directory, torn);
    return lost ? lost_records(directory) : SNRQ_OK;
}

/* Kept activations. A run that works here may just have replaced them by others. */
static void check_kept(struct findings *f, const char *directory, const char *name)
{
    char path[PATH_MAX];
    snrq_status status = snrq_path_join(directory, name, path, sizeof path);
    if (status == SNRQ_OK) status = snrq_activation_file_check(path);
    if (status == SNRQ_NO_INPUT) return;
    if (status != SNRQ_OK)
        status = snrq_fail(status,
                           "%s; it can be deleted: a run that resumes goes through the committed "
                           "blocks instead",
                           snrq_error_message());
    note(f, name, status);
}

/* What a run leaves that is killed while it replaces its progress or takes its lock, which it also
 * does when all else is finished: nothing depends on it. */
static bool is_left_by_kills(const char *name)
{
    return strncmp(name, "status.json.", strlen("status.json.")) == 0 ||
           strncmp(name, "snrq.lock.", strlen("snrq.lock.")) == 0;
}

/* Data files that no record knows; once a run is complete, unfinished files as well. Before that,
 * activations are checked. */
static void check_strays(struct findings *f, const char *directory, const json_t *records)
{
    char **names = NULL;
    int count = 0;
    snrq_status status = snrq_directory_names(directory, &names, &count);
    if (status != SNRQ_OK) note(f, ".", status);
    for (int i = 0; i < count; i++) {
        if (snrq_output_is_stray(directory, names[i], records))
            note(f, names[i],
                 snrq_fail(SNRQ_BAD_DATA,
                           "%s/%s: has no record in the manifest: it was never "
                           "finished",
                           directory, names[i]));
        else if (snrq_output_kept_block(names[i]) >= 0)
            check_kept(f, directory, names[i]);
        else if (snrq_manifest_complete(records) && snrq_ends_with(names[i], ".tmp") &&
                 !is_left_by_kills(names[i]) && snrq_is_plain_file(directory, names[i]))
            note(f, names[i],
                 snrq_fail(SNRQ_BAD_DATA,
                           "%s/%s: an unfinished file in a complete output; it can "
                           "be deleted",
                           directory, names[i]));
    }
    snrq_names_free(&names, count);
}

static void read_blocks(const char *directory, int64_t *blocks)
{
    json_t *configuration = NULL;
    char fingerprint[33];
    *blocks = 0;
    if (snrq_output_load_configuration(directory, &configuration, fingerprint) == SNRQ_OK)
        *blocks = snrq_output_blocks(configuration);
    json_decref(configuration);
}

snrq_status snrq_output_verify(const char *directory, snrq_verify_report *report, void *user)
{
    struct findings f = {.report = report, .user = user, .redo = -1};
    json_t *records = NULL;
    if (!snrq_output_is(directory))
        return snrq_fail(SNRQ_NO_INPUT, "%s: no output of snrq: it holds no snrq.json", directory);
    read_blocks(directory, &f.blocks);
    note_other(&f, "manifest.jsonl", check_manifest(directory, &records));
    note_other(&f, "snrq.json", snrq_output_check_configuration(directory, records));
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *record = json_array_get(records, i);
        const char *name = json_string_value(json_object_get(record, "file"));
        if (name != NULL) note_file(&f, name, record, snrq_output_check_file(directory, record));
    }
    if (records != NULL) check_strays(&f, directory, records);
    json_decref(records);
    return first_finding(&f);
}

/* Passes on what is wrong. */
static void check_one(struct findings *f, const char *file, const json_t *record,
                      snrq_status status)
{
    if (status == SNRQ_OK) return;
    if (record != NULL)
        note_file(f, file, record, status);
    else
        note_other(f, file, status);
}

snrq_status snrq_output_check(const snrq_output_facts *facts, const json_t *status, bool hashes,
                              snrq_verify_report *report, void *user, int64_t *redo)
{
    const char *directory = facts->directory;
    struct findings f = {.report = report,
                         .user = user,
                         .redo = -1,
                         .blocks = snrq_output_blocks(facts->configuration)};
    check_one(&f, "snrq.json", NULL, snrq_output_check_configuration(directory, facts->records));
    if (has_lost_records(status, facts->records))
        check_one(&f, "manifest.jsonl", NULL, lost_records(directory));
    for (size_t i = 0; i < json_array_size(facts->records); i++) {
        const json_t *record = json_array_get(facts->records, i);
        const char *name = json_string_value(json_object_get(record, "file"));
        if (name == NULL) continue;
        check_one(&f, name, record,
                  hashes ? snrq_output_check_file(directory, record)
                         : snrq_output_check_size(directory, record));
    }
    *redo = f.beyond ? -1 : f.redo;
    return first_finding(&f);
}
