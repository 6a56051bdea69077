/* The model of a tokenizer.json: tokens and merges, and the tables made of them for encoding. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/tokenizer/internal.h"

/* What the merges are built on cannot be changed by these; they are features of other tokenizers.
 */
static snrq_status check_features(const char *where, const json_t *model)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const double no_dropout = 0.0;
    const char *type, *affix;
    char shown[SNRQ_SHOWN];
    double dropout;
    SNRQ_TRY(snrq_json_string(where, model, "type", "BPE", &type));
    if (strcmp(type, "BPE") != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: type \"%s\" is not supported (supported: BPE)", where,
                         snrq_shown(type, shown));
    for (size_t i = 0; i < sizeof affixes / sizeof affixes[0]; i++) {
        SNRQ_TRY(snrq_json_string(where, model, affixes[i], "", &affix));
        if (affix[0] != '\0')
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s \"%s\" is not supported", where, affixes[i],
                             snrq_shown(affix, shown));
    }
    SNRQ_TRY(snrq_json_number(where, model, "dropout", 0.0, 1.0, &no_dropout, &dropout));
    if (dropout > 0.0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: dropout %g is not supported: it would make the tokens random", where,
                         dropout);
    return SNRQ_OK;
}

/* Id of one token of the file, checked. */
static snrq_status token_id(const char *where, const char *text, const json_t *value, int64_t *out)
{
    char shown[SNRQ_SHOWN];
    int64_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id > SNRQ_MAX_TOKEN_ID)
        return snrq_fail(SNRQ_BAD_DATA, "%s: token \"%s\": expected an id from 0 to %d", where,
                         snrq_shown(text, shown), SNRQ_MAX_TOKEN_ID);
    *out = id;
    return SNRQ_OK;
}

/* Highest id of the model's and the added tokens + 1, so that all tables can be allocated at once.
 */
static snrq_status find_size(const char *file, const json_t *vocab, const json_t *added,
                             int64_t *size)
{
    const char *text;
    json_t *value;
    size_t i;
    int64_t id;
    char where[SNRQ_WHERE];
    *size = 0;
    snprintf(where, sizeof where, "%s: model.vocab", file);
    json_object_foreach((json_t *)vocab, text, value)
    {
        SNRQ_TRY(token_id(where, text, value, &id));
        if (id >= *size) *size = id + 1;
    }
    json_array_foreach(added, i, value)
    {
        snprintf(where, sizeof where, "%s: added_tokens[%zu]", file, i);
        SNRQ_TRY(snrq_json_integer(where, value, "id", 0, SNRQ_MAX_TOKEN_ID, NULL, &id));
        if (id >= *size) *size = id + 1;
    }
    return SNRQ_OK;
}

static snrq_status text_add(const char *where, snrq_vocabulary *vocabulary, const char *text,
                            int64_t id)
{
    char shown[SNRQ_SHOWN], other[SNRQ_SHOWN];
    snrq_token_text *token = &vocabulary->tokens[id];
    if (token->present)
        return snrq_fail(SNRQ_BAD_DATA, "%s: \"%s\" has id %" PRId64 ", which \"%s\" has already",
                         where, snrq_shown(text, shown), id,
                         snrq_shown(vocabulary->texts.data + token->offset, other));
    size_t bytes = strlen(text);
    if (bytes > UINT32_MAX)
        return snrq_fail(SNRQ_BAD_DATA, "%s: a token of %zu bytes is too long", where, bytes);
    *token = (snrq_token_text){
        .offset = vocabulary->texts.used, .bytes = (uint32_t)bytes, .present = true};
    return snrq_buffer_append(&vocabulary->texts, text, bytes + 1);
}

static size_t slot_of(const snrq_vocabulary *vocabulary, const char *text, size_t bytes)
{
    return (size_t)XXH3_64bits(text, bytes) & vocabulary->slot_mask;
}

int32_t snrq_vocabulary_find(const snrq_vocabulary *vocabulary, const char *text, size_t bytes)
{
    size_t slot = slot_of(vocabulary, text, bytes);
    for (; vocabulary->slots[slot] >= 0; slot = (slot + 1) & vocabulary->slot_mask) {
        const snrq_token_text *token = &vocabulary->tokens[vocabulary->slots[slot]];
        if (token->bytes == bytes &&
            memcmp(vocabulary->texts.data + token->offset, text, bytes) == 0)
            return vocabulary->slots[slot];
    }
    return -1;
}

/* Whether the text is one character. */
static bool is_character(const char *text)
{
    size_t position = 0;
    if (text[0] != '\0') snrq_utf8_next(text, &position);
    return position > 0 && text[position] == '\0';
}

/* Enters the model's tokens: text, hash table, characters. */
static snrq_status read_tokens(const char *where, const json_t *vocab, snrq_vocabulary *vocabulary)
{
    const char *text;
    json_t *value;
    size_t count = json_object_size(vocab), slots = 16, characters = 0;
    while (slots / 2 < count) slots *= 2;
    SNRQ_TRY(snrq_allocate(slots, sizeof *vocabulary->slots, "vocabulary", &vocabulary->slots));
    memset(vocabulary->slots, 0xff, slots * sizeof *vocabulary->slots);
    vocabulary->slot_mask = slots - 1;
    json_object_foreach((json_t *)vocab, text, value)
    {
        characters += is_character(text);
    }
    SNRQ_TRY(snrq_map_create(characters, "table of characters", &vocabulary->characters));
    json_object_foreach((json_t *)vocab, text, value)
    {
        int64_t id = json_integer_value(value);
        size_t bytes = strlen(text), position = 0;
        SNRQ_TRY(text_add(where, vocabulary, text, id));
        vocabulary->tokens[id].in_model = true;
        size_t slot = slot_of(vocabulary, text, bytes);
        while (vocabulary->slots[slot] >= 0) slot = (slot + 1) & vocabulary->slot_mask;
        vocabulary->slots[slot] = (int32_t)id;
        if (is_character(text))
            snrq_map_put(&vocabulary->characters, snrq_utf8_next(text, &position), (uint64_t)id);
    }
    return SNRQ_OK;
}

/* Byte tokens and the unknown token: what becomes of characters that have none. */
static snrq_status read_fallback(const char *where, const json_t *model,
                                 snrq_vocabulary *vocabulary)
{
    const char *unknown;
    char shown[SNRQ_SHOWN], name[8];
    int found = 0;
    SNRQ_TRY(snrq_json_boolean(where, model, "byte_fallback", false, &vocabulary->byte_fallback));
    SNRQ_TRY(snrq_json_boolean(where, model, "fuse_unk", false, &vocabulary->fuse_unknown));
    SNRQ_TRY(snrq_json_boolean(where, model, "ignore_merges", false, &vocabulary->ignore_merges));
    SNRQ_TRY(snrq_json_string(where, model, "unk_token", "", &unknown));
    vocabulary->unknown = -1;
    if (unknown[0] != '\0') {
        vocabulary->unknown = snrq_vocabulary_find(vocabulary, unknown, strlen(unknown));
        if (vocabulary->unknown < 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: unk_token \"%s\" is not in the vocabulary", where,
                             snrq_shown(unknown, shown));
    }
    if (!vocabulary->byte_fallback) return SNRQ_OK;
    for (int byte = 0; byte < 256; byte++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        vocabulary->byte_ids[byte] = snrq_vocabulary_find(vocabulary, name, 6);
        if (vocabulary->byte_ids[byte] >= 0) found++;
    }
    if (found > 0 && found < 256)
        return snrq_fail(
            SNRQ_BAD_DATA,
            "%s: byte_fallback is true, but only %d of the 256 tokens <0x00>..<0xFF> are in "
            "the vocabulary",
            where, found);
    vocabulary->byte_fallback = found == 256;
    return SNRQ_OK;
}

/* The two sides of merge `index`: "left right" or ["left", "right"]. `left` is not NUL-terminated.
 */
static snrq_status merge_sides(const char *where, const json_t *merge, size_t index,
                               const char **left, size_t *left_bytes, const char **right)
{
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        *left = json_string_value(json_array_get(merge, 0));
        *right = json_string_value(json_array_get(merge, 1));
        *left_bytes = *left != NULL ? strlen(*left) : 0;
    } else {
        *left = json_string_value(merge);
        const char *space = *left != NULL ? strchr(*left, ' ') : NULL;
        *right = space != NULL && strchr(space + 1, ' ') == NULL ? space + 1 : NULL;
        *left_bytes = space != NULL ? (size_t)(space - *left) : 0;
    }
    if (*left == NULL || *right == NULL)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: merges[%zu]: expected \"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"]", where,
                         index);
    return SNRQ_OK;
}

static bool is_fallback(const snrq_vocabulary *vocabulary, int32_t id)
{
    const char *text = vocabulary->texts.data + vocabulary->tokens[id].offset;
    return id == vocabulary->unknown ||
           (vocabulary->byte_fallback && vocabulary->tokens[id].bytes == 6 &&
            strncmp(text, "<0x", 3) == 0);
}

/* Notes that the last character of `left` and the first one of `right` can be joined. The reasoning
 * needs every symbol of a merge to cover just its own text, which the fallback tokens do not. */
static void note_join(snrq_vocabulary *vocabulary, int32_t left, int32_t right)
{
    if (is_fallback(vocabulary, left) || is_fallback(vocabulary, right))
        vocabulary->cuttable = false;
    const snrq_token_text *a = &vocabulary->tokens[left], *b = &vocabulary->tokens[right];
    if (a->bytes == 0 || b->bytes == 0) return;
    const char *a_text = vocabulary->texts.data + a->offset;
    size_t last = snrq_utf8_before(a_text, a->bytes), first = 0;
    uint64_t before = snrq_map_get(&vocabulary->characters, snrq_utf8_next(a_text, &last));
    uint64_t after = snrq_map_get(&vocabulary->characters,
                                  snrq_utf8_next(vocabulary->texts.data + b->offset, &first));
    /* A character that is no token never becomes a symbol: the merge cannot happen. */
    if (before != UINT64_MAX && after != UINT64_MAX)
        snrq_map_put(&vocabulary->joins, before << 32 | after, 0);
}

static snrq_status read_merges(const char *where, const json_t *merges, snrq_vocabulary *vocabulary)
{
    size_t index, count = json_array_size(merges);
    json_t *merge;
    snrq_buffer joined = {0};
    snrq_status status = SNRQ_OK;
    if (count > INT32_MAX)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %zu merges, expected at most 2^31", where, count);
    SNRQ_TRY(snrq_map_create(count, "table of merges", &vocabulary->merges));
    SNRQ_TRY(snrq_map_create(count, "table of joins", &vocabulary->joins));
    vocabulary->cuttable = true;
    json_array_foreach(merges, index, merge)
    {
        const char *left, *right;
        size_t left_bytes;
        status = merge_sides(where, merge, index, &left, &left_bytes, &right);
        joined.used = 0;
        if (status == SNRQ_OK) status = snrq_buffer_append(&joined, left, left_bytes);
        if (status == SNRQ_OK) status = snrq_buffer_append(&joined, right, strlen(right) + 1);
        if (status != SNRQ_OK) break;
        int32_t a = snrq_vocabulary_find(vocabulary, left, left_bytes);
        int32_t b = snrq_vocabulary_find(vocabulary, right, strlen(right));
        int32_t result = snrq_vocabulary_find(vocabulary, joined.data, joined.used - 1);
        if (a < 0 || b < 0 || result < 0) {
            char shown[SNRQ_SHOWN];
            status = snrq_fail(SNRQ_BAD_DATA,
                               "%s: merges[%zu] makes \"%s\": %s is not in the vocabulary", where,
                               index, snrq_shown(joined.data, shown),
                               a < 0   ? "its left side"
                               : b < 0 ? "its right side"
                                       : "it");
            break;
        }
        /* Of two merges of the same pair the later one counts, as in the original reader. */
        snrq_map_put(&vocabulary->merges, (uint64_t)(uint32_t)a << 32 | (uint32_t)b,
                     (uint64_t)index << 32 | (uint32_t)result);
        note_join(vocabulary, a, b);
    }
    free(joined.data);
    return status;
}

snrq_status snrq_vocabulary_read(const char *file, const json_t *root, snrq_vocabulary *out)
{
    char where[SNRQ_WHERE];
    json_t *model, *vocab, *merges;
    SNRQ_TRY(snrq_json_object(file, root, "model", &model));
    snprintf(where, sizeof where, "%s: model", file);
    SNRQ_TRY(check_features(where, model));
    SNRQ_TRY(snrq_json_object(where, model, "vocab", &vocab));
    SNRQ_TRY(snrq_json_array(where, model, "merges", &merges));
    SNRQ_TRY(find_size(file, vocab, json_object_get(root, "added_tokens"), &out->size));
    SNRQ_TRY(
        snrq_allocate((size_t)out->size, sizeof *out->tokens, "table of tokens", &out->tokens));
    SNRQ_TRY(read_tokens(where, vocab, out));
    SNRQ_TRY(read_fallback(where, model, out));
    return read_merges(where, merges, out);
}

int32_t snrq_vocabulary_named(const snrq_vocabulary *vocabulary, const char *text)
{
    for (int64_t i = 0; i < vocabulary->size; i++) {
        const snrq_token_text *token = &vocabulary->tokens[i];
        if (token->present && token->bytes == strlen(text) &&
            memcmp(vocabulary->texts.data + token->offset, text, token->bytes) == 0)
            return (int32_t)i;
    }
    return -1;
}

snrq_status snrq_vocabulary_add(const char *where, snrq_vocabulary *vocabulary, const char *text,
                                int32_t id, bool special)
{
    char shown[SNRQ_SHOWN];
    int32_t known = snrq_vocabulary_find(vocabulary, text, strlen(text));
    if (known >= 0 && known != id)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: \"%s\" has id %" PRId32 ", but %" PRId32 " in the vocabulary", where,
                         snrq_shown(text, shown), id, known);
    if (known < 0) SNRQ_TRY(text_add(where, vocabulary, text, id));
    vocabulary->tokens[id].special = special;
    return SNRQ_OK;
}

void snrq_vocabulary_free(snrq_vocabulary *vocabulary)
{
    free(vocabulary->tokens);
    free(vocabulary->texts.data);
    free(vocabulary->slots);
    free(vocabulary->characters.entries);
    free(vocabulary->merges.entries);
    free(vocabulary->joins.entries);
    *vocabulary = (snrq_vocabulary){0};
}
