/* JSON lines; see json_lines.h. */
#include "io/json_lines.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/json.h"

/* Integers as reals: those beyond 64 bits are read, and no value but the text is used. */
enum { AS_PYTHON = JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL };

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static size_t skip_blanks(const char *data, size_t at, size_t bytes)
{
    while (at < bytes && is_blank(data[at])) at++;
    return at;
}

/* Is there nothing but blanks from `at` to the end of its line? */
static bool line_ends(const char *data, size_t at, size_t bytes)
{
    while (at < bytes && data[at] != '\n' && is_blank(data[at])) at++;
    return at == bytes || data[at] == '\n';
}

/* ---- what is it? ---- */

/* `{"key":`, or an empty object alone on its line; `{'key':` is Python's spelling of it. */
static bool looks_like_object(const char *data, size_t at, size_t bytes)
{
    at = skip_blanks(data, at + 1, bytes);
    if (at == bytes) return false;
    if (data[at] == '}') return line_ends(data, at + 1, bytes);
    char quote = data[at];
    if (quote != '"' && quote != '\'') return false;
    for (at++; at < bytes && data[at] != quote && data[at] != '\n'; at++)
        if (data[at] == '\\') at++;
    if (at >= bytes || data[at] != quote) return false;
    at = skip_blanks(data, at + 1, bytes);
    return at < bytes && data[at] == ':';
}

/* Parses the JSON value that begins at `at`. `end`: where it ends, or `bytes` if it goes on beyond
 * them. */
static bool parse_value(const char *data, size_t at, size_t bytes, json_t **value, size_t *end)
{
    json_error_t error;
    *value = json_loadb(data + at, bytes - at, AS_PYTHON | JSON_DISABLE_EOF_CHECK, &error);
    *end = *value != NULL ? at + (size_t)error.position : bytes;
    return *value != NULL || json_error_code(&error) == json_error_premature_end_of_input;
}

/* A line that is no JSON but begins like it is left to who reads the lines. */
static snrq_status detect_object(const char *path, const char *head, size_t at, size_t bytes,
                                 bool complete, bool *lines)
{
    const char *newline = memchr(head + at, '\n', bytes - at);
    size_t line_end = newline != NULL ? (size_t)(newline - head) : bytes, end;
    json_t *value = NULL;
    *lines = looks_like_object(head, at, bytes);
    if (!*lines || newline == NULL) return SNRQ_OK;
    bool json = parse_value(head, at, bytes, &value, &end);
    bool whole = value != NULL;
    json_decref(value);
    if (!json || end <= line_end || (!whole && complete)) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: begins with a JSON object over several lines; expected a text, or JSON "
                     "lines: one object such as {\"text\": \"...\"} on each line; `jq -c . %s > "
                     "NEW.jsonl` writes it so",
                     path, path);
}

static bool holds_only_numbers(const json_t *array)
{
    size_t i;
    const json_t *item;
    json_array_foreach(array, i, item) if (!json_is_number(item)) return false;
    return true;
}

/* An array of objects that is cut or damaged is one, too; in brackets of another kind there must be
 * JSON to the end, or to the end of the line. [1] alone begins many a text. */
static bool is_array(const char *head, size_t at, size_t bytes, bool complete)
{
    size_t inside = skip_blanks(head, at + 1, bytes), end;
    json_t *value = NULL;
    if (inside < bytes && head[inside] == '{' && looks_like_object(head, inside, bytes))
        return true;
    bool json = parse_value(head, at, bytes, &value, &end);
    bool found = false;
    if (value == NULL)
        found = json && !complete;
    else if (complete && skip_blanks(head, end, bytes) == bytes)
        found = true;
    else
        found = !holds_only_numbers(value) && line_ends(head, end, bytes);
    json_decref(value);
    return found;
}

snrq_status snrq_json_lines_detect(const char *path, const char *head, size_t bytes, bool complete,
                                   bool *lines)
{
    *lines = false;
    if (!complete) /* the last character may be cut */
        for (int i = 0; i < 4 && bytes > 0 && ((unsigned char)head[bytes - 1] & 0x80u) != 0; i++)
            bytes--;
    size_t at = skip_blanks(head, 0, bytes);
    if (at == bytes) return SNRQ_OK;
    if (head[at] == '{') return detect_object(path, head, at, bytes, complete, lines);
    if (head[at] != '[' || !is_array(head, at, bytes, complete)) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: begins with a JSON array; expected a text, or JSON lines: one object "
                     "such as {\"text\": \"...\"} on each line; `jq -c '.[]' %s > NEW.jsonl` "
                     "writes the objects of an array so",
                     path, path);
}

/* ---- lines ---- */

/* Overwrites NaN and Infinity outside of strings, where a value may be, by a zero. Returns whether
 * there were any. */
static bool replace_no_numbers(char *line, size_t bytes)
{
    bool string = false, replaced = false;
    char before = ' '; /* the last one that is not blank */
    for (size_t i = 0; i < bytes; i++) {
        if (string) {
            if (line[i] == '\\')
                i++;
            else
                string = line[i] != '"';
            continue;
        }
        size_t length = bytes - i >= 3 && memcmp(line + i, "NaN", 3) == 0        ? 3
                        : bytes - i >= 8 && memcmp(line + i, "Infinity", 8) == 0 ? 8
                                                                                 : 0;
        string = line[i] == '"';
        if (length > 0 && strchr(":,[-", before) != NULL) {
            memset(line + i, ' ', length);
            line[i] = '0';
            i += length - 1;
            replaced = true;
        }
        if (!is_blank(line[i])) before = line[i];
    }
    return replaced;
}

bool snrq_json_line_is_blank(const char *line, size_t bytes)
{
    return skip_blanks(line, 0, bytes) == bytes;
}

snrq_status snrq_json_line_object(const char *path, int64_t number, char *line, size_t bytes,
                                  json_t **object)
{
    json_error_t error;
    char shown[SNRQ_SHOWN];
    errno = 0;
    *object = json_loadb(line, bytes, AS_PYTHON | JSON_DECODE_ANY, &error);
    if (*object == NULL && errno != ENOMEM && replace_no_numbers(line, bytes))
        *object = json_loadb(line, bytes, AS_PYTHON | JSON_DECODE_ANY, &error);
    if (*object == NULL && (errno == ENOMEM || json_error_code(&error) == json_error_out_of_memory))
        return snrq_fail(SNRQ_INTERNAL, "%s: line %" PRId64 ": no memory for its values", path,
                         number);
    if (*object == NULL)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: line %" PRId64
                         " is not valid JSON (byte %d of it: %s); expected an object on each line, "
                         "as the file begins like JSON lines",
                         path, number, error.position, snrq_shown(error.text, shown));
    if (json_is_object(*object)) return SNRQ_OK;
    snrq_status status =
        snrq_fail(SNRQ_BAD_DATA,
                  "%s: line %" PRId64 ": expected a JSON object such as {\"text\": \"...\"}, "
                  "found %s",
                  path, number, snrq_json_kind(*object));
    json_decref(*object);
    *object = NULL;
    return status;
}

/* What there is instead: "a", "b" and others. */
static snrq_status refuse_keys(const char *path, int64_t number, const char *key, json_t *object)
{
    char keys[4 * SNRQ_SHOWN] = "", shown[SNRQ_SHOWN];
    const char *name;
    json_t *value;
    int listed = 0;
    json_object_foreach(object, name, value)
    {
        size_t used = strlen(keys);
        if (listed++ < 3)
            snprintf(keys + used, sizeof keys - used, "%s\"%s\"", used > 0 ? ", " : "",
                     snrq_shown(name, shown));
    }
    if (listed == 0) snprintf(keys, sizeof keys, "no keys");
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: line %" PRId64 " has no key \"%s\", found %s%s; --text-key KEY names the "
                     "one that holds the text",
                     path, number, key, keys, listed > 3 ? " and others" : "");
}

snrq_status snrq_json_line_text(const char *path, int64_t number, char *line, size_t bytes,
                                const char *key, json_t **object, const char **text,
                                size_t *text_bytes)
{
    *object = NULL;
    *text = NULL;
    *text_bytes = 0;
    if (snrq_json_line_is_blank(line, bytes)) return SNRQ_OK;
    snrq_status status = snrq_json_line_object(path, number, line, bytes, object);
    const json_t *value = json_object_get(*object, key);
    if (status == SNRQ_OK && value == NULL) status = refuse_keys(path, number, key, *object);
    if (status == SNRQ_OK && !json_is_string(value))
        status = snrq_fail(SNRQ_BAD_DATA,
                           "%s: line %" PRId64 ": key \"%s\": expected a string, found %s; "
                           "--text-key KEY names another key",
                           path, number, key, snrq_json_kind(value));
    if (status != SNRQ_OK) {
        json_decref(*object);
        *object = NULL;
        return status;
    }
    *text = json_string_value(value);
    *text_bytes = json_string_length(value);
    return SNRQ_OK;
}
