/* Recent decisions of the beams of one row; see beam_history.h. */
#include "pipeline/beam_history.h"

#include <stdlib.h>
#include <string.h>

enum { DROPPED = -1 };

snrq_status snrq_beam_history_create(int64_t columns, int beam, snrq_beam_history *out)
{
    *out = (snrq_beam_history){.capacity = 4 * (int64_t)beam};
    SNRQ_TRY(snrq_allocate((size_t)(columns / SNRQ_STRIP + 2), sizeof *out->first, "beam history",
                           &out->first));
    return snrq_allocate((size_t)out->capacity, sizeof *out->nodes, "beam history", &out->nodes);
}

void snrq_beam_history_free(snrq_beam_history *h)
{
    free(h->first);
    free(h->nodes);
    *h = (snrq_beam_history){0};
}

/* Drops the nodes from which none of the beams to come descends. parents [count] becomes indices in
 * nodes. */
static void prune(snrq_beam_history *h, int count, int32_t *parents)
{
    snrq_beam_node *nodes = h->nodes;
    int32_t newest = h->first[h->layers - 1], end = h->first[h->layers], kept = 0, i = 0;
    for (i = 0; i < end; i++) nodes[i].moved = DROPPED;
    for (int k = 0; k < count; k++) nodes[newest + parents[k]].moved = 0;
    for (i = end - 1; i >= h->first[1]; i--)
        if (nodes[i].moved != DROPPED) nodes[nodes[i].parent].moved = 0;
    i = 0;
    for (int layer = 0; layer < h->layers; layer++) {
        for (end = h->first[layer + 1]; i < end; i++) {
            if (nodes[i].moved == DROPPED) continue;
            if (layer > 0) nodes[i].parent = nodes[nodes[i].parent].moved;
            nodes[i].moved = kept++;
        }
        h->first[layer + 1] = kept;
    }
    for (int k = 0; k < count; k++) parents[k] = nodes[newest + parents[k]].moved;
    for (i = 0; i < end; i++)
        if (nodes[i].moved != DROPPED && nodes[i].moved != i) nodes[nodes[i].moved] = nodes[i];
}

static snrq_status reserve(snrq_beam_history *h, int64_t count)
{
    snrq_beam_node *nodes = NULL;
    if (count <= h->capacity) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)(2 * count), sizeof *nodes, "beam history", &nodes));
    memcpy(nodes, h->nodes, (size_t)h->first[h->layers] * sizeof *nodes);
    free(h->nodes);
    h->nodes = nodes;
    h->capacity = 2 * count;
    return SNRQ_OK;
}

snrq_status snrq_beam_history_push(snrq_beam_history *h, int count, int32_t *parents,
                                   snrq_beam_node **out)
{
    if (h->layers > 0) prune(h, count, parents);
    int32_t begin = h->first[h->layers];
    SNRQ_TRY(reserve(h, begin + count));
    *out = h->nodes + begin;
    for (int k = 0; k < count; k++) (*out)[k].parent = parents[k];
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
    for (int32_t i = 0; i < h->first[h->layers]; i++) h->nodes[i].parent -= layers;
}

/* before + errors u, one lane per column. Two sums, so that they overlap. */
static snrq_lanes add_node(const float *errors, const float *u, snrq_lanes before)
{
    snrq_lanes odd = {0};
    for (int j = 0; j < SNRQ_STRIP; j += 2, u += 2 * SNRQ_BLOCK) {
        before = snrq_lanes_madd(snrq_lanes_all(errors[j]), snrq_lanes_load(u), before);
        odd = snrq_lanes_madd(snrq_lanes_all(errors[j + 1]), snrq_lanes_load(u + SNRQ_BLOCK), odd);
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
        for (int32_t i = h->first[layer]; i < h->first[layer + 1]; i++) {
            const snrq_beam_node *node = &h->nodes[i];
            snrq_lanes before = {0};
            if (layer > 0) before = in[node->parent - h->first[layer - 1]];
            out[i - h->first[layer]] =
                add_node(node->errors, u + younger * SNRQ_STRIP * SNRQ_BLOCK, before);
        }
    }
}
