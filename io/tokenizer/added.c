/* Added tokens: strings that become one token wherever they occur, before anything else is done.
 *
 * Two sets: those looked for in the text as it is, and those looked for in normalized text. A match
 * is the leftmost, and of those the longest. The flags of a token then act on it: single_word
 * discards a match that touches a word character, lstrip and rstrip make it swallow white space
 * before and behind.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"

/* One entry of added_tokens as the file has it. */
typedef struct added_entry {
    const char *content; /* borrowed */
    snrq_added_token token;
    bool normalized;
} added_entry;

static snrq_status entry_read(const char *file, size_t index, const json_t *object,
                              snrq_vocabulary *vocabulary, added_entry *out)
{
    char where[SNRQ_WHERE];
    int64_t id;
    bool special;
    snprintf(where, sizeof where, "%s: added_tokens[%zu]", file, index);
    SNRQ_TRY(snrq_json_integer(where, object, "id", 0, vocabulary->size - 1, NULL, &id));
    SNRQ_TRY(snrq_json_string(where, object, "content", NULL, &out->content));
    SNRQ_TRY(snrq_json_boolean(where, object, "special", false, &special));
    SNRQ_TRY(snrq_json_boolean(where, object, "normalized", !special, &out->normalized));
    SNRQ_TRY(snrq_json_boolean(where, object, "single_word", false, &out->token.single_word));
    SNRQ_TRY(snrq_json_boolean(where, object, "lstrip", false, &out->token.left_strip));
    SNRQ_TRY(snrq_json_boolean(where, object, "rstrip", false, &out->token.right_strip));
    out->token.id = (int32_t)id;
    if (out->content[0] == '\0') return snrq_fail(SNRQ_BAD_DATA, "%s: content is empty", where);
    return snrq_vocabulary_add(where, vocabulary, out->content, out->token.id, special);
}

/* The bytes to look for are appended to `spellings`, ended by a NUL. */
static snrq_status entry_spell(const char *file, const added_entry *entry,
                               const snrq_normalizer *normalizer, snrq_buffer *spellings)
{
    snrq_buffer text = {0}, scratch = {0};
    size_t bytes = strlen(entry->content);
    snrq_status status = SNRQ_OK;
    if (entry->normalized)
        status = snrq_normalize(normalizer, entry->content, bytes, &text, &scratch);
    else
        status = snrq_buffer_append(&text, entry->content, bytes);
    if (status == SNRQ_OK && text.used > SNRQ_MAX_ADDED_BYTES)
        status = snrq_fail(SNRQ_BAD_DATA,
                           "%s: added_tokens: the token of id %" PRId32
                           " has %zu bytes, expected at most %d",
                           file, entry->token.id, text.used, SNRQ_MAX_ADDED_BYTES);
    if (status == SNRQ_OK) status = snrq_buffer_append(spellings, text.data, text.used);
    if (status == SNRQ_OK) status = snrq_buffer_append(spellings, "", 1);
    free(text.data);
    free(scratch.data);
    return status;
}

/* Builds the trie. spellings: set->count strings, one behind the other. */
static snrq_status trie_build(const char *file, snrq_added_set *set, const snrq_buffer *spellings)
{
    char shown[SNRQ_SHOWN];
    uint64_t nodes = 1;
    if (set->count == 0) return SNRQ_OK;
    SNRQ_TRY(snrq_map_create(spellings->used, "trie of added tokens", &set->edges));
    SNRQ_TRY(
        snrq_allocate(spellings->used + 1, sizeof *set->ends, "trie of added tokens", &set->ends));
    memset(set->ends, 0xff, (spellings->used + 1) * sizeof *set->ends);
    const char *spelling = spellings->data;
    for (size_t i = 0; i < set->count; i++, spelling += strlen(spelling) + 1) {
        uint64_t node = 0;
        set->first[(unsigned char)spelling[0]] = true;
        for (const char *c = spelling; *c != '\0'; c++) {
            uint64_t edge = node << 8 | (unsigned char)*c;
            node = snrq_map_get(&set->edges, edge);
            if (node != UINT64_MAX) continue;
            node = nodes++;
            snrq_map_put(&set->edges, edge, node);
        }
        if (node == 0 || set->ends[node] >= 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: added_tokens: \"%s\" is there twice, or vanishes",
                             file, snrq_shown(spelling, shown));
        set->ends[node] = (int32_t)i;
    }
    return SNRQ_OK;
}

snrq_status snrq_added_read(const char *file, const json_t *root, const snrq_normalizer *normalizer,
                            snrq_vocabulary *vocabulary, snrq_added_set *raw,
                            snrq_added_set *normalized)
{
    json_t *list = json_object_get(root, "added_tokens"), *object;
    size_t i, count = json_array_size(list);
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"added_tokens\": expected an array, found %s",
                         file, snrq_json_kind(list));
    SNRQ_TRY(snrq_allocate(count, sizeof *raw->tokens, "added tokens", &raw->tokens));
    SNRQ_TRY(snrq_allocate(count, sizeof *raw->tokens, "added tokens", &normalized->tokens));
    snrq_buffer spellings[2] = {{0}, {0}};
    snrq_status status = SNRQ_OK;
    json_array_foreach(list, i, object)
    {
        added_entry entry;
        status = entry_read(file, i, object, vocabulary, &entry);
        if (status != SNRQ_OK) break;
        snrq_added_set *set = entry.normalized ? normalized : raw;
        set->tokens[set->count++] = entry.token;
        status = entry_spell(file, &entry, normalizer, &spellings[entry.normalized]);
        if (status != SNRQ_OK) break;
    }
    if (status == SNRQ_OK) status = trie_build(file, raw, &spellings[0]);
    if (status == SNRQ_OK) status = trie_build(file, normalized, &spellings[1]);
    free(spellings[0].data);
    free(spellings[1].data);
    return status;
}

void snrq_added_free(snrq_added_set *set)
{
    free(set->tokens);
    free(set->edges.entries);
    free(set->ends);
    *set = (snrq_added_set){0};
}

static snrq_status piece_append(snrq_text_pieces *pieces, size_t begin, size_t end, int32_t id)
{
    if (begin >= end && id < 0) return SNRQ_OK;
    SNRQ_TRY(snrq_grow(pieces->used + 1, sizeof *pieces->data, "pieces of text", &pieces->data,
                       &pieces->capacity));
    pieces->data[pieces->used++] = (snrq_text_piece){begin, end, id};
    return SNRQ_OK;
}

/* The longest token that begins at `begin`: its index and end, or -1. */
static int32_t longest_match(const snrq_added_set *set, const char *text, size_t bytes,
                             size_t begin, size_t *end)
{
    int32_t found = -1;
    uint64_t node = 0;
    for (size_t i = begin; i < bytes; i++) {
        node = snrq_map_get(&set->edges, node << 8 | (unsigned char)text[i]);
        if (node == UINT64_MAX) break;
        if (set->ends[node] < 0) continue;
        found = set->ends[node];
        *end = i + 1;
    }
    return found;
}

static bool stands_alone(const char *text, size_t bytes, size_t begin, size_t end)
{
    size_t before = begin > 0 ? snrq_utf8_before(text, begin) : 0, after = end;
    if (begin > 0 && snrq_is_word(snrq_utf8_next(text, &before))) return false;
    return end == bytes || !snrq_is_word(snrq_utf8_next(text, &after));
}

static size_t strip_left(const char *text, size_t floor, size_t begin)
{
    while (begin > floor) {
        size_t before = snrq_utf8_before(text, begin), position = before;
        if (!snrq_is_space(snrq_utf8_next(text, &position))) break;
        begin = before;
    }
    return begin;
}

static size_t strip_right(const char *text, size_t bytes, size_t end)
{
    while (end < bytes) {
        size_t position = end;
        if (!snrq_is_space(snrq_utf8_next(text, &position))) break;
        end = position;
    }
    return end;
}

snrq_status snrq_added_cut(const snrq_added_set *set, const char *text, size_t bytes,
                           snrq_text_pieces *out)
{
    size_t done = 0, position = 0;
    while (set->count > 0 && position < bytes) {
        size_t begin = position, end = 0;
        if (!set->first[(unsigned char)text[begin]]) {
            position++;
            continue;
        }
        int32_t index = longest_match(set, text, bytes, begin, &end);
        if (index < 0) {
            position++;
            continue;
        }
        /* The search goes on behind the match itself, also when it is discarded or has swallowed
         * more. */
        position = end;
        const snrq_added_token *token = &set->tokens[index];
        if (token->single_word && !stands_alone(text, bytes, begin, end)) continue;
        if (token->left_strip) begin = strip_left(text, done, begin);
        if (token->right_strip) end = strip_right(text, bytes, end);
        SNRQ_TRY(piece_append(out, done, begin, -1));
        SNRQ_TRY(piece_append(out, begin, end, token->id));
        done = end;
    }
    return piece_append(out, done, bytes, -1);
}
