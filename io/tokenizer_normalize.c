/* Normalizer and pre-tokenizer: what happens to a piece of text before byte pair encoding. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer_internal.h"

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
    SNRQ_TRY(copy_string(where, "pattern", from, &out->from, &out->from_bytes));
    return copy_string(where, "content", to, &out->to, &out->to_bytes);
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
    snrq_replacement *step = &out->steps[out->count++];
    if (strcmp(type, "Replace") == 0) return snrq_replacement_read(where, object, step);
    if (strcmp(type, "Prepend") == 0) {
        SNRQ_TRY(snrq_json_string(where, object, "prepend", NULL, &prefix));
        return copy_string(where, "prepend", prefix, &step->to, &step->to_bytes);
    }
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: type \"%s\" is not supported (supported: Sequence, Prepend, Replace)",
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
    for (int i = 0; i < normalizer->count; i++) snrq_replacement_free(&normalizer->steps[i]);
    normalizer->count = 0;
}

snrq_status snrq_normalize(const snrq_normalizer *normalizer, const char *text, size_t bytes,
                           snrq_buffer *out, snrq_buffer *scratch)
{
    out->used = 0;
    SNRQ_TRY(snrq_buffer_append(out, text, bytes));
    for (int i = 0; i < normalizer->count; i++) {
        const snrq_replacement *step = &normalizer->steps[i];
        scratch->used = 0;
        if (step->from != NULL) {
            SNRQ_TRY(snrq_replace(step, out->data, out->used, scratch));
        } else if (out->used > 0) {
            SNRQ_TRY(snrq_buffer_append(scratch, step->to, step->to_bytes));
            SNRQ_TRY(snrq_buffer_append(scratch, out->data, out->used));
        }
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

/* The older spelling: add_prefix_space instead of prepend_scheme. */
static snrq_status read_prepend(const char *where, const json_t *object, snrq_pre_tokenizer *out)
{
    bool prefix;
    const char *scheme;
    char shown[SNRQ_SHOWN];
    SNRQ_TRY(snrq_json_boolean(where, object, "add_prefix_space", true, &prefix));
    SNRQ_TRY(
        snrq_json_string(where, object, "prepend_scheme", prefix ? "always" : "never", &scheme));
    if (strcmp(scheme, "first") == 0)
        out->prepend = SNRQ_PREPEND_FIRST;
    else if (strcmp(scheme, "always") == 0)
        out->prepend = SNRQ_PREPEND_ALWAYS;
    else if (strcmp(scheme, "never") == 0)
        out->prepend = SNRQ_PREPEND_NEVER;
    else
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: prepend_scheme \"%s\" is not supported (supported: first, always, never)", where,
            snrq_shown(scheme, shown));
    return SNRQ_OK;
}

snrq_status snrq_pre_tokenizer_read(const char *file, const json_t *root, snrq_pre_tokenizer *out)
{
    char where[SNRQ_WHERE], shown[SNRQ_SHOWN];
    const char *type, *replacement;
    size_t end = 0;
    const json_t *object = json_object_get(root, "pre_tokenizer");
    out->kind = SNRQ_WHOLE;
    if (object == NULL || json_is_null(object)) return SNRQ_OK;
    snprintf(where, sizeof where, "%s: pre_tokenizer", file);
    SNRQ_TRY(snrq_json_string(where, object, "type", NULL, &type));
    if (strcmp(type, "Metaspace") != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: type \"%s\" is not supported (supported: Metaspace, or null)", where,
                         snrq_shown(type, shown));
    out->kind = SNRQ_METASPACE;
    SNRQ_TRY(snrq_json_string(where, object, "replacement", NULL, &replacement));
    if (replacement[0] != '\0') snrq_utf8_next(replacement, &end);
    if (end == 0 || replacement[end] != '\0')
        return snrq_fail(SNRQ_BAD_DATA, "%s: replacement: expected one character, found \"%s\"",
                         where, snrq_shown(replacement, shown));
    SNRQ_TRY(snrq_json_boolean(where, object, "split", true, &out->split));
    SNRQ_TRY(read_prepend(where, object, out));
    SNRQ_TRY(copy_string(where, "space", " ", &out->space.from, &out->space.from_bytes));
    return copy_string(where, "replacement", replacement, &out->space.to, &out->space.to_bytes);
}

static bool begins_with(const char *text, size_t bytes, const char *prefix, size_t length)
{
    return bytes >= length && memcmp(text, prefix, length) == 0;
}

snrq_status snrq_pre_tokenize(const snrq_pre_tokenizer *pre_tokenizer, const char *text,
                              size_t bytes, bool first, snrq_buffer *out)
{
    const snrq_replacement *space = &pre_tokenizer->space;
    out->used = 0;
    bool wanted = pre_tokenizer->prepend == SNRQ_PREPEND_ALWAYS ||
                  (pre_tokenizer->prepend == SNRQ_PREPEND_FIRST && first);
    bool there =
        begins_with(text, bytes, " ", 1) || begins_with(text, bytes, space->to, space->to_bytes);
    if (wanted && !there) SNRQ_TRY(snrq_buffer_append(out, space->to, space->to_bytes));
    return snrq_replace(space, text, bytes, out);
}

size_t snrq_word_end(const snrq_pre_tokenizer *pre_tokenizer, const char *text, size_t bytes,
                     size_t begin)
{
    if (pre_tokenizer->kind != SNRQ_METASPACE || !pre_tokenizer->split) return bytes;
    const snrq_replacement *space = &pre_tokenizer->space;
    size_t end = begin;
    do snrq_utf8_next(text, &end);
    while (end < bytes && !begins_with(text + end, bytes - end, space->to, space->to_bytes));
    return end;
}
