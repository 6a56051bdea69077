/* The manifest; see manifest.h. */
#include "io/checkpoint/manifest.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/checkpoint/side_files.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/json.h"

static const char suffix_begin[] = ",\"line\":\"";
enum { HASH_DIGITS = 16, SUFFIX = sizeof suffix_begin - 1 + HASH_DIGITS + 2 };

snrq_status snrq_canonical(const json_t *value, char **text)
{
    *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (*text == NULL)
        return snrq_fail(SNRQ_INTERNAL,
                         "a JSON text of type %s cannot be composed: no memory, or not UTF-8",
                         snrq_json_kind(value));
    return SNRQ_OK;
}

snrq_status snrq_fingerprint(const json_t *value, char out[33])
{
    char *text = NULL;
    SNRQ_TRY(snrq_canonical(value, &text));
    snrq_hash(text, strlen(text), out);
    free(text);
    return SNRQ_OK;
}

bool snrq_manifest_name_is_valid(const char *name)
{
    static const char *const own[] = {"snrq.json", "manifest.jsonl", "run.jsonl",  "status.json",
                                      "snrq.lock", "snrq.redo",      "snrq.tuning"};
    static const char folder[] = SNRQ_CHAT_TEMPLATES "/";
    size_t length = strlen(name);
    if (length > sizeof folder - 1 && strncmp(name, folder, sizeof folder - 1) == 0)
        name += sizeof folder - 1; /* the only folder */
    if (length == 0 || length > SNRQ_FILE_NAME || name[0] == '.') return false;
    for (const char *c = name; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == '/' || *c == 0x7f) return false;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(name, own[i]) == 0) return false;
    return !snrq_ends_with(name, ".tmp") && !snrq_ends_with(name, ".record") &&
           !snrq_ends_with(name, ".next");
}

snrq_status snrq_manifest_line(const json_t *record, char **line)
{
    char *text = NULL;
    *line = NULL;
    SNRQ_TRY(snrq_canonical(record, &text));
    size_t length = strlen(text) - 1; /* without the closing brace */
    snrq_status status = snrq_allocate(length + SUFFIX + 2, 1, "manifest line", line);
    if (status == SNRQ_OK) {
        memcpy(*line, text, length);
        snprintf(*line + length, SUFFIX + 2, "%s%016llx\"}\n", suffix_begin,
                 (unsigned long long)XXH3_64bits(text, length));
    }
    free(text);
    return status;
}

/* Checks the hash of one line (without newline) and parses what it protects. */
static snrq_status read_line(const char *where, const char *line, size_t length, json_t **record)
{
    char expected[SUFFIX + 1];
    char *text = NULL;
    if (length <= SUFFIX) return snrq_fail(SNRQ_BAD_DATA, "%s: too short for a record", where);
    size_t kept = length - SUFFIX;
    snprintf(expected, sizeof expected, "%s%016llx\"}", suffix_begin,
             (unsigned long long)XXH3_64bits(line, kept));
    if (memcmp(expected, line + kept, SUFFIX) != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: damaged: its hash does not fit its text", where);
    SNRQ_TRY(snrq_allocate(kept + 1, 1, "manifest line", &text));
    memcpy(text, line, kept);
    text[kept] = '}';
    snrq_status status = snrq_json_parse(where, text, kept + 1, record);
    free(text);
    return status;
}

static bool is_hash(const char *text)
{
    return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

/* Checks one record; `seen` collects the names of files. */
static snrq_status check_record(const char *where, const json_t *record, int64_t number,
                                const char *configuration, json_t *seen)
{
    int64_t value;
    bool complete;
    const char *text;
    SNRQ_TRY(snrq_json_integer(where, record, "record", 0, INT64_MAX, NULL, &value));
    if (value != number)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: is record %lld, expected %lld: lines are missing or "
                         "moved",
                         where, (long long)value, (long long)number);
    SNRQ_TRY(snrq_json_string(where, record, "configuration", NULL, &text));
    if (configuration != NULL && strcmp(text, configuration) != 0)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: made with another configuration than the lines before, or than snrq.json", where);
    SNRQ_TRY(snrq_json_boolean(where, record, "complete", false, &complete));
    if (complete && json_object_get(record, "file") != NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: completes the run, and names a file as well", where);
    if (complete) return SNRQ_OK;
    SNRQ_TRY(snrq_json_integer(where, record, "bytes", 0, INT64_MAX, NULL, &value));
    SNRQ_TRY(snrq_json_string(where, record, "xxh3", NULL, &text));
    if (!is_hash(text)) return snrq_fail(SNRQ_BAD_DATA, "%s: xxh3 is not a hash", where);
    SNRQ_TRY(snrq_json_string(where, record, "file", NULL, &text));
    if (!snrq_manifest_name_is_valid(text))
        return snrq_fail(SNRQ_BAD_DATA, "%s: file is not a plain name", where);
    if (json_object_get(seen, text) != NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: a second record of %s", where, text);
    if (json_object_set_new(seen, text, json_true()) != 0)
        return snrq_fail(SNRQ_INTERNAL, "%s: no memory", where);
    return SNRQ_OK;
}

static snrq_status read_lines(const char *path, const char *data, size_t used,
                              const char *configuration, json_t *records, json_t *seen)
{
    bool complete = false;
    for (size_t at = 0; at < used;) {
        char where[4200];
        const char *end = memchr(data + at, '\n', used - at);
        size_t length = (size_t)(end - (data + at));
        int64_t number = (int64_t)json_array_size(records);
        json_t *record = NULL;
        snprintf(where, sizeof where, "%s: line %lld", path, (long long)number + 1);
        if (complete)
            return snrq_fail(SNRQ_BAD_DATA, "%s: follows the record that completes the run", where);
        SNRQ_TRY(read_line(where, data + at, length, &record));
        if (json_array_append_new(records, record) != 0)
            return snrq_fail(SNRQ_INTERNAL, "%s: no memory", where);
        SNRQ_TRY(check_record(where, record, number, configuration, seen));
        if (configuration == NULL)
            configuration = json_string_value(json_object_get(record, "configuration"));
        complete = json_is_true(json_object_get(record, "complete"));
        at += length + 1;
    }
    return SNRQ_OK;
}

snrq_status snrq_manifest_parse(const char *path, const char *data, size_t bytes,
                                const char *configuration, json_t **records, size_t *used)
{
    json_t *seen = json_object();
    *records = json_array();
    *used = bytes;
    while (*used > 0 && data[*used - 1] != '\n') --*used;
    snrq_status status = SNRQ_OK;
    if (seen == NULL || *records == NULL)
        status = snrq_fail(SNRQ_INTERNAL, "%s: no memory", path);
    else
        status = read_lines(path, data, *used, configuration, *records, seen);
    json_decref(seen);
    if (status != SNRQ_OK) {
        json_decref(*records);
        *records = NULL;
    }
    return status;
}

int64_t snrq_manifest_block(const json_t *record)
{
    const json_t *block = json_object_get(record, "block");
    bool valid = json_is_integer(block) && json_integer_value(block) >= 0;
    return valid ? (int64_t)json_integer_value(block) : -1;
}

/* A record and what its place depends on. */
struct place {
    json_t *record;
    int64_t block; /* -1: none; INT64_MAX: the last record */
    const char *file;
    size_t before;
};

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    int order = (a->block > b->block) - (a->block < b->block);
    if (order == 0 && a->block >= 0) order = strcmp(a->file, b->file);
    return order != 0 ? order : (a->before > b->before) - (a->before < b->before);
}

snrq_status snrq_manifest_sort(json_t *records, bool *changed)
{
    size_t count = json_array_size(records);
    struct place *places = NULL;
    int failed = 0;
    *changed = false;
    SNRQ_TRY(snrq_allocate(count, sizeof *places, "records", &places));
    for (size_t i = 0; i < count; i++) {
        json_t *record = json_incref(json_array_get(records, i));
        const char *file = json_string_value(json_object_get(record, "file"));
        bool last = json_is_true(json_object_get(record, "complete"));
        places[i] = (struct place){record, last ? INT64_MAX : snrq_manifest_block(record),
                                   file != NULL ? file : "", i};
    }
    qsort(places, count, sizeof *places, compare_places);
    for (size_t i = 0; i < count; i++) {
        *changed = *changed || places[i].before != i;
        failed |= json_object_set_new(places[i].record, "record", json_integer((json_int_t)i));
        failed |= json_array_set_new(records, i, places[i].record);
    }
    free(places);
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for records");
}

const json_t *snrq_manifest_find(const json_t *records, const char *name)
{
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *record = json_array_get(records, i);
        const char *file = json_string_value(json_object_get(record, "file"));
        if (file != NULL && strcmp(file, name) == 0) return record;
    }
    return NULL;
}

bool snrq_manifest_complete(const json_t *records)
{
    size_t count = json_array_size(records);
    return count > 0 &&
           json_is_true(json_object_get(json_array_get(records, count - 1), "complete"));
}
