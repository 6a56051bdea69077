/* Recent decisions of the beams of one row; see beam_history.h. */
#include "pipeline/beam_history.h"

#include <stdlib.h>
#include <string.h>

/* Room for `capacity` nodes instead of what there is. */
static snrq_status reserve(snrq_beam_history *h, int64_t capacity)
{
    size_t count = (size_t)capacity, used = (size_t)h->first[h->layers];
    snrq_beam_node *nodes = NULL;
    int32_t *parents = NULL;
    SNRQ_TRY(snrq_allocate(count, sizeof *nodes, "beam history", &nodes));
    snrq_status status = snrq_allocate(3 * count + 1, sizeof *parents, "beam history", &parents);
    if (status != SNRQ_OK) {
        free(nodes);
        return status;
    }
    if (used > 0) memcpy(nodes, h->nodes, used * sizeof *nodes);
    if (used > 0) memcpy(parents, h->parents, used * sizeof *parents);
    free(h->nodes);
    free(h->parents);
    h->nodes = nodes;
    h->parents = parents;
    h->capacity = capacity;
    return SNRQ_OK;
}

snrq_status snrq_beam_history_create(int64_t columns, int beam, snrq_beam_history *out)
{
    *out = (snrq_beam_history){0};
    SNRQ_TRY(snrq_allocate((size_t)(columns / SNRQ_STRIP + 2), sizeof *out->first, "beam history",
                           &out->first));
    return reserve(out, 4 * (int64_t)beam);
}

void snrq_beam_history_free(snrq_beam_history *h)
{
    free(h->first);
    free(h->nodes);
    free(h->parents);
    *h = (snrq_beam_history){0};
}

/* Drops the nodes from which none of the beams to come descends. parents [count] becomes indices in
 * nodes. scratch [2 nodes + 1]. */
static void prune(snrq_beam_history *h, int count, int32_t *parents, int32_t *scratch)
{
    int32_t newest = h->first[h->layers - 1], end = h->first[h->layers], to = 0;
    int32_t *kept = scratch, *moved = scratch + end;
    memset(kept, 0, (size_t)end * sizeof *kept);
    for (int k = 0; k < count; k++) kept[newest + parents[k]] = 1;
    for (int32_t i = end - 1; i >= h->first[1]; i--) kept[h->parents[i]] |= kept[i];
    for (int32_t i = 0; i < end; i++) {
        moved[i] = to;
        to += kept[i];
    }
    moved[end] = to;
    for (int k = 0; k < count; k++) parents[k] = moved[newest + parents[k]];
    for (int layer = 1; layer <= h->layers; layer++) h->first[layer] = moved[h->first[layer]];
    /* What was dropped is moved as well, to where the next one kept then goes: no branch to guess.
     */
    for (int32_t i = 0; i < end; i++) h->parents[moved[i]] = moved[h->parents[i]];
    int32_t first = 0;
    while (first < end && kept[first]) first++;
    for (int32_t i = first; i < end; i++) h->nodes[moved[i]] = h->nodes[i];
}

snrq_status snrq_beam_history_push(snrq_beam_history *h, int count, int32_t *parents)
{
    if (h->layers > 0) prune(h, count, parents, h->parents + h->capacity);
    int32_t begin = h->first[h->layers];
    if (begin + count > h->capacity) SNRQ_TRY(reserve(h, 2 * (int64_t)(begin + count)));
    memcpy(h->parents + begin, parents, (size_t)count * sizeof *parents);
    h->first[++h->layers] = begin + count;
    return SNRQ_OK;
}

int snrq_beam_history_settled(const snrq_beam_history *h)
{
    int settled = 0;
    while (settled + 1 < h->layers && h->first[settled + 1] == settled + 1) settled++;
    return settled;
}

void snrq_beam_history_drop(snrq_beam_history *h, int layers)
{
    if (layers == 0) return; /* a layer dropped is a node dropped */
    h->layers -= layers;
    for (int layer = 0; layer <= h->layers; layer++)
        h->first[layer] = h->first[layer + layers] - layers;
    memmove(h->nodes, h->nodes + layers, (size_t)h->first[h->layers] * sizeof *h->nodes);
    for (int32_t i = 0; i < h->first[h->layers]; i++)
        h->parents[i] = i < h->first[1] ? 0 : h->parents[i + layers] - layers;
}

/* before + errors u, one lane per column. Two sums, so that they overlap. */
static inline snrq_lanes add_node(const float *errors, const snrq_lanes *u, snrq_lanes before)
{
    snrq_lanes odd = {0};
    for (int j = 0; j < SNRQ_STRIP; j += 2) {
        before = snrq_lanes_madd(snrq_lanes_all(errors[j]), u[j], before);
        odd = snrq_lanes_madd(snrq_lanes_all(errors[j + 1]), u[j + 1], odd);
    }
    return before + odd;
}

void snrq_beam_history_feed_back(const snrq_beam_history *h, const float *u, snrq_lanes *values,
                                 snrq_lanes *scratch)
{
    /* The layers take turns with the two arrays, so that the last one lands in values. */
    for (int layer = 0; layer < h->layers; layer++) {
        int younger = h->layers - 1 - layer;
        snrq_lanes *out = younger % 2 == 0 ? values : scratch;
        const snrq_lanes *in = younger % 2 == 0 ? scratch : values;
        snrq_lanes rows[SNRQ_STRIP]; /* these stay in registers, where there are enough of them */
        for (int j = 0; j < SNRQ_STRIP; j++)
            rows[j] = snrq_lanes_load(u + (younger * SNRQ_STRIP + j) * SNRQ_STRIP);
        for (int32_t i = h->first[layer]; i < h->first[layer + 1]; i++) {
            snrq_lanes before = {0};
            if (layer > 0) before = in[h->parents[i] - h->first[layer - 1]];
            out[i - h->first[layer]] = add_node(h->nodes[i].errors, rows, before);
        }
    }
}
