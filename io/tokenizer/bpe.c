/* Byte pair encoding of one word.
 *
 * The word becomes a list of symbols, one per character (or per byte, where a character has no
 * token). The pair of neighbours with the lowest rank is merged, the leftmost first among equals,
 * until no pair is in the table of merges. The candidates are in a binary heap of (rank, position);
 * a merge does not take the outdated candidates out, they are recognized when they come up because
 * the pair at their position is no longer the one of their rank. n symbols: O(n log n) time, about
 * 12 + 16 n bytes at most.
 *
 * SentencePiece-style files make a whole text one word. It is cut where no merge can ever reach
 * across: a merge that joins two neighbours a b puts the last character of a beside the first one
 * of b, so two characters that meet in no merge of the table stay apart. Stretches between such
 * places are merged one by one, with the same result, in memory that fits the cache.
 */
#include <stdlib.h>

#include "io/tokenizer/internal.h"

typedef struct snrq_symbol {
    int32_t id; /* -1: merged into the one before it */
    uint32_t previous, next;
} snrq_symbol;

static const uint32_t none = UINT32_MAX;
enum { FEW = 24 }; /* symbols for which the heap is not worth its while */

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static void heap_down(uint64_t *heap, size_t count, size_t at)
{
    uint64_t value = heap[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (value <= heap[child]) break;
        heap[at] = heap[child];
    }
    heap[at] = value;
}

static void heap_up(uint64_t *heap, size_t at)
{
    uint64_t value = heap[at];
    for (; at > 0 && heap[(at - 1) / 2] > value; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = value;
}

/* Appends the candidate at `position`, if its pair can be merged. The heap's order is the caller's
 * business. */
static snrq_status candidate_add(const snrq_vocabulary *vocabulary, snrq_bpe *work,
                                 uint32_t position, bool *added)
{
    const snrq_symbol *left = &work->symbols[position];
    *added = false;
    if (left->next == none) return SNRQ_OK;
    uint64_t merge =
        snrq_map_get(&vocabulary->merges, pair_key(left->id, work->symbols[left->next].id));
    if (merge == UINT64_MAX) return SNRQ_OK;
    if (work->heap_count == work->heap_capacity)
        SNRQ_TRY(snrq_grow(work->heap_count + 1, sizeof *work->heap, "merge candidates",
                           &work->heap, &work->heap_capacity));
    work->heap[work->heap_count++] = (merge & UINT64_C(0xffffffff00000000)) | position;
    *added = true;
    return SNRQ_OK;
}

static snrq_status candidate_push(const snrq_vocabulary *vocabulary, snrq_bpe *work,
                                  uint32_t position)
{
    bool added;
    SNRQ_TRY(candidate_add(vocabulary, work, position, &added));
    if (added) heap_up(work->heap, work->heap_count - 1);
    return SNRQ_OK;
}

static uint64_t candidate_pop(snrq_bpe *work)
{
    uint64_t top = work->heap[0];
    work->heap[0] = work->heap[--work->heap_count];
    if (work->heap_count > 0) heap_down(work->heap, work->heap_count, 0);
    return top;
}

static snrq_status merge_all(const snrq_vocabulary *vocabulary, snrq_bpe *work)
{
    snrq_symbol *symbols = work->symbols;
    bool added;
    work->heap_count = 0;
    for (uint32_t i = 0; i < work->count; i++) SNRQ_TRY(candidate_add(vocabulary, work, i, &added));
    for (size_t i = work->heap_count / 2; i-- > 0;) heap_down(work->heap, work->heap_count, i);

    while (work->heap_count > 0) {
        uint64_t top = candidate_pop(work);
        uint32_t position = (uint32_t)top;
        snrq_symbol *left = &symbols[position];
        if (left->id < 0 || left->next == none) continue;
        snrq_symbol *right = &symbols[left->next];
        uint64_t merge = snrq_map_get(&vocabulary->merges, pair_key(left->id, right->id));
        if (merge == UINT64_MAX || merge >> 32 != top >> 32) continue;

        left->id = (int32_t)(uint32_t)merge;
        right->id = -1;
        left->next = right->next;
        if (left->next != none) symbols[left->next].previous = position;
        if (left->previous != none) SNRQ_TRY(candidate_push(vocabulary, work, left->previous));
        SNRQ_TRY(candidate_push(vocabulary, work, position));
    }
    return SNRQ_OK;
}

/* The same for few symbols: their ranks side by side, the smallest looked for each time. */
static void merge_few(const snrq_vocabulary *vocabulary, snrq_bpe *work)
{
    snrq_symbol *symbols = work->symbols;
    uint64_t merges[FEW]; /* of symbol i and the next one */
    size_t last = work->count - 1;
    for (size_t i = 0; i < last; i++)
        merges[i] = snrq_map_get(&vocabulary->merges, pair_key(symbols[i].id, symbols[i + 1].id));
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i < last; i++)
            if (merges[i] >> 32 < merges[best] >> 32) best = i;
        if (last == 0 || merges[best] == UINT64_MAX) break;
        symbols[best].id = (int32_t)(uint32_t)merges[best];
        for (size_t i = best + 1; i < last; i++) {
            symbols[i].id = symbols[i + 1].id;
            merges[i - 1] = merges[i];
        }
        last--;
        if (best > 0)
            merges[best - 1] =
                snrq_map_get(&vocabulary->merges, pair_key(symbols[best - 1].id, symbols[best].id));
        if (best < last)
            merges[best] =
                snrq_map_get(&vocabulary->merges, pair_key(symbols[best].id, symbols[best + 1].id));
    }
    work->count = last + 1;
}

static snrq_status merge_many(const snrq_vocabulary *vocabulary, snrq_bpe *work)
{
    size_t kept = 0;
    for (size_t i = 0; i < work->count; i++) {
        work->symbols[i].previous = i > 0 ? (uint32_t)i - 1 : none;
        work->symbols[i].next = i + 1 < work->count ? (uint32_t)i + 1 : none;
    }
    SNRQ_TRY(merge_all(vocabulary, work));
    for (uint32_t i = 0; i != none; i = work->symbols[i].next)
        work->symbols[kept++].id = work->symbols[i].id;
    work->count = kept;
    return SNRQ_OK;
}

/* Merges the stretch, appends its ids and empties it. */
static snrq_status stretch_finish(const snrq_vocabulary *vocabulary, snrq_bpe *work, snrq_ids *out)
{
    int32_t key[FEW];
    size_t bytes = work->count <= FEW ? work->count * sizeof *key : 0;
    bool known;
    for (size_t i = 0; i < bytes / sizeof *key; i++) key[i] = work->symbols[i].id;
    SNRQ_TRY(snrq_cache_find(&work->stretches, key, bytes, out, &known));
    if (!known && work->count > 0) {
        int64_t before = out->used;
        if (work->count > FEW)
            SNRQ_TRY(merge_many(vocabulary, work));
        else
            merge_few(vocabulary, work);
        for (size_t i = 0; i < work->count; i++)
            SNRQ_TRY(snrq_ids_append(out, work->symbols[i].id));
        snrq_cache_put(&work->stretches, key, bytes, out, before);
    }
    work->count = 0;
    return SNRQ_OK;
}

/* Adds a symbol to the stretch, finishing the one before if no merge can join them. */
static snrq_status symbol_add(const snrq_vocabulary *vocabulary, snrq_bpe *work, int32_t id,
                              snrq_ids *out)
{
    if (work->count > 0 && vocabulary->cuttable &&
        snrq_map_get(&vocabulary->joins, pair_key(work->symbols[work->count - 1].id, id)) ==
            UINT64_MAX)
        SNRQ_TRY(stretch_finish(vocabulary, work, out));
    if (work->count == work->symbol_capacity) {
        if (work->count == none ||
            snrq_grow(work->count + 1, sizeof *work->symbols, "symbols of one word", &work->symbols,
                      &work->symbol_capacity) != SNRQ_OK)
            return snrq_fail(
                SNRQ_INTERNAL,
                "a word of more than %zu symbols is too long: cut the text into smaller files",
                work->count);
    }
    work->symbols[work->count++].id = id;
    return SNRQ_OK;
}

snrq_status snrq_bpe_encode(const snrq_vocabulary *vocabulary, snrq_bpe *work, const char *word,
                            size_t bytes, snrq_ids *out)
{
    if (vocabulary->ignore_merges) {
        int32_t whole = snrq_vocabulary_find(vocabulary, word, bytes);
        if (whole >= 0) return snrq_ids_append(out, whole);
    }
    bool after_unknown = false;
    work->count = 0;
    for (size_t position = 0; position < bytes;) {
        size_t begin = position;
        uint32_t character = snrq_utf8_next(word, &position);
        uint64_t known = snrq_map_get(&vocabulary->characters, character);
        if (known != UINT64_MAX) {
            SNRQ_TRY(symbol_add(vocabulary, work, (int32_t)known, out));
            after_unknown = false;
        } else if (vocabulary->byte_fallback) {
            for (size_t i = begin; i < position; i++) {
                int32_t id = vocabulary->byte_ids[(unsigned char)word[i]];
                SNRQ_TRY(symbol_add(vocabulary, work, id, out));
            }
        } else if (vocabulary->unknown >= 0) {
            if (!after_unknown || !vocabulary->fuse_unknown)
                SNRQ_TRY(symbol_add(vocabulary, work, vocabulary->unknown, out));
            after_unknown = true;
        }
    }
    return stretch_finish(vocabulary, work, out);
}

void snrq_bpe_free(snrq_bpe *work)
{
    free(work->symbols);
    free(work->heap);
    snrq_cache_free(&work->stretches);
    *work = (snrq_bpe){0};
}
