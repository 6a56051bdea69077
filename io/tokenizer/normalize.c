/* Normalizer: what happens to a piece of text before it is cut into words; and replacing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"

static snrq_status copy_string(const char *where, const char *key, const char *text, char **out,
                               size_t *bytes)
{
    *bytes = strlen(text);
    if (*bytes > SNRQ_MAX_AFFIX)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s has %zu bytes, expected at most %d", where, key,
                         *bytes, SNRQ_MAX_AFFIX);
    SNRQ_TRY(snrq_allocate(*bytes + 1, 1, key, out));
    memcpy(*out, text, *bytes);
    return SNRQ_OK;
}

snrq_status snrq_replacement_set(const char *where, const char *key, const char *from,
                                 const char *to, snrq_replacement *out)
{
    SNRQ_TRY(copy_string(where, key, from, &out->from, &out->from_bytes));
    return copy_string(where, key, to, &out->to, &out->to_bytes);
}

snrq_status snrq_json_character(const char *where, const json_t *object, const char *key,
                                const char **text, size_t *bytes)
{
    char shown[SNRQ_SHOWN];
    *bytes = 0;
    SNRQ_TRY(snrq_json_string(where, object, key, NULL, text));
    if ((*text)[0] != '\0') snrq_utf8_next(*text, bytes);
    if (*bytes == 0 || (*text)[*bytes] != '\0')
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s: expected one character, found \"%s\"", where, key,
                         snrq_shown(*text, shown));
    return SNRQ_OK;
}

void snrq_replacement_free(snrq_replacement *replacement)
{
    free(replacement->from);
    free(replacement->to);
    *replacement = (snrq_replacement){0};
}

snrq_status snrq_replacement_read(const char *where, const json_t *object, snrq_replacement *out)
{
    json_t *pattern;
    const char *from, *to;
    SNRQ_TRY(snrq_json_object(where, object, "pattern", &pattern));
    if (json_object_get(pattern, "Regex") != NULL)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: a Regex pattern is not supported here (supported: String)", where);
    SNRQ_TRY(snrq_json_string(where, pattern, "String", NULL, &from));
    SNRQ_TRY(snrq_json_string(where, object, "content", NULL, &to));
    if (from[0] == '\0') return snrq_fail(SNRQ_BAD_DATA, "%s: the pattern is empty", where);
    return snrq_replacement_set(where, "pattern or content", from, to, out);
}

/* Where the pattern occurs next, at or after `at`; `bytes` if nowhere. */
static size_t find(const snrq_replacement *replacement, const char *text, size_t bytes, size_t at)
{
    while (at < bytes) {
        const char *hit = memchr(text + at, replacement->from[0], bytes - at);
        if (hit == NULL) return bytes;
        at = (size_t)(hit - text);
        if (bytes - at >= replacement->from_bytes &&
            memcmp(hit, replacement->from, replacement->from_bytes) == 0)
            return at;
        at++;
    }
    return bytes;
}

snrq_status snrq_replace(const snrq_replacement *replacement, const char *text, size_t bytes,
                         snrq_buffer *out)
{
    for (size_t done = 0; done < bytes;) {
        size_t hit = find(replacement, text, bytes, done);
        SNRQ_TRY(snrq_buffer_append(out, text + done, hit - done));
        if (hit == bytes) break;
        SNRQ_TRY(snrq_buffer_append(out, replacement->to, replacement->to_bytes));
        done = hit + replacement->from_bytes;
    }
    return SNRQ_OK;
}

static snrq_status normalizer_add(const char *where, const json_t *object, int depth,
                                  snrq_normalizer *out)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"}; /* as the enum */
    const char *type, *prefix;
    char shown[SNRQ_SHOWN];
    SNRQ_TRY(snrq_json_string(where, object, "type", NULL, &type));
    if (strcmp(type, "Sequence") == 0) {
        json_t *list, *step;
        size_t i;
        SNRQ_TRY(snrq_json_array(where, object, "normalizers", &list));
        if (depth == SNRQ_MAX_DEPTH)
            return snrq_fail(SNRQ_BAD_DATA, "%s: Sequences nested deeper than %d", where,
                             SNRQ_MAX_DEPTH);
        json_array_foreach(list, i, step)
        {
            SNRQ_TRY(normalizer_add(where, step, depth + 1, out));
        }
        return SNRQ_OK;
    }
    if (out->count == SNRQ_MAX_STEPS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: more than %d steps", where, SNRQ_MAX_STEPS);
    snrq_normalizer_step *step = &out->steps[out->count++];
    if (strcmp(type, "Replace") == 0)
        return snrq_replacement_read(where, object, &step->replacement);
    if (strcmp(type, "Prepend") == 0) {
        step->kind = SNRQ_PREPEND;
        SNRQ_TRY(snrq_json_string(where, object, "prepend", NULL, &prefix));
        return copy_string(where, "prepend", prefix, &step->replacement.to,
                           &step->replacement.to_bytes);
    }
    step->kind = SNRQ_UNICODE;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        step->form = (snrq_unicode_form)i;
        if (strcmp(type, forms[i]) == 0) return SNRQ_OK;
    }
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: type \"%s\" is not supported (supported: Sequence, Prepend, Replace, "
                     "NFC, NFD, NFKC, NFKD)",
                     where, snrq_shown(type, shown));
}

snrq_status snrq_normalizer_read(const char *file, const json_t *root, snrq_normalizer *out)
{
    char where[SNRQ_WHERE];
    const json_t *object = json_object_get(root, "normalizer");
    if (object == NULL || json_is_null(object)) return SNRQ_OK;
    snprintf(where, sizeof where, "%s: normalizer", file);
    return normalizer_add(where, object, 0, out);
}

void snrq_normalizer_free(snrq_normalizer *normalizer)
{
    for (int i = 0; i < normalizer->count; i++)
        snrq_replacement_free(&normalizer->steps[i].replacement);
    normalizer->count = 0;
}

/* Appends what one step makes of `text`. */
static snrq_status normalizer_apply(const snrq_normalizer_step *step, const char *text,
                                    size_t bytes, snrq_buffer *out)
{
    switch (step->kind) {
    case SNRQ_REPLACE:
        return snrq_replace(&step->replacement, text, bytes, out);
    case SNRQ_UNICODE:
        return snrq_unicode_normalize(step->form, text, bytes, out);
    case SNRQ_PREPEND:
        break;
    }
    if (bytes == 0) return SNRQ_OK;
    SNRQ_TRY(snrq_buffer_append(out, step->replacement.to, step->replacement.to_bytes));
    return snrq_buffer_append(out, text, bytes);
}

snrq_status snrq_normalize(const snrq_normalizer *normalizer, const char *text, size_t bytes,
                           snrq_buffer *out, snrq_buffer *scratch)
{
    out->used = 0;
    SNRQ_TRY(snrq_buffer_append(out, text, bytes));
    for (int i = 0; i < normalizer->count; i++) {
        scratch->used = 0;
        SNRQ_TRY(normalizer_apply(&normalizer->steps[i], out->data, out->used, scratch));
        if (scratch->used / SNRQ_MAX_GROWTH > bytes + SNRQ_MAX_AFFIX)
            return snrq_fail(
                SNRQ_BAD_DATA,
                "the tokenizer's normalizer makes %zu bytes of text more than %d times longer",
                bytes, SNRQ_MAX_GROWTH);
        snrq_buffer swapped = *out;
        *out = *scratch;
        *scratch = swapped;
    }
    return SNRQ_OK;
}
