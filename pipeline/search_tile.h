/* Internal to the search: how rows and columns are cut into pieces that fit caches and SIMD lanes.
 *
 * Columns: a panel of SNRQ_BLOCK columns is what ranks exchange and what one large GEMM brings in;
 * inside it, strips of SNRQ_STRIP columns are decided one after the other. Rows: a tile of
 * SNRQ_TILE_ROWS rows is the unit of work; arrays of a tile have rows innermost, so that all rows
 * of a tile take a step together, lane by lane. Every lane computes the same formula, whatever the
 * width of the machine's vectors.
 */
#ifndef SNRQ_SEARCH_TILE_H
#define SNRQ_SEARCH_TILE_H

#include "pipeline/lanes.h"
#include "pipeline/search.h"

enum { SNRQ_STRIP = SNRQ_LANES }; /* so that a strip's columns fill a vector, too */
_Static_assert(SNRQ_BLOCK % SNRQ_STRIP == 0, "a panel is whole strips");
_Static_assert(SNRQ_TILE_ROWS % SNRQ_LANES == 0, "a tile is whole vectors");

/* A column panel of U = L_{begin+i, begin+c} / L_{begin+c, begin+c} where i > c, else 0, with what
 * belongs to it. `strips` is u cut so that the rows of a strip are neighbours in cache; its zero
 * rows at the end let a last, narrower strip need no care. */
typedef struct snrq_panel {
    int64_t begin, width; /* columns [begin, begin + width) */
    int64_t below;        /* rows of u: columns - begin */
    float *u;             /* [below][SNRQ_BLOCK] */
    float *strips;        /* [SNRQ_BLOCK / SNRQ_STRIP][below + SNRQ_STRIP][SNRQ_STRIP] */
    float
        *mismatch; /* [below][SNRQ_BLOCK] alpha A_ij / L_jj where i > c, else 0 (gptaq), or NULL */
    double d2[SNRQ_BLOCK];
} snrq_panel;

/* u from row `row` on in the strip that begins at column `begin`: rows of SNRQ_STRIP floats. */
static inline const float *snrq_panel_strip(const snrq_panel *p, int64_t begin, int64_t row)
{
    return p->strips + begin * (p->below + SNRQ_STRIP) + row * SNRQ_STRIP;
}

/* A tile in a panel; column c of the panel, lane r. */
typedef struct snrq_tile {
    const snrq_rows *rows;
    int64_t row;         /* of the tile's first row */
    const float *scales; /* [groups][SNRQ_TILE_ROWS] */
    const float *zeros;  /* the same shape */
    float *target;       /* [SNRQ_BLOCK][SNRQ_TILE_ROWS] R */
    float *y;            /* the same shape: the values to round, as far as they are known */
    float *shift;        /* the same shape: what gptaq adds to them; NULL without */
    float *values; /* [columns][SNRQ_TILE_ROWS] the values that were rounded (gptaq), or NULL */
} snrq_tile;

/* Rounds the rows of a tile greedily in a panel: tile->y (used up) holds the panel's values with
 * all decided columns brought in; errors [columns][SNRQ_TILE_ROWS] receives R - Q, and codes and
 * costs of the rows are written. */
void snrq_greedy_tile(const snrq_tile *tile, const snrq_panel *panel, snrq_rounding rounding,
                      float *errors);

#endif
