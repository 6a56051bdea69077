/* Internal to the search: the beams of all rows of a rank, carried from panel to panel. See
 * search.h for the symbols, search_tile.h for the pieces.
 *
 * The K beams of a row sit in K slots, in no order. A column extends each beam by the two levels
 * next to its value, seldom by more, and fills the slots with the K cheapest extensions.
 *
 * Slots are lanes. With P slots per row (K rounded up to a power of 2), a vector holds all slots of
 * R = SNRQ_LANES / P rows, lane = slot * R + row; for P > SNRQ_LANES a row has V = P / SNRQ_LANES
 * vectors, slot = lane * V + vector. So beams change slots within a row's vectors: SNRQ_LANES rows
 * are always P vectors. To be sorted, costs are turned: slots become vectors, rows lanes.
 *
 * The value to round is the sum of three parts: the settled columns, by the products of
 * search_tile.h; the recent ones up to the last strip, along the tree of beam_history.h; and the
 * columns of the strip itself, kept per slot. Costs are fp32 relative to the row's cheapest beam,
 * in units of the row, and are moved to an fp64 sum after every strip. To be sorted, their last few
 * bits make room for what they are the cost of.
 */
#ifndef SNRQ_BEAM_H
#define SNRQ_BEAM_H

#include "pipeline/rounding/beam_history.h"

typedef struct snrq_beams {
    int width; /* K */
    int slots; /* P */
    int64_t rows;
    snrq_lanes *costs; /* [rows / SNRQ_LANES][P] above base; infinite: no beam */
    void *costs_memory;
    double *base;                 /* [rows] in units */
    float *per_scale;             /* [rows] one over the largest scale */
    double d2;                    /* weight of the first column; unit: d2 times scale squared */
    snrq_beam_history *histories; /* [rows / SNRQ_LANES] */
} snrq_beams;

/* One beam per row and nothing decided. d2: the weight of the first column to decide. */
snrq_status snrq_beams_create(const snrq_rows *rows, int beam, double d2, snrq_beams **out);
void snrq_beams_destroy(snrq_beams **beams);

/* Scratch of one thread: SNRQ_LANES rows in a strip. */
typedef struct snrq_beam_scratch {
    void *memory;          /* owned: all that follows */
    snrq_lanes *costs;     /* [P] */
    snrq_lanes *y, *level; /* [SNRQ_STRIP][P] values to round, chosen levels */
    snrq_int_lanes *from;  /* [SNRQ_STRIP][P] number of the lane a beam was in before that column */
    snrq_lanes *traced;    /* [SNRQ_STRIP][P] levels of the beams as they are after the strip */
    uint8_t *parents;      /* [rows][P] */
    void *sums_memory;     /* owned */
    snrq_lanes *sums;      /* [sums_room] by node of a history */
    int32_t sums_room;
} snrq_beam_scratch;

snrq_status snrq_beam_scratch_create(const snrq_beams *beams, snrq_beam_scratch *out);
void snrq_beam_scratch_free(snrq_beam_scratch *scratch);

/* Carries the beams of a tile through a panel. */
snrq_status snrq_beams_tile(snrq_beams *beams, snrq_tile *tile, const snrq_panel *panel,
                            snrq_beam_scratch *scratch);

/* After the last panel: writes each row's cheapest beam to its codes and costs. */
void snrq_beams_finish(const snrq_beams *beams, snrq_rows *rows);

#endif
