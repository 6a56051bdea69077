/* Internal to the search: what the beams of one row decided in recent columns.
 *
 * A tree in layers, one layer per decided strip of columns, oldest first. A node is what a beam
 * chose in its strip; its parent, in the layer before, is the beam it extends. The nodes of the
 * newest layer are the beams themselves; of the older ones only those are kept that some beam
 * descends from, which after a few strips is one. Oldest layers of one node are common to all
 * beams: settled.
 */
#ifndef SNRQ_BEAM_HISTORY_H
#define SNRQ_BEAM_HISTORY_H

#include "pipeline/search_tile.h"

typedef struct snrq_beam_node {
    float errors[SNRQ_STRIP]; /* R - Q; 0 beyond the last column */
    uint8_t codes[SNRQ_STRIP];
} snrq_beam_node;

typedef struct snrq_beam_history {
    int layers;
    int32_t *first;        /* [columns / SNRQ_STRIP + 2] where each layer starts in nodes; owned */
    int64_t capacity;      /* in nodes */
    snrq_beam_node *nodes; /* owned */
    int32_t *parents; /* [capacity] of each node, in nodes; any in the oldest layer; then scratch
                         [2 capacity + 1]; owned */
} snrq_beam_history;

/* Nothing here is collective. */
snrq_status snrq_beam_history_create(int64_t columns, int beam, snrq_beam_history *out);
void snrq_beam_history_free(snrq_beam_history *history);

/* Adds a layer of `count` beams, of which beam k extends beam parents[k] of the newest layer (there
 * may be none yet), and drops what is no longer an ancestor. parents [count] is used up. The
 * newest layer's nodes are to be filled in by the caller. */
snrq_status snrq_beam_history_push(snrq_beam_history *history, int count, int32_t *parents);

static inline snrq_beam_node *snrq_beam_history_newest(const snrq_beam_history *history)
{
    return history->nodes + history->first[history->layers - 1];
}

/* How many of the oldest layers are settled; their nodes are the first ones. */
int snrq_beam_history_settled(const snrq_beam_history *history);
/* Removes that many settled layers. */
void snrq_beam_history_drop(snrq_beam_history *history, int layers);

/* values [beams]: the sum of the errors times u over all columns of the history for each beam of
 * the newest layer, one lane per column. u [..][SNRQ_STRIP] begins at the newest layer's first
 * column; scratch is of the size of values. */
void snrq_beam_history_feed_back(const snrq_beam_history *history, const float *u,
                                 snrq_lanes *values, snrq_lanes *scratch);

#endif
