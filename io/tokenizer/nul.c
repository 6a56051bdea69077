/* U+0000 in tokenizer.json; see nul.h. */
#include "io/tokenizer/nul.h"

#include <stdlib.h>
#include <string.h>

#include "io/json.h"

/* The next \u0000 from *at on: *at becomes the place of its digits. Backslashes are in strings
 * only, and each belongs to what follows it. */
static bool find_escape(const char *data, size_t bytes, size_t *at)
{
    for (size_t i = *at; i + 1 < bytes; i++) {
        if (data[i] != '\\') continue;
        if (data[i + 1] == 'u' && bytes - i >= 6 && memcmp(data + i + 2, "0000", 4) == 0) {
            *at = i + 2;
            return true;
        }
        i++;
    }
    return false;
}

bool snrq_nul_stands_in(const char *text, size_t bytes)
{
    for (size_t i = 0; i + SNRQ_NUL_BYTES <= bytes; i++)
        if (memcmp(text + i, SNRQ_NUL_TEXT, SNRQ_NUL_BYTES) == 0) return true;
    return false;
}

size_t snrq_nul_restore(const char *text, size_t bytes, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes; used++) {
        bool stands =
            bytes - i >= SNRQ_NUL_BYTES && memcmp(text + i, SNRQ_NUL_TEXT, SNRQ_NUL_BYTES) == 0;
        out[used] = stands ? '\0' : text[i];
        i += stands ? SNRQ_NUL_BYTES : 1;
    }
    return used;
}

static bool is_marked(const char *text)
{
    return text != NULL && snrq_nul_stands_in(text, strlen(text));
}

/* Is it in any key or string of the value, but for tokens and merges of `model`? */
static bool is_elsewhere(const json_t *value, const json_t *model)
{
    const char *key;
    json_t *part;
    size_t i;
    json_object_foreach((json_t *)value, key, part)
    {
        bool is_text = value == model && (strcmp(key, "vocab") == 0 || strcmp(key, "merges") == 0);
        if (!is_text && (is_marked(key) || is_elsewhere(part, model))) return true;
    }
    json_array_foreach(value, i, part)
    {
        if (is_elsewhere(part, model)) return true;
    }
    return is_marked(json_string_value(value));
}

/* The text with every \u0000 spelled \uffff. */
static snrq_status respell(const char *path, const char *data, size_t bytes, size_t at, char **out)
{
    SNRQ_TRY(snrq_allocate(bytes, 1, "tokenizer.json", out));
    memcpy(*out, data, bytes);
    bool both = snrq_nul_stands_in(data, bytes);
    for (size_t i = 0; i + 6 <= bytes && !both; i++)
        both = data[i] == '\\' &&
               (memcmp(data + i + 1, "uffff", 5) == 0 || memcmp(data + i + 1, "uFFFF", 5) == 0);
    if (both) {
        free(*out);
        *out = NULL;
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: byte %zu: U+0000 is supported in tokens only where no string has "
                         "U+FFFF",
                         path, at);
    }
    do memcpy(*out + at, "ffff", 4);
    while (find_escape(data, bytes, &at));
    return SNRQ_OK;
}

snrq_status snrq_tokenizer_json_parse(const char *path, const char *data, size_t bytes,
                                      json_t **out, bool *nul)
{
    char *copy = NULL;
    size_t at = 0;
    *out = NULL;
    *nul = find_escape(data, bytes, &at);
    if (!*nul) return snrq_json_parse_foreign(path, data, bytes, out);
    SNRQ_TRY(respell(path, data, bytes, at, &copy));
    snrq_status status = snrq_json_parse_foreign(path, copy, bytes, out);
    free(copy);
    SNRQ_TRY(status);
    if (!is_elsewhere(*out, json_object_get(*out, "model"))) return SNRQ_OK;
    json_decref(*out);
    *out = NULL;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: byte %zu: U+0000 is supported in the tokens and merges of the model only",
                     path, at);
}
