/* A hash map from integers to integers: open addressing, linear probing, at most half full. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/internal.h"

static size_t slot_of(const snrq_map *map, uint64_t key)
{
    key ^= key >> 32;
    key *= UINT64_C(0xd6e8feb86659fd93);
    key ^= key >> 32;
    return (size_t)key & map->mask;
}

snrq_status snrq_map_create(size_t count, const char *what, snrq_map *map)
{
    size_t slots = 16;
    while (slots / 2 < count) slots *= 2;
    SNRQ_TRY(snrq_allocate(slots, sizeof *map->entries, what, &map->entries));
    memset(map->entries, 0xff, slots * sizeof *map->entries);
    map->mask = slots - 1;
    return SNRQ_OK;
}

void snrq_map_put(snrq_map *map, uint64_t key, uint64_t value)
{
    size_t slot = slot_of(map, key);
    while (map->entries[slot].key != key && map->entries[slot].key != UINT64_MAX)
        slot = (slot + 1) & map->mask;
    map->entries[slot] = (snrq_map_entry){key, value};
}

uint64_t snrq_map_get(const snrq_map *map, uint64_t key)
{
    for (size_t slot = slot_of(map, key);; slot = (slot + 1) & map->mask) {
        const snrq_map_entry *entry = &map->entries[slot];
        /* The value of an unused entry is UINT64_MAX, too. */
        if (entry->key == key || entry->key == UINT64_MAX) return entry->value;
    }
}
