/* Recent decisions of the beams of some rows; see beam_history.h. */
#include "pipeline/beam_history.h"

#include <stdlib.h>
#include <string.h>

enum { STRIP = SNRQ_STRIP, LANES = SNRQ_LANES };

/* Room for `capacity` nodes instead of what there is. */
static snrq_status grow_nodes(snrq_beam_history *h, int32_t capacity)
{
    size_t count = (size_t)capacity, line = sizeof *h->errors;
    size_t bytes = sizeof *h->errors + sizeof *h->codes + 2 * sizeof *h->parents + 2;
    snrq_beam_history new = *h;
    SNRQ_TRY(snrq_allocate(count * bytes + 2 * line, 1, "beam history", &new.memory));
    new.capacity = capacity;
    new.errors = (snrq_lanes *)(((uintptr_t) new.memory + line - 1) / line * line);
    new.codes = (snrq_byte_lanes *)(new.errors + count);
    new.parents = (int32_t *)(new.codes + count);
    new.moved = new.parents + count;
    new.row = (uint8_t *)(new.moved + count + 1);
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

/* Takes the marks of the nodes that settle, which are the only ones of their row in a layer and all
 * before it, and writes them. */
static void settle(snrq_beam_history *h, const snrq_settled *out)
{
    uint32_t open = 0; /* bit per row: something older is left */
    for (int layer = 0; layer < h->layers && open != (1u << LANES) - 1; layer++) {
        int64_t begin = out->decided + (int64_t)(h->layers - 1 - layer) * STRIP;
        uint32_t once = 0, twice = 0;
        for (int32_t i = h->first[layer]; i < h->first[layer + 1]; i++) {
            uint32_t row = (uint32_t)h->kept[i] << h->row[i];
            twice |= once & row;
            once |= row;
        }
        uint32_t settles = begin < out->limit ? once & ~twice & ~open : 0;
        open |= once & ~settles;
        for (int32_t i = h->first[layer]; settles != 0 && i < h->first[layer + 1]; i++) {
            if (((uint32_t)h->kept[i] << h->row[i] & settles) == 0) continue;
            write_settled(h, i, begin, out);
            h->kept[i] = 0;
        }
    }
}

/* Closes the gaps. What was dropped is moved as well, to where the next one kept then goes: no
 * branch to guess. */
static void compact(snrq_beam_history *h)
{
    snrq_lanes *errors = h->errors;
    snrq_byte_lanes *codes = h->codes;
    int32_t *restrict parents = h->parents, *restrict moved = h->moved;
    uint8_t *restrict row = h->row;
    const uint8_t *restrict kept = h->kept;
    int32_t to = 1, from = 1;
    for (int layer = 0; layer < h->layers; layer++) {
        int32_t end = h->first[layer + 1];
        h->first[layer] = to;
        for (; from < end; from++) {
            moved[from] = to & -(int32_t)kept[from];
            errors[to] = errors[from];
            codes[to] = codes[from];
            parents[to] = moved[parents[from]];
            row[to] = row[from];
            to += kept[from];
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
        settle(h, settled);
        compact(h);
    }
    for (int64_t c = 0; c < STRIP; c++)
        __builtin_prefetch(settled->errors + (settled->decided - STRIP + c) * LANES, 1);
    int32_t begin = h->first[h->layers];
    for (int r = 0; r < LANES; r++)
        for (int k = 0; k < h->width; k++) {
            int32_t i = begin + r * h->width + k;
            int32_t parent = before + r * h->width + parents[r * stride + k];
            h->row[i] = (uint8_t)r;
            h->parents[i] = tidy ? h->moved[parent] : before > 0 ? parent : 0;
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
