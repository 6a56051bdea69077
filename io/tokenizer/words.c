/* Pre-tokenizer: from pieces of normalized text to the words that are encoded one by one.
 *
 * The steps of the file become cuts, one inside the other (Split, Digits, the regular expression of
 * ByteLevel), and what is done with the pieces at last: nothing, Metaspace's replacement of spaces,
 * or byte-level spelling. The latter two change the text and must therefore be the last step.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"

/* What ByteLevel cuts at by itself (GPT-2). */
static const char byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

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

static snrq_status read_metaspace(const char *where, const json_t *object, snrq_pre_tokenizer *out)
{
    const char *replacement;
    size_t bytes;
    out->kind = SNRQ_METASPACE;
    SNRQ_TRY(snrq_json_character(where, object, "replacement", &replacement, &bytes));
    SNRQ_TRY(snrq_json_boolean(where, object, "split", true, &out->cut_at_spaces));
    SNRQ_TRY(read_prepend(where, object, out));
    return snrq_replacement_set(where, "replacement", " ", replacement, &out->space);
}

static snrq_status cut_add(const char *where, const char *pattern, bool literal,
                           snrq_pre_tokenizer *out)
{
    if (out->count == SNRQ_MAX_STEPS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: more than %d steps", where, SNRQ_MAX_STEPS);
    return snrq_split_create(where, pattern, literal, &out->splits[out->count++]);
}

static snrq_status read_split(const char *where, const json_t *object, snrq_pre_tokenizer *out)
{
    json_t *pattern;
    const char *text, *behavior;
    bool invert;
    char shown[SNRQ_SHOWN];
    SNRQ_TRY(snrq_json_string(where, object, "behavior", NULL, &behavior));
    SNRQ_TRY(snrq_json_boolean(where, object, "invert", false, &invert));
    if (strcmp(behavior, "Isolated") != 0 && strcmp(behavior, "Removed") != 0)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: Split: behavior \"%s\" is not supported (supported: Isolated, Removed)", where,
            snrq_shown(behavior, shown));
    /* `invert` exchanges matches and what is between them: no difference when both are pieces. */
    if (strcmp(behavior, "Removed") == 0 && out->count < SNRQ_MAX_STEPS)
        out->kept[out->count] = invert ? SNRQ_MATCHES : SNRQ_GAPS;
    SNRQ_TRY(snrq_json_object(where, object, "pattern", &pattern));
    bool literal = json_object_get(pattern, "Regex") == NULL;
    SNRQ_TRY(snrq_json_string(where, pattern, literal ? "String" : "Regex", NULL, &text));
    return cut_add(where, text, literal, out);
}

static snrq_status read_byte_level(const char *where, const json_t *object, snrq_pre_tokenizer *out)
{
    bool spaced, cut;
    out->kind = SNRQ_BYTE_LEVEL;
    SNRQ_TRY(snrq_json_boolean(where, object, "add_prefix_space", true, &spaced));
    SNRQ_TRY(snrq_json_boolean(where, object, "use_regex", true, &cut));
    if (spaced) out->spaced = out->count;
    return cut ? cut_add(where, byte_level_pattern, false, out) : SNRQ_OK;
}

static snrq_status step_add(const char *where, const json_t *object, int depth,
                            snrq_pre_tokenizer *out)
{
    const char *type;
    char shown[SNRQ_SHOWN];
    SNRQ_TRY(snrq_json_string(where, object, "type", NULL, &type));
    if (strcmp(type, "Sequence") == 0) {
        json_t *list, *step;
        size_t i;
        SNRQ_TRY(snrq_json_array(where, object, "pretokenizers", &list));
        if (depth == SNRQ_MAX_DEPTH)
            return snrq_fail(SNRQ_BAD_DATA, "%s: Sequences nested deeper than %d", where,
                             SNRQ_MAX_DEPTH);
        json_array_foreach(list, i, step)
        {
            SNRQ_TRY(step_add(where, step, depth + 1, out));
        }
        return SNRQ_OK;
    }
    if (out->kind != SNRQ_PLAIN)
        return snrq_fail(
            SNRQ_BAD_DATA, "%s: \"%s\" behind %s is not supported (%s must be the last step)",
            where, snrq_shown(type, shown), out->kind == SNRQ_METASPACE ? "Metaspace" : "ByteLevel",
            out->kind == SNRQ_METASPACE ? "Metaspace" : "ByteLevel");
    if (strcmp(type, "Split") == 0) return read_split(where, object, out);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(where, object, out);
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(where, object, out);
    if (strcmp(type, "Digits") == 0) {
        bool single;
        SNRQ_TRY(snrq_json_boolean(where, object, "individual_digits", false, &single));
        return cut_add(where, single ? "\\p{N}" : "\\p{N}+", false, out);
    }
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: type \"%s\" is not supported (supported: Sequence, Split, Digits, "
                     "ByteLevel, Metaspace, or null)",
                     where, snrq_shown(type, shown));
}

snrq_status snrq_pre_tokenizer_read(const char *file, const json_t *root, snrq_pre_tokenizer *out)
{
    char where[SNRQ_WHERE];
    const json_t *object = json_object_get(root, "pre_tokenizer");
    out->spaced = -1;
    if (object == NULL || json_is_null(object)) return SNRQ_OK;
    snprintf(where, sizeof where, "%s: pre_tokenizer", file);
    return step_add(where, object, 0, out);
}

void snrq_pre_tokenizer_free(snrq_pre_tokenizer *pre_tokenizer)
{
    for (int i = 0; i < pre_tokenizer->count; i++) snrq_split_destroy(&pre_tokenizer->splits[i]);
    snrq_replacement_free(&pre_tokenizer->space);
    *pre_tokenizer = (snrq_pre_tokenizer){0};
}

static bool begins_with(const char *text, size_t bytes, const char *prefix, size_t length)
{
    return bytes >= length && memcmp(text, prefix, length) == 0;
}

/* Replaces spaces, and hands over the words that begin at the replacement characters. */
static snrq_status metaspace_words(const snrq_pre_tokenizer *pre_tokenizer, snrq_words *work,
                                   const char *text, size_t bytes, bool first)
{
    const snrq_replacement *space = &pre_tokenizer->space;
    snrq_buffer *out = &work->replaced;
    bool wanted = pre_tokenizer->prepend == SNRQ_PREPEND_ALWAYS ||
                  (pre_tokenizer->prepend == SNRQ_PREPEND_FIRST && first);
    bool there =
        begins_with(text, bytes, " ", 1) || begins_with(text, bytes, space->to, space->to_bytes);
    out->used = 0;
    if (wanted && !there) SNRQ_TRY(snrq_buffer_append(out, space->to, space->to_bytes));
    SNRQ_TRY(snrq_replace(space, text, bytes, out));
    for (size_t begin = 0, end; begin < out->used; begin = end) {
        end = pre_tokenizer->cut_at_spaces ? begin : out->used;
        while (end < out->used && (end == begin || !begins_with(out->data + end, out->used - end,
                                                                space->to, space->to_bytes)))
            snrq_utf8_next(out->data, &end);
        SNRQ_TRY(work->put(work->user, out->data + begin, end - begin));
    }
    return SNRQ_OK;
}

/* The cuts from `level` on. */
static snrq_status cut_words(const snrq_pre_tokenizer *pre_tokenizer, snrq_words *work, int level,
                             const char *text, size_t bytes, bool first)
{
    if (level == pre_tokenizer->spaced && !begins_with(text, bytes, " ", 1)) {
        work->spaced.used = 0;
        SNRQ_TRY(snrq_buffer_append(&work->spaced, " ", 1));
        SNRQ_TRY(snrq_buffer_append(&work->spaced, text, bytes));
        text = work->spaced.data;
        bytes = work->spaced.used;
    }
    if (level == pre_tokenizer->count)
        return pre_tokenizer->kind == SNRQ_METASPACE
                   ? metaspace_words(pre_tokenizer, work, text, bytes, first)
                   : work->put(work->user, text, bytes);
    snrq_cutting cutting = {.split = pre_tokenizer->splits[level], .text = text, .bytes = bytes};
    while (cutting.done < bytes) {
        size_t begin, end;
        SNRQ_TRY(snrq_split_next(&cutting, work->split, &begin, &end));
        if (pre_tokenizer->kept[level] == (cutting.is_match ? SNRQ_GAPS : SNRQ_MATCHES)) continue;
        SNRQ_TRY(cut_words(pre_tokenizer, work, level + 1, text + begin, end - begin,
                           first && begin == 0));
    }
    return SNRQ_OK;
}

snrq_status snrq_words_of(const snrq_pre_tokenizer *pre_tokenizer, snrq_words *work,
                          const char *text, size_t bytes, bool first)
{
    if (pre_tokenizer->count > 0 && work->split == NULL)
        SNRQ_TRY(snrq_split_work_create(&work->split));
    if (work->split != NULL) snrq_split_work_add(work->split, bytes);
    return bytes == 0 ? SNRQ_OK : cut_words(pre_tokenizer, work, 0, text, bytes, first);
}

void snrq_words_free(snrq_words *work)
{
    snrq_split_work_destroy(&work->split);
    free(work->spaced.data);
    free(work->replaced.data);
    *work = (snrq_words){0};
}
