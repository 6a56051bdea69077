/* Post-processor: the ids that belong before and after a text, such as the beginning-of-sequence
 * token. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"

/* Appends the ids of the special token called `name` in the template's own table. */
static snrq_status special_append(const char *where, const json_t *table, const char *name,
                                  const snrq_vocabulary *vocabulary, snrq_ids *out)
{
    char shown[SNRQ_SHOWN];
    size_t i;
    json_t *list, *value;
    const json_t *entry = json_object_get(table, name);
    if (!json_is_object(entry))
        return snrq_fail(SNRQ_BAD_DATA, "%s: special_tokens has no \"%s\"", where,
                         snrq_shown(name, shown));
    SNRQ_TRY(snrq_json_array(where, entry, "ids", &list));
    json_array_foreach(list, i, value)
    {
        int64_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= vocabulary->size ||
            !vocabulary->tokens[id].present)
            return snrq_fail(
                SNRQ_BAD_DATA,
                "%s: special token \"%s\": ids[%zu]: expected a token id of the vocabulary", where,
                snrq_shown(name, shown), i);
        if (out->used == SNRQ_MAX_AFFIX)
            return snrq_fail(SNRQ_BAD_DATA, "%s: adds more than %d tokens", where, SNRQ_MAX_AFFIX);
        SNRQ_TRY(snrq_ids_append(out, (int32_t)id));
    }
    return SNRQ_OK;
}

/* Reads the template for one text: special tokens around the one place of the text ("A"). */
static snrq_status single_read(const char *where, const json_t *object,
                               const snrq_vocabulary *vocabulary, snrq_template *out)
{
    json_t *list, *item;
    size_t i;
    bool text_seen = false;
    const json_t *table = json_object_get(object, "special_tokens");
    SNRQ_TRY(snrq_json_array(where, object, "single", &list));
    json_array_foreach(list, i, item)
    {
        const json_t *special = json_object_get(item, "SpecialToken");
        const json_t *sequence = json_object_get(item, "Sequence");
        const char *name;
        SNRQ_TRY(snrq_json_string(where, special != NULL ? special : sequence, "id", NULL, &name));
        if (special != NULL) {
            SNRQ_TRY(special_append(where, table, name, vocabulary,
                                    text_seen ? &out->after : &out->before));
        } else if (text_seen || strcmp(name, "A") != 0) {
            return snrq_fail(SNRQ_BAD_DATA, "%s: single: expected the sequence \"A\" just once",
                             where);
        } else {
            text_seen = true;
        }
    }
    if (!text_seen)
        return snrq_fail(SNRQ_BAD_DATA, "%s: single: the sequence \"A\" is missing", where);
    return SNRQ_OK;
}

static snrq_status ids_join(snrq_ids *ids, const snrq_ids *more)
{
    if (ids->used + more->used > SNRQ_MAX_AFFIX)
        return snrq_fail(SNRQ_BAD_DATA, "the post-processor adds more than %d tokens",
                         SNRQ_MAX_AFFIX);
    for (int64_t i = 0; i < more->used; i++) SNRQ_TRY(snrq_ids_append(ids, more->data[i]));
    return SNRQ_OK;
}

/* Puts the ids of a template around those of the templates before it. */
static snrq_status template_wrap(const char *where, const json_t *object,
                                 const snrq_vocabulary *vocabulary, snrq_template *out)
{
    snrq_template outer = {{0}, {0}};
    snrq_status status = single_read(where, object, vocabulary, &outer);
    if (status == SNRQ_OK) status = ids_join(&outer.before, &out->before);
    if (status == SNRQ_OK) status = ids_join(&out->after, &outer.after);
    if (status == SNRQ_OK) {
        snrq_ids inner = out->before;
        out->before = outer.before;
        outer.before = inner;
    }
    snrq_template_free(&outer);
    return status;
}

static snrq_status processor_add(const char *where, const json_t *object, int depth,
                                 const snrq_vocabulary *vocabulary, snrq_template *out)
{
    const char *type;
    char shown[SNRQ_SHOWN];
    SNRQ_TRY(snrq_json_string(where, object, "type", NULL, &type));
    if (strcmp(type, "TemplateProcessing") == 0)
        return template_wrap(where, object, vocabulary, out);
    if (strcmp(type, "ByteLevel") == 0) return SNRQ_OK; /* moves offsets, not ids */
    if (strcmp(type, "Sequence") != 0)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: type \"%s\" is not supported (supported: Sequence, TemplateProcessing, "
            "ByteLevel)",
            where, snrq_shown(type, shown));
    json_t *list, *processor;
    size_t i;
    SNRQ_TRY(snrq_json_array(where, object, "processors", &list));
    if (depth == SNRQ_MAX_DEPTH)
        return snrq_fail(SNRQ_BAD_DATA, "%s: Sequences nested deeper than %d", where,
                         SNRQ_MAX_DEPTH);
    json_array_foreach(list, i, processor)
    {
        SNRQ_TRY(processor_add(where, processor, depth + 1, vocabulary, out));
    }
    return SNRQ_OK;
}

snrq_status snrq_template_read(const char *file, const json_t *root,
                               const snrq_vocabulary *vocabulary, snrq_template *out)
{
    char where[SNRQ_WHERE];
    const json_t *object = json_object_get(root, "post_processor");
    if (object == NULL || json_is_null(object)) return SNRQ_OK;
    snprintf(where, sizeof where, "%s: post_processor", file);
    return processor_add(where, object, 0, vocabulary, out);
}

/* One side becomes the token alone, or nothing. */
static snrq_status side_overrule(snrq_flag flag, const char *text, const snrq_tokenizer *tokenizer,
                                 snrq_ids *out)
{
    if (flag == SNRQ_OFF) out->used = 0;
    if (flag != SNRQ_ON || text == NULL) return SNRQ_OK;
    int32_t id = snrq_vocabulary_named(&tokenizer->vocabulary, text);
    if (id < 0) return SNRQ_OK;
    out->used = 0;
    return snrq_ids_append(out, id);
}

snrq_status snrq_template_overrule(const snrq_tokenizer_settings *settings,
                                   const snrq_tokenizer *tokenizer, snrq_template *out)
{
    SNRQ_TRY(side_overrule(settings->add_bos, settings->bos, tokenizer, &out->before));
    return side_overrule(settings->add_eos, settings->eos, tokenizer, &out->after);
}

void snrq_template_free(snrq_template *post)
{
    free(post->before.data);
    free(post->after.data);
    *post = (snrq_template){{0}, {0}};
}
