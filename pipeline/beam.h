/* Internal to the search: the beams of all rows of a rank, carried from panel to panel. See
 * search.h for the symbols, search_tile.h for the pieces.
 *
 * The K beams of a row sit in K slots, in no order. A step extends each beam to its nearest grid
 * value in its own slot; then, as long as some beam's next nearest value is cheaper than the most
 * expensive extension, it takes that one's slot. Seldom more than one slot changes hands, and all
 * else is the same for every row and slot.
 *
 * The value to round is the sum of three parts: the settled columns, by one GEMM per tile and
 * panel; the recent ones up to the last strip, along the tree of beam_history.h; and the columns of
 * the strip itself, kept per slot. Costs are fp32 relative to the row's cheapest beam, in units of
 * the row, and are moved to an fp64 sum after every strip.
 */
#ifndef SNRQ_BEAM_H
#define SNRQ_BEAM_H

#include "pipeline/beam_history.h"

typedef struct snrq_beams {
    int width; /* K */
    int64_t rows, columns;
    float *errors;    /* [tiles][columns][SNRQ_TILE_ROWS] R - Q of settled columns, else 0 */
    uint8_t *codes;   /* [rows][columns] of settled columns */
    float *costs;     /* [rows / SNRQ_LANES][K][SNRQ_LANES] above base; infinite: no beam */
    double *base;     /* [rows] in units */
    double *per_unit; /* [rows] one over the unit */
    snrq_beam_history *histories; /* [rows] */
} snrq_beams;

/* One beam per row and nothing decided. d2: the weight of the first column to decide. */
snrq_status snrq_beams_create(const snrq_rows *rows, int beam, double d2, snrq_beams **out);
void snrq_beams_destroy(snrq_beams **beams);

/* Scratch of one thread: the slots of SNRQ_LANES rows in a strip. [K] of lanes, or [SNRQ_STRIP][K];
 * see beam.c. */
typedef struct snrq_beam_scratch {
    void *memory; /* owned: all that follows */
    snrq_lanes *costs, *extended, *level;
    snrq_lanes *waiting, *waiting_level, *low, *high;
    snrq_lanes *y;
    snrq_byte_lanes *codes;
    snrq_int_lanes *roots;
    snrq_lanes *values, *values_scratch; /* [rows][K] and [K]; a lane is a column */
    int32_t *parents;                    /* [K] */
} snrq_beam_scratch;

snrq_status snrq_beam_scratch_create(int beam, snrq_beam_scratch *out);
void snrq_beam_scratch_free(snrq_beam_scratch *scratch);

/* Moves what all beams of a row agree on from the histories to errors and codes; `decided`: the
 * first decided column. */
void snrq_beams_settle(snrq_beams *beams, const snrq_tile *tile, int64_t decided);

/* Carries the beams of a tile through a panel. tile->y: the panel's values with the settled columns
 * brought in. */
snrq_status snrq_beams_tile(snrq_beams *beams, const snrq_tile *tile, const snrq_panel *panel,
                            snrq_beam_scratch *scratch);

/* After the last panel: gives each row its best beam if that is cheaper than the codes and costs it
 * has. */
void snrq_beams_finish(const snrq_beams *beams, snrq_rows *rows);

#endif
