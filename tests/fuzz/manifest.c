/* Input: lines of a manifest. A line that is a JSON object gets the hash of its text, as the writer
 * does it, so that what it says is looked at; any other is left as it is. Accepted records are the
 * same when they are written and read again. */
#include "io/checkpoint/manifest.h"
#include "tests/fuzz/fuzz.h"

typedef struct lines {
    char *text; /* owned */
    size_t bytes;
} lines;

static void add(lines *l, const char *text, size_t bytes)
{
    l->text = realloc(l->text, l->bytes + bytes + 1);
    FUZZ_CHECK(l->text != NULL);
    if (bytes > 0) memcpy(l->text + l->bytes, text, bytes);
    l->bytes += bytes;
    l->text[l->bytes] = '\0';
}

/* A record with its hash. */
static void add_record(lines *l, const json_t *record)
{
    char *line = NULL;
    FUZZ_CHECK(snrq_manifest_line(record, &line) == SNRQ_OK);
    add(l, line, strlen(line));
    free(line);
}

static lines with_hashes(const char *data, size_t size)
{
    lines l = {0};
    add(&l, "", 0);
    while (size > 0) {
        const char *end = memchr(data, '\n', size);
        const size_t bytes = end != NULL ? (size_t)(end - data) + 1 : size;
        json_t *record = end != NULL ? json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL) : NULL;
        if (json_is_object(record))
            add_record(&l, record);
        else
            add(&l, data, bytes);
        json_decref(record);
        data += bytes;
        size -= bytes;
    }
    return l;
}

static void check(json_t *records)
{
    json_t *again = NULL, *record;
    size_t used, i;
    bool changed;
    lines l = {0};
    add(&l, "", 0);
    json_array_foreach(records, i, record)
    {
        const char *name = json_string_value(json_object_get(record, "file"));
        FUZZ_CHECK(json_integer_value(json_object_get(record, "record")) == (json_int_t)i);
        FUZZ_CHECK(name == NULL || snrq_manifest_name_is_valid(name));
        FUZZ_CHECK(name == NULL || snrq_manifest_find(records, name) == record);
        FUZZ_CHECK(snrq_manifest_block(record) >= -1);
        add_record(&l, record);
    }
    FUZZ_CHECK(snrq_manifest_parse("again", l.text, l.bytes, NULL, &again, &used) == SNRQ_OK);
    FUZZ_CHECK(used == l.bytes && json_equal(records, again));
    FUZZ_CHECK(snrq_manifest_complete(records) == snrq_manifest_complete(again));
    FUZZ_CHECK(snrq_manifest_sort(again, &changed) == SNRQ_OK);
    FUZZ_CHECK(json_array_size(again) == json_array_size(records));
    FUZZ_CHECK(snrq_manifest_sort(again, &changed) == SNRQ_OK && !changed);
    json_decref(again);
    free(l.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *records = NULL;
    size_t used = 0;
    lines l = with_hashes((const char *)data, size);
    if (snrq_manifest_parse("snrq.manifest", l.text, l.bytes, NULL, &records, &used) == SNRQ_OK) {
        FUZZ_CHECK(used <= l.bytes);
        check(records);
    } else {
        FUZZ_CHECK(strstr(snrq_error_message(), "snrq.manifest") != NULL);
    }
    json_decref(records);
    free(l.text);
    return 0;
}
