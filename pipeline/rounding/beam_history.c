/* Recent decisions of the beams of some rows; see beam_history.h. */
#include "pipeline/rounding/beam_history.h"

#include <stdlib.h>
#include <string.h>

enum { STRIP = SNRQ_STRIP, LANES = SNRQ_LANES };

/* Room for `capacity` nodes instead of what there is. */
static snrq_status grow_nodes(snrq_beam_history *h, int32_t capacity)
{
    size_t count = (size_t)capacity, line = sizeof *h->errors;
    size_t bytes = sizeof *h->errors + sizeof *h->codes + 3 * sizeof *h->parents + 2;
    snrq_beam_history new = *h;
    SNRQ_TRY(snrq_allocate(count * bytes + 2 * line, 1, "beam history", &new.memory));
    new.capacity = capacity;
    new.errors = (snrq_lanes *)(((uintptr_t) new.memory + line - 1) / line * line);
    new.codes = (snrq_byte_lanes *)(new.errors + count);
    new.parents = (int32_t *)(new.codes + count);
    new.moved = new.parents + count;
    new.from = new.moved + count + 1;
    new.row = (uint8_t *)(new.from + count + 1);
    new.kept = new.row + count;
    if (h->memory != NULL) {
        size_t used = (size_t)h->first[h->layers];
        memcpy(new.errors, h->errors, used * sizeof *h->errors);
        memcpy(new.codes, h->codes, used * sizeof *h->codes);
        memcpy(new.parents, h->parents, used * sizeof *h->parents);
        memcpy(new.row, h->row, used);
        free(h->memory);
    }
    *h = new;
    return SNRQ_OK;
}

static snrq_status grow_layers(snrq_beam_history *h, int room)
{
    int32_t *first = NULL;
    SNRQ_TRY(snrq_allocate((size_t)room + 1, sizeof *first, "beam history", &first));
    first[0] = 1;
    if (h->first != NULL) memcpy(first, h->first, ((size_t)h->layers + 1) * sizeof *first);
    free(h->first);
    h->first = first;
    h->room = room;
    return SNRQ_OK;
}

snrq_status snrq_beam_history_create(int width, snrq_beam_history *out)
{
    *out = (snrq_beam_history){.width = width};
    SNRQ_TRY(grow_layers(out, 8));
    return grow_nodes(out, 1 + 6 * LANES * width);
}

void snrq_beam_history_free(snrq_beam_history *h)
{
    free(h->first);
    free(h->memory);
    *h = (snrq_beam_history){0};
}

/* Marks the ancestors of the beams to come; node 0 takes what others do not mark. */
static void mark(snrq_beam_history *h, const uint8_t *restrict parents, int stride)
{
    const int32_t *parent_of = h->parents, first = h->first[0], end = h->first[h->layers];
    uint8_t *restrict kept = h->kept, *restrict newest = kept + snrq_beam_history_newest(h);
    int width = h->width;
    memset(kept, 0, (size_t)end);
    for (int r = 0; r < LANES; r++)
        for (int k = 0; k < width; k++) newest[r * width + parents[r * stride + k]] = 1;
    for (int32_t i = end - 1; i >= first; i--) kept[parent_of[i] & -(int32_t)kept[i]] = 1;
}

/* Numbers the marked nodes anew, without gaps: number i was from[i] before. Layers begin at the new
 * numbers from here on; the nodes themselves move in compact(). */
static void number(snrq_beam_history *h)
{
    const uint8_t *restrict kept = h->kept;
    int32_t *restrict from = h->from;
    int32_t to = 1, i = 1;
    for (int layer = 0; layer < h->layers; layer++) {
        int32_t end = h->first[layer + 1];
        h->first[layer] = to;
        for (; i < end; i++) {
            from[to] = i;
            to += kept[i];
        }
    }
    h->first[h->layers] = to;
}

static void write_settled(const snrq_beam_history *h, int32_t i, int64_t begin,
                          const snrq_settled *out)
{
    int64_t row = h->row[i], width = out->columns - begin < STRIP ? out->columns - begin : STRIP;
    const float *errors = (const float *)&h->errors[i];
    for (int64_t c = 0; c < width; c++) out->errors[(begin + c) * LANES + row] = errors[c];
    uint8_t *codes = out->codes + row * out->columns + begin;
    if (width == STRIP)
        memcpy(codes, &h->codes[i], STRIP); /* of a size the compiler knows */
    else
        memcpy(codes, &h->codes[i], (size_t)width);
}

/* The nodes of a layer that settle, if it `may` now: the only ones of rows that have nothing older.
 * Nodes of a row are neighbours. open: bit per row, something older is left. Returns how many; no
 * branch to guess. */
static int find_settled(const snrq_beam_history *h, int layer, bool may, uint32_t *open,
                        int32_t settled[LANES + 1])
{
    int count = 0, row = LANES;
    for (int32_t i = h->first[layer], end = h->first[layer + 1]; i < end; i++) {
        int before = row, next = i + 1 < end ? h->row[h->from[i + 1]] : LANES;
        row = h->row[h->from[i]];
        uint32_t settles = may & (row != before) & (row != next) & ~(*open >> row);
        *open |= (settles ^ 1) << row;
        settled[count] = h->from[i];
        count += (int)settles;
    }
    return count;
}

/* Takes the marks of the nodes that settle, and writes them. */
static void settle(snrq_beam_history *h, const snrq_settled *out)
{
    int32_t settled[LANES + 1];
    uint32_t open = 0;
    for (int layer = 0; layer < h->layers && open != (1u << LANES) - 1; layer++) {
        int64_t begin = out->decided + (int64_t)(h->layers - 1 - layer) * STRIP;
        int count = find_settled(h, layer, begin < out->limit, &open, settled);
        for (int i = 0; i < count; i++) {
            write_settled(h, settled[i], begin, out);
            h->kept[settled[i]] = 0;
        }
    }
}

/* Moves what is left to its place. */
static void compact(snrq_beam_history *h)
{
    snrq_lanes *errors = h->errors;
    snrq_byte_lanes *codes = h->codes;
    int32_t *restrict parents = h->parents, *restrict moved = h->moved;
    uint8_t *restrict row = h->row;
    const int32_t *restrict from = h->from;
    const uint8_t *restrict kept = h->kept;
    int32_t to = 1, i = 1;
    for (int layer = 0; layer < h->layers; layer++) {
        int32_t end = h->first[layer + 1];
        h->first[layer] = to;
        for (; i < end; i++) {
            int32_t f = from[i];
            moved[f] = to & -(int32_t)kept[f];
            errors[to] = errors[f];
            codes[to] = codes[f];
            parents[to] = moved[parents[f]];
            row[to] = row[f];
            to += kept[f];
        }
    }
    h->first[h->layers] = to;
    int gone = 0; /* oldest layers that are empty now */
    while (gone < h->layers && h->first[gone + 1] == 1) gone++;
    h->layers -= gone;
    for (int layer = 0; layer <= h->layers; layer++) h->first[layer] = h->first[layer + gone];
}

snrq_status snrq_beam_history_push(snrq_beam_history *h, const uint8_t *parents, int stride,
                                   const snrq_settled *settled)
{
    int32_t before = h->layers > 0 ? snrq_beam_history_newest(h) : 0, count = LANES * h->width;
    if (h->layers == h->room) SNRQ_TRY(grow_layers(h, 2 * h->room));
    if (h->first[h->layers] + count > h->capacity) SNRQ_TRY(grow_nodes(h, 2 * h->capacity));
    bool tidy = h->layers > 0 && h->untidy;
    h->untidy = h->layers > 0 && !h->untidy;
    if (tidy) {
        mark(h, parents, stride);
        number(h);
        settle(h, settled);
        compact(h);
    }
    for (int64_t c = 0; c < STRIP; c++)
        __builtin_prefetch(settled->errors + (settled->decided - STRIP + c) * LANES, 1);
    int32_t begin = h->first[h->layers];
    for (int r = 0; r < LANES; r++) {
        int32_t *restrict parent = h->parents + begin + r * h->width;
        memset(h->row + begin + r * h->width, r, (size_t)h->width);
        for (int k = 0; k < h->width; k++)
            parent[k] = before > 0 ? before + r * h->width + parents[r * stride + k] : 0;
        for (int k = 0; tidy && k < h->width; k++) parent[k] = h->moved[parent[k]];
    }
    h->first[++h->layers] = begin + count;
    return SNRQ_OK;
}

/* before + errors u, one lane per column. Sums that overlap. */
static inline snrq_lanes add_node(const float *errors, const snrq_lanes *u, snrq_lanes before)
{
    snrq_lanes sum[4] = {before};
    for (int j = 0; j < STRIP; j += 4)
        for (int i = 0; i < 4; i++)
            sum[i] = snrq_lanes_madd(snrq_lanes_all(errors[j + i]), u[j + i], sum[i]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void snrq_beam_history_feed_back(const snrq_beam_history *h, const float *u, snrq_lanes *sums)
{
    sums[0] = (snrq_lanes){0};
    for (int layer = 0; layer < h->layers; layer++) {
        const float *strip = u + (h->layers - 1 - layer) * STRIP * STRIP;
        snrq_lanes rows[STRIP]; /* these stay in registers, where there are enough of them */
        for (int j = 0; j < STRIP; j++) rows[j] = snrq_lanes_load(strip + j * STRIP);
        for (int32_t i = h->first[layer]; i < h->first[layer + 1]; i++)
            sums[i] = add_node((const float *)&h->errors[i], rows, sums[h->parents[i]]);
    }
}
