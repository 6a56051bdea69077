/* Words that were encoded before: most words of a text come again.
 *
 * A table of fixed size (2 MB) for one encoding: a word has one place, by its hash, and takes it
 * from the word that was there. Long words and those of many ids are not kept.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/tokenizer/internal.h"

enum { ENTRIES = 1 << 14, ENTRY_BYTES = 128, MOST_IDS = 15 };

typedef struct snrq_cache_entry {
    int32_t ids[MOST_IDS];
    char key[SNRQ_CACHE_KEY];
    uint16_t bytes, count; /* bytes 0: unused */
} snrq_cache_entry;

_Static_assert(sizeof(snrq_cache_entry) == ENTRY_BYTES, "an entry is two cache lines");

snrq_status snrq_cache_create(snrq_cache *out)
{
    return snrq_allocate(ENTRIES, sizeof *out->entries, "cache of words", &out->entries);
}

void snrq_cache_free(snrq_cache *cache)
{
    free(cache->entries);
    cache->entries = NULL;
}

static snrq_cache_entry *entry_of(const snrq_cache *cache, const void *key, size_t bytes)
{
    return &cache->entries[XXH3_64bits(key, bytes) % ENTRIES];
}

snrq_status snrq_cache_find(snrq_cache *cache, const void *key, size_t bytes, snrq_ids *out,
                            bool *found)
{
    *found = false;
    if (cache->entries == NULL || bytes == 0 || bytes > SNRQ_CACHE_KEY) return SNRQ_OK;
    const snrq_cache_entry *entry = entry_of(cache, key, bytes);
    *found = entry->bytes == bytes && memcmp(entry->key, key, bytes) == 0;
    if (!*found) return SNRQ_OK;
    for (int i = 0; i < entry->count; i++) SNRQ_TRY(snrq_ids_append(out, entry->ids[i]));
    return SNRQ_OK;
}

void snrq_cache_put(snrq_cache *cache, const void *key, size_t bytes, const snrq_ids *ids,
                    int64_t first)
{
    int64_t count = ids->used - first;
    if (cache->entries == NULL || bytes == 0 || bytes > SNRQ_CACHE_KEY || count > MOST_IDS) return;
    snrq_cache_entry *entry = entry_of(cache, key, bytes);
    memcpy(entry->key, key, bytes);
    for (int64_t i = 0; i < count; i++) entry->ids[i] = ids->data[first + i];
    entry->bytes = (uint16_t)bytes;
    entry->count = (uint16_t)count;
}
