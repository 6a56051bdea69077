/* Internal to the search: how rows and columns are cut into pieces that fit caches and SIMD lanes.
 *
 * Columns: a panel of SNRQ_PANEL columns is what ranks exchange; inside it, strips of SNRQ_STRIP
 * columns are decided one after the other. Rows: a tile of SNRQ_TILE_ROWS rows is the unit of work;
 * arrays of a tile have rows innermost, so that all rows of a tile take a step together, lane by
 * lane. Every lane computes the same formula, whatever the width of the machine's vectors.
 *
 * What decided columns feed back is a product of a tile's errors and a strip of U, both laid out as
 * the product reads them. For a panel it is formed in two steps: from the far columns for the whole
 * panel at once, while they are in cache; then strip by strip from the near ones, those of the
 * panel itself and (for beams, which settle late) some behind it.
 */
#ifndef SNRQ_SEARCH_TILE_H
#define SNRQ_SEARCH_TILE_H

#include "mpi/algebra/lanes.h"
#include "pipeline/rounding/search.h"

enum { SNRQ_STRIP = SNRQ_LANES }; /* so that a strip's columns fill a vector, too */
_Static_assert(SNRQ_PANEL % SNRQ_STRIP == 0, "a panel is whole strips");
_Static_assert(SNRQ_TILE_ROWS % (2 * SNRQ_LANES) == 0, "a tile is whole pairs of vectors");

/* A column panel of U_ij = L_ij / L_jj (i > j, else 0) with what belongs to it, cut into strips.
 * Zero rows at the end let a last, narrower strip need no care. */
typedef struct snrq_panel {
    int64_t begin, width; /* columns [begin, begin + width) */
    int64_t below;        /* rows: columns of the layer - begin */
    float *u;             /* [SNRQ_PANEL / SNRQ_STRIP][below + SNRQ_STRIP][SNRQ_STRIP] */
    float *a_over_l;      /* alpha A_ij / L_jj (i > j, else 0; gptaq) of the same shape, or NULL */
    double d2[SNRQ_PANEL];
} snrq_panel;

/* The strip of `matrix` (u or a_over_l) that begins at column `begin` of the panel, from its row
 * `row` on: rows of SNRQ_STRIP floats. */
static inline float *snrq_panel_strip(const snrq_panel *p, float *matrix, int64_t begin,
                                      int64_t row)
{
    return matrix + begin * (p->below + SNRQ_STRIP) + row * SNRQ_STRIP;
}

/* A tile in a panel; column c of the panel, lane r. */
typedef struct snrq_tile {
    const snrq_rows *rows;
    int64_t row;         /* of the tile's first row */
    int64_t near;        /* columns before this one are near, the others are in y */
    const float *scales; /* [groups][SNRQ_TILE_ROWS] */
    const float *zeros;  /* the same shape */
    float *target;       /* [SNRQ_PANEL][SNRQ_TILE_ROWS] R */
    float *y;            /* the same shape: the values to round, as far as they are known */
    float *errors;       /* [vectors][columns][SNRQ_LANES] R - Q of decided (for beams: settled)
                            columns */
    float *m;            /* [SNRQ_PANEL][SNRQ_TILE_ROWS]: m_j, what gptaq adds to y; NULL without */
    float *values;       /* as errors: the values that were rounded (gptaq), or NULL */
} snrq_tile;

/* Writes `column` [SNRQ_TILE_ROWS] as column k of errors or values. */
static inline void snrq_tile_put(const snrq_tile *t, float *array, int64_t k, const float *column)
{
    for (int64_t lane = 0; lane < SNRQ_TILE_ROWS; lane += SNRQ_LANES)
        memcpy(array + lane * t->rows->columns + k * SNRQ_LANES, column + lane,
               SNRQ_LANES * sizeof *column);
}

/* Loads the panel's targets, and y and m with the far columns, those from `near` on, brought
 * in.
 */
void snrq_tile_begin(snrq_tile *tile, const snrq_panel *panel, int64_t near);

/* Brings the near columns from `end` of the panel on into y and m of the strip at `begin`. */
void snrq_tile_bring_in(const snrq_tile *tile, const snrq_panel *panel, int64_t begin, int64_t end);
/* The same for y of the two vectors of rows from `lane` on. */
void snrq_tile_bring_in_pair(const snrq_tile *tile, const snrq_panel *panel, int64_t begin,
                             int64_t end, int64_t lane);

/* Rounds the rows of a tile greedily in a panel: errors, codes and costs of the rows are written.
 */
void snrq_greedy_tile(snrq_tile *tile, const snrq_panel *panel, snrq_search_kind kind);

#endif
