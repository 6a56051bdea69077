/* JSON beyond the standard; see json_python.h.
 *
 * Before Jansson sees the text, every token that it would reject is put in quotes behind a mark. A
 * key that repeats one of its object is told of by Jansson itself, with its place: it gets the mark
 * at its end, which makes it another key, and the text is parsed again.
 */
#include "io/json_python.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"

/* Begins with U+FDD0, which is no character. */
#define MARK "\xef\xb7\x90python:"
#define TWICE "twice:"
enum { MARK_BYTES = sizeof MARK - 1, TWICE_BYTES = sizeof TWICE - 1, MAX_REPEATED = 16 };

/* ---- tokens ---- */

/* A text that grows. */
struct text {
    char *data;
    size_t bytes, room;
};

static snrq_status append(struct text *text, const char *data, size_t bytes)
{
    SNRQ_TRY(snrq_grow(text->bytes + bytes + 1, 1, "JSON text", (void *)&text->data, &text->room));
    memcpy(text->data + text->bytes, data, bytes);
    text->bytes += bytes;
    text->data[text->bytes] = '\0';
    return SNRQ_OK;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t word_bytes(const char *at, const char *end, const char *word)
{
    size_t bytes = strlen(word);
    return (size_t)(end - at) >= bytes && memcmp(at, word, bytes) == 0 ? bytes : 0;
}

static size_t digits(const char *at, const char *end)
{
    size_t n = 0;
    while (at + n < end && at[n] >= '0' && at[n] <= '9') n++;
    return n;
}

/* Bytes of the number at `at`, as JSON spells it, or 0. */
static size_t number_bytes(const char *at, const char *end, bool *integer)
{
    const char *p = at;
    *integer = true;
    if (p < end && *p == '-') p++;
    size_t whole = digits(p, end);
    if (whole == 0 || (*p == '0' && whole > 1)) return 0;
    p += whole;
    if (p < end && *p == '.') {
        size_t fraction = digits(p + 1, end);
        if (fraction == 0) return 0;
        p += 1 + fraction;
        *integer = false;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        size_t exponent = digits(p, end);
        if (exponent == 0) return 0;
        p += exponent;
        *integer = false;
    }
    return (size_t)(p - at);
}

/* Bytes of a token at `at` that Jansson has no value for, or 0. `end` is followed by a NUL. */
static size_t strange_bytes(const char *at, const char *end)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    size_t bytes = 0;
    bool integer = false;
    for (size_t i = 0; i < sizeof words / sizeof *words && bytes == 0; i++)
        bytes = word_bytes(at, end, words[i]);
    if (bytes == 0) {
        bytes = number_bytes(at, end, &integer);
        if (bytes == 0) return 0;
        errno = 0;
        if (integer)
            (void)strtoll(at, NULL, 10);
        else if (isfinite(strtod(at, NULL)))
            return 0;
        if (integer && errno != ERANGE) return 0;
    }
    /* It stands alone, and is no key. */
    const char *next = at + bytes;
    while (next < end && is_space(*next)) next++;
    return next == end || *next == ',' || *next == ']' || *next == '}' ? bytes : 0;
}

/* Bytes of the string at `at`, its quotes included, or of what there is of it. */
static size_t string_bytes(const char *at, const char *end)
{
    const char *p = at + 1;
    while (p < end && *p != '"') p += *p == '\\' && p + 1 < end ? 2 : 1;
    return (size_t)((p < end ? p + 1 : end) - at);
}

/* Bytes of the number, name or sign at `at`. */
static size_t plain_bytes(const char *at, const char *end)
{
    const char *p = at;
    while (p < end && strchr("\",:[]{}", *p) == NULL && !is_space(*p)) p++;
    return p > at ? (size_t)(p - at) : 1;
}

static snrq_status quote_strange(const char *data, size_t bytes, struct text *out)
{
    const char *end = data + bytes;
    for (const char *at = data; at < end;) {
        size_t strange = strange_bytes(at, end);
        if (strange > 0) {
            SNRQ_TRY(append(out, "\"" MARK, 1 + MARK_BYTES));
            SNRQ_TRY(append(out, at, strange));
            SNRQ_TRY(append(out, "\"", 1));
            at += strange;
            continue;
        }
        size_t token = *at == '"' ? string_bytes(at, end) : plain_bytes(at, end);
        SNRQ_TRY(append(out, at, token));
        at += token;
    }
    return SNRQ_OK;
}

/* ---- repeated keys ---- */

/* The bytes of a key without its marks. */
static size_t base_bytes(const char *key)
{
    size_t bytes = strlen(key);
    while (bytes >= MARK_BYTES && memcmp(key + bytes - MARK_BYTES, MARK, MARK_BYTES) == 0)
        bytes -= MARK_BYTES;
    return bytes;
}

/* A marked string that stands for the last of several values. New reference. */
static json_t *make_repeated(const json_t *last)
{
    static const char start[] = MARK TWICE;
    char *value = json_dumps(last, JSON_COMPACT | JSON_ENCODE_ANY), *text = NULL;
    json_t *out = NULL;
    if (value != NULL &&
        snrq_allocate(sizeof start + strlen(value), 1, "value", &text) == SNRQ_OK) {
        snrq_json_python_restore(value);
        strcpy(text, start);
        strcat(text, value);
        out = json_string(text);
    }
    free(value);
    free(text);
    return out;
}

static bool settle_key(json_t *object, const char *key, const json_t *value)
{
    size_t bytes = base_bytes(key);
    char *base = NULL;
    if (key[bytes] == '\0') return true;
    if (snrq_copy_text(key, "key", &base) != SNRQ_OK) return false;
    base[bytes] = '\0';
    bool good = json_object_set_new(object, base, make_repeated(value)) == 0;
    free(base);
    return good && json_object_del(object, key) == 0;
}

/* Gives every repeated key one value, the marked one. Jansson bounds the depth. */
static bool settle_repeated(json_t *value)
{
    const char *key;
    json_t *item;
    void *next;
    size_t i;
    bool good = true;
    json_array_foreach(value, i, item) good = good && settle_repeated(item);
    if (!json_is_object(value)) return good;
    json_object_foreach(value, key, item) good = good && settle_repeated(item);
    json_object_foreach_safe(value, next, key, item) good = good && settle_key(value, key, item);
    return good;
}

/* Jansson's place of a repeated key: behind it. */
static snrq_status mark_key(const char *where, struct text *text, const json_error_t *error)
{
    size_t at = (size_t)error->position;
    if (error->position < 1 || at > text->bytes || text->data[at - 1] != '"')
        return snrq_fail(SNRQ_INTERNAL, "%s: a repeated key is not where Jansson says", where);
    SNRQ_TRY(append(text, MARK, MARK_BYTES));
    memmove(text->data + at - 1 + MARK_BYTES, text->data + at - 1,
            text->bytes - MARK_BYTES - (at - 1));
    memcpy(text->data + at - 1, MARK, MARK_BYTES);
    return SNRQ_OK;
}

static snrq_status parse(const char *where, struct text *text, json_t **out)
{
    json_error_t error = {0};
    char shown[SNRQ_SHOWN];
    int repeated = 0;
    for (; repeated <= MAX_REPEATED; repeated++) {
        errno = 0;
        *out =
            json_loadb(text->data, text->bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
        if (*out != NULL || json_error_code(&error) != json_error_duplicate_key) break;
        SNRQ_TRY(mark_key(where, text, &error));
    }
    /* Jansson may blame the text for it. */
    if (*out == NULL && (errno == ENOMEM || error.text[0] == '\0' ||
                         json_error_code(&error) == json_error_out_of_memory))
        return snrq_fail(SNRQ_INTERNAL, "%s: no memory for its values", where);
    if (*out == NULL)
        return snrq_fail(SNRQ_BAD_DATA, "%s: not valid JSON at line %d, column %d (byte %d): %s%s",
                         where, error.line, error.column, error.position,
                         snrq_shown(error.text, shown),
                         repeated > MAX_REPEATED ? " (and many more before it)" : "");
    if (repeated == 0 || settle_repeated(*out)) return SNRQ_OK;
    json_decref(*out);
    *out = NULL;
    return snrq_fail(SNRQ_INTERNAL, "%s: no memory for its values", where);
}

snrq_status snrq_json_python_parse(const char *where, const char *data, size_t bytes, json_t **out)
{
    struct text source = {0}, text = {0};
    *out = NULL;
    snrq_status status = append(&source, data, bytes); /* with a NUL behind it */
    if (status == SNRQ_OK) status = append(&text, "", 0);
    if (status == SNRQ_OK) status = quote_strange(source.data, bytes, &text);
    if (status == SNRQ_OK) status = parse(where, &text, out);
    free(source.data);
    free(text.data);
    return status;
}

/* ---- marked strings ---- */

/* The text that a marked string stands for, or NULL. */
static const char *marked(const json_t *value)
{
    const char *text = json_string_value(value);
    return text != NULL && strncmp(text, MARK, MARK_BYTES) == 0 ? text + MARK_BYTES : NULL;
}

const char *snrq_json_python_kind(const json_t *value)
{
    const char *text = marked(value);
    if (text == NULL) return NULL;
    if (strncmp(text, TWICE, TWICE_BYTES) == 0) return "several values: the key is given twice";
    if (strcmp(text, "NaN") == 0) return "NaN";
    if (strstr(text, "Infinity") != NULL) return text[0] == '-' ? "-Infinity" : "Infinity";
    return strpbrk(text, ".eE") != NULL ? "a number beyond a double" : "an integer beyond 64 bits";
}

bool snrq_json_python_number(const json_t *value, double *out)
{
    const char *text = marked(value);
    bool integer = false;
    if (text == NULL || number_bytes(text, text + strlen(text), &integer) != strlen(text))
        return false;
    *out = strtod(text, NULL);
    return isfinite(*out);
}

void snrq_json_python_restore(char *text)
{
    const char *end_of_text = text + strlen(text);
    char *to = text;
    for (const char *from = text; *from != '\0';) {
        size_t bytes = *from == '"' ? string_bytes(from, end_of_text) : 1;
        bool is_marked = bytes > 1 + MARK_BYTES && memcmp(from + 1, MARK, MARK_BYTES) == 0;
        if (!is_marked) {
            memmove(to, from, bytes);
            to += bytes;
            from += bytes;
            continue;
        }
        const char *end = from + bytes - 1, *p = from + 1 + MARK_BYTES;
        if (strncmp(p, TWICE, TWICE_BYTES) == 0) p += TWICE_BYTES;
        for (; p < end; p++) {
            if (*p == '\\' && p + 1 < end) p++;
            *to++ = *p;
        }
        from = end + 1;
    }
    *to = '\0';
}
