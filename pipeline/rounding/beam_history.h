/* Internal to the search: what the beams of SNRQ_LANES rows decided in recent columns.
 *
 * Trees in layers, one layer per decided strip of columns, oldest first. A node is what a beam
 * chose in its strip; its parent, in the layer before, is the beam it extends. The nodes of the
 * newest layer are the beams themselves; of the older ones only those are kept that some beam
 * descends from, which after a few strips is one per row. Such a node is settled when nothing older
 * of its row is left: it leaves the history, and its children have no parent.
 *
 * The nodes of all rows stand together, layer by layer, because long loops over neighbours are what
 * the machine is good at: with every second new layer all that is kept moves up.
 */
#ifndef SNRQ_BEAM_HISTORY_H
#define SNRQ_BEAM_HISTORY_H

#include "pipeline/rounding/beam_shape.h"
#include "pipeline/rounding/search_tile.h"

typedef struct snrq_beam_history {
    int width; /* K: the newest layer has K nodes per row, row by row */
    int layers, room;
    bool untidy;        /* the newest layer but one was not tidied up */
    int32_t *first;     /* [room + 1] where each layer starts, and the end of the last one; owned */
    int32_t capacity;   /* in nodes; node 0 is none: no errors, in no layer */
    void *memory;       /* owned: all that follows, per node */
    snrq_lanes *errors; /* R - Q of the strip's columns; 0 beyond the last column */
    snrq_byte_lanes *codes; /* of the same columns */
    int32_t *parents;       /* node, 0: none left */
    int32_t *moved;         /* scratch [capacity + 1]: where a node is now, 0: nowhere */
    int32_t *from;          /* scratch [capacity + 1]: where it was before */
    uint8_t *row;
    uint8_t *kept; /* scratch */
} snrq_beam_history;

/* Nothing here is collective. */
snrq_status snrq_beam_history_create(int width, snrq_beam_history *out);
void snrq_beam_history_free(snrq_beam_history *history);

/* Where nodes go that settle. */
typedef struct snrq_settled {
    int64_t decided, limit; /* first decided column; columns from limit on may not settle now */
    int64_t columns;        /* of the layer */
    float *errors;          /* [columns][SNRQ_LANES] */
    uint8_t *codes;         /* [SNRQ_LANES][columns] */
} snrq_settled;

/* Adds a layer, in which beam k of row r extends beam parents[r * stride + k] of the newest layer
 * (there may be none yet), and removes what is no longer an ancestor or settles. The caller fills
 * in errors and codes of the new nodes. */
snrq_status snrq_beam_history_push(snrq_beam_history *history, const uint8_t *parents, int stride,
                                   const snrq_settled *settled);

/* The first node of the newest layer. */
static inline int32_t snrq_beam_history_newest(const snrq_beam_history *h)
{
    return h->first[h->layers - 1];
}

/* sums [nodes]: for each node, what it and its ancestors feed back to a strip: errors times u, one
 * lane per column. u [..][SNRQ_STRIP] begins at the newest layer's first column. */
void snrq_beam_history_feed_back(const snrq_beam_history *history, const float *u,
                                 snrq_lanes *sums);

#endif
