/* Typed look-ups in JSON; see json.h. */
#include "io/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json_python.h"
#include "io/standard_streams.h"

/* *out stays if it is an object, as every file here is one. */
static snrq_status check_object(const char *where, json_t **out)
{
    if (json_is_object(*out)) return SNRQ_OK;
    snrq_fail(SNRQ_BAD_DATA, "%s: expected a JSON object, found %s", where, snrq_json_kind(*out));
    json_decref(*out);
    *out = NULL;
    return SNRQ_BAD_DATA;
}

snrq_status snrq_json_parse(const char *where, const char *data, size_t bytes, json_t **out)
{
    json_error_t error;
    char shown[SNRQ_SHOWN];
    /* No JSON_ALLOW_NUL: a string with an embedded NUL would be cut short by every later use. */
    errno = 0;
    *out = json_loadb(data, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    /* Jansson may blame the text for it. */
    if (*out == NULL && (errno == ENOMEM || error.text[0] == '\0' ||
                         json_error_code(&error) == json_error_out_of_memory))
        return snrq_fail(SNRQ_INTERNAL, "%s: no memory for its values", where);
    if (*out == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: not valid JSON at line %d, column %d (byte %d): %s",
                         where, error.line, error.column, error.position,
                         snrq_shown(error.text, shown));
    return check_object(where, out);
}

snrq_status snrq_json_parse_foreign(const char *where, const char *data, size_t bytes, json_t **out)
{
    *out = NULL;
    if (snrq_is_lfs_pointer(data, bytes)) return snrq_lfs_pointer_refuse(where);
    *out = json_loadb(data, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    if (*out == NULL) SNRQ_TRY(snrq_json_python_parse(where, data, bytes, out));
    return check_object(where, out);
}

char *snrq_json_dump(const json_t *value, size_t flags)
{
    char *text = json_dumps(value, flags);
    if (text != NULL) snrq_json_python_restore(text);
    return text;
}

snrq_status snrq_json_read(const char *path, size_t limit, json_t **out)
{
    char *data;
    size_t bytes;
    *out = NULL;
    SNRQ_TRY(snrq_file_read(path, limit, &data, &bytes));
    snrq_status status = snrq_json_parse_foreign(path, data, bytes, out);
    free(data);
    return status;
}

snrq_status snrq_json_write(FILE *stream, json_t *object)
{
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(object);
    if (text == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the JSON text of the answer");
    fprintf(stream, "%s\n", text);
    free(text);
    return snrq_print_end(stream);
}

snrq_status snrq_json_print(json_t *object)
{
    return snrq_json_write(stdout, object);
}

/* Bytes of the UTF-8 character that `text` begins with, or 0 if that is none (RFC 3629). */
static size_t character_bytes(const unsigned char *text)
{
    unsigned char first = text[0], second = first != 0 ? text[1] : 0;
    if (first < 0x80) return 1;
    size_t bytes = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
        return 0;
    for (size_t i = 1; i < bytes; i++)
        if ((text[i] & 0xc0u) != 0x80u) return 0;
    return bytes;
}

static bool is_utf8(const char *text)
{
    while (*text != '\0') {
        size_t bytes = character_bytes((const unsigned char *)text);
        if (bytes == 0) return false;
        text += bytes;
    }
    return true;
}

json_t *snrq_json_text(const char *text)
{
    char *escaped = NULL;
    if (text == NULL) return json_null();
    if (is_utf8(text)) return json_string(text);
    if (snrq_allocate(4 * strlen(text) + 1, 1, "text", &escaped) != SNRQ_OK) return NULL;
    char *to = escaped;
    while (*text != '\0') {
        size_t bytes = character_bytes((const unsigned char *)text);
        if (bytes == 0) {
            to += sprintf(to, "\\x%02x", (unsigned char)*text++);
            continue;
        }
        if (*text == '\\') *to++ = '\\';
        memcpy(to, text, bytes);
        to += bytes;
        text += bytes;
    }
    json_t *value = json_string(escaped);
    free(escaped);
    return value;
}

const char *snrq_json_kind(const json_t *value)
{
    if (value == NULL) return "nothing";
    if (snrq_json_python_kind(value) != NULL) return snrq_json_python_kind(value);
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction or exponent";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something unknown";
}

bool snrq_json_is_text(const json_t *value)
{
    return json_is_string(value) && snrq_json_python_kind(value) == NULL;
}

const char *snrq_shown(const char *text, char out[SNRQ_SHOWN])
{
    size_t n = 0;
    for (; text[n] != '\0' && n < SNRQ_SHOWN - 4; n++) {
        unsigned char byte = (unsigned char)text[n];
        out[n] = byte < 32 || byte == 127 ? '?' : text[n];
    }
    if (text[n] == '\0') {
        out[n] = '\0';
        return out;
    }
    while (n > 0 && ((unsigned char)text[n] & 0xc0u) == 0x80u) n--; /* not inside a character */
    memcpy(out + n, "...", 4);
    return out;
}

/* object[key], or NULL if it is absent or null. */
static json_t *lookup(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static snrq_status wrong_kind(const char *where, const json_t *object, const char *key,
                              const char *expected)
{
    json_t *value = json_object_get(object, key);
    if (value == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\" is missing (expected %s)", where, key,
                         expected);
    return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\": expected %s, found %s", where, key, expected,
                     snrq_json_kind(value));
}

snrq_status snrq_json_integer(const char *where, const json_t *object, const char *key, int64_t low,
                              int64_t high, const int64_t *otherwise, int64_t *out)
{
    const json_t *value = lookup(object, key);
    if (value == NULL && otherwise != NULL) {
        *out = *otherwise;
        return SNRQ_OK;
    }
    if (!json_is_integer(value)) return wrong_kind(where, object, key, "an integer");
    int64_t number = json_integer_value(value);
    if (number < low || number > high)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: key \"%s\": expected an integer from %" PRId64 " to %" PRId64
                         ", found %" PRId64,
                         where, key, low, high, number);
    *out = number;
    return SNRQ_OK;
}

snrq_status snrq_json_number(const char *where, const json_t *object, const char *key, double low,
                             double high, const double *otherwise, double *out)
{
    const json_t *value = lookup(object, key);
    if (value == NULL && otherwise != NULL) {
        *out = *otherwise;
        return SNRQ_OK;
    }
    double number = json_number_value(value);
    if (!json_is_number(value) && !snrq_json_python_number(value, &number))
        return wrong_kind(where, object, key, "a number");
    if (!(number >= low && number <= high))
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\": expected a number from %g to %g, found %g",
                         where, key, low, high, number);
    *out = number;
    return SNRQ_OK;
}

snrq_status snrq_json_boolean(const char *where, const json_t *object, const char *key,
                              bool otherwise, bool *out)
{
    const json_t *value = lookup(object, key);
    if (value != NULL && !json_is_boolean(value))
        return wrong_kind(where, object, key, "true or false");
    *out = value == NULL ? otherwise : json_is_true(value);
    return SNRQ_OK;
}

snrq_status snrq_json_string(const char *where, const json_t *object, const char *key,
                             const char *otherwise, const char **out)
{
    const json_t *value = lookup(object, key);
    if ((value == NULL && otherwise == NULL) || (value != NULL && !snrq_json_is_text(value)))
        return wrong_kind(where, object, key, "a string");
    *out = value == NULL ? otherwise : json_string_value(value);
    return SNRQ_OK;
}

snrq_status snrq_json_object(const char *where, const json_t *object, const char *key, json_t **out)
{
    *out = json_object_get(object, key);
    return json_is_object(*out) ? SNRQ_OK : wrong_kind(where, object, key, "an object");
}

snrq_status snrq_json_array(const char *where, const json_t *object, const char *key, json_t **out)
{
    *out = json_object_get(object, key);
    return json_is_array(*out) ? SNRQ_OK : wrong_kind(where, object, key, "an array");
}
