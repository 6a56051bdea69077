/* Successive rounding and its beam search (SNRQ, K-SNRQ; arXiv 2602.05902).
 *
 * Symbols, all in decision order p (columns are decided from n - 1 down to 0):
 *   R [rows, n]   rounding target
 *   H = L L^T     [n, n] damped Gram and its lower Cholesky factor
 *   U_ij = L_ij / L_jj (i > j), d_j = L_jj
 *   K             beam width
 *   y_j = R_j + sum_{i>j} (R_i - Q_i) U_ij   the value to round at column j, given what was decided
 *   d_j^2 (y_j - q)^2   cost of choosing q; the sum over j is (Q - R) H (Q - R)^T of the row
 * Greedy takes the nearest value. The beam keeps the K cheapest partial roundings of a row over all
 * columns; each is extended by every grid value, the K cheapest extensions survive. It is better
 * than greedy in sum, not for every row.
 * Ties: of extensions of equal cost, the lower level next to y_j goes before the higher one, on the
 * same side the parent that stands first in the beam decides, and a level further away replaces
 * nothing of equal cost. Costs are compared without their last bits, a few parts in a million (up
 * to 60 for K > 32); that and the order in which a beam stands differ from the twin's, which
 * compares all of the cost and sorts its beams: beam_column.h, snrq_extension_key.
 *
 * Work: the ranks hold disjoint rows in fixed tiles; column panels of L are broadcast from last to
 * first; the tiles of a rank are shared out among OpenMP threads. Products of fixed shape bring in
 * the columns on which all beams of a row agree once for all of them; beams differ only in some
 * recent columns, which are added per beam (beam.h). This is exact: no beam is ever cut. Memory per
 * row: n floats and K errors and codes per column in which its beams may differ.
 */
#ifndef SNRQ_SEARCH_H
#define SNRQ_SEARCH_H

#include "mpi/algebra/matrix.h"
#include "pipeline/rounding/quant_grid.h"

enum { SNRQ_TILE_ROWS = 64 };

/* A set of rows to round, in decision order. Arrays are padded to whole tiles: rows is a multiple
 * of SNRQ_TILE_ROWS, padding rows are zero targets with scale 1. */
typedef struct snrq_rows {
    int64_t rows, columns;
    int bits;
    const float *levels; /* a code book (mpi/algebra/weight_format.h), zeros being 0; or NULL */
    int top;             /* the last code */
    const snrq_groups *groups; /* borrowed */
    float tensor_scale;        /* what all scales are multiples of, or 1 */
    float *target;  /* R [rows, columns]; plus the minimum of the group, if there are any:
                       (R + m) - s (c - z) is what R - Q is */
    float *scales;  /* [rows, groups] */
    uint8_t *zeros; /* [rows, groups] */
    float *minima;  /* [rows, groups] of a format that has them, else NULL */
    uint8_t *codes; /* [rows, columns] result */
    double *costs;  /* [rows] result: the row's objective */
} snrq_rows;

typedef enum snrq_search_kind {
    SNRQ_ROUND_NEAREST, /* q_j nearest to R_j: no error feedback (rtn) */
    SNRQ_ROUND_FEEDBACK /* q_j nearest to y_j, or the beam over it */
} snrq_search_kind;

/* Allocates rows padded to whole tiles (zeros, scale 1). Not collective. */
snrq_status snrq_rows_create(int64_t rows, int bits, const snrq_groups *groups, snrq_rows *out);
void snrq_rows_free(snrq_rows *rows);

/* Gives rows minima, all 0. Not collective. */
snrq_status snrq_rows_add_minima(snrq_rows *rows);

/* Makes the code book that of a format; NULL: leaves integers. */
void snrq_rows_set_format(snrq_rows *rows, const snrq_weight_format *format);

/* What a code stands for, in scales. */
static inline float snrq_rows_level(const snrq_rows *r, int zero, int code)
{
    return r->levels != NULL ? r->levels[code] : (float)(code - zero);
}

/* Value of the code at (row, position), before a minimum is taken off. */
static inline float snrq_rows_value(const snrq_rows *r, int64_t row, int64_t k)
{
    int64_t g = row * r->groups->count + r->groups->of_position[k];
    return r->scales[g] * snrq_rows_level(r, r->zeros[g], r->codes[row * r->columns + k]);
}

/* The code nearest to x scales. */
static inline int snrq_rows_nearest(const snrq_rows *r, float x, float scale, int zero)
{
    return r->levels != NULL ? snrq_nearest_level(r->levels, r->top, x / scale)
                             : snrq_nearest_code(x, scale, zero, r->top);
}

/* The minimum there; 0 if there are none. */
static inline float snrq_rows_minimum(const snrq_rows *r, int64_t row, int64_t k)
{
    return r->minima == NULL ? 0.0f : r->minima[row * r->groups->count + r->groups->of_position[k]];
}

/* Minima of a row [groups] become others: so does its target. */
void snrq_rows_set_minima(snrq_rows *rows, int64_t row, const float *minima);

/* Rounds all rows. l: the factor L [n, n]; beam 1 is greedy. Collective over l's context (each rank
 * with its own rows, possibly none); agreed. */
snrq_status snrq_search(const snrq_matrix *l, snrq_search_kind kind, int beam, snrq_rows *rows);

/* The panels of L as a search reads them, kept for the next ones with the same L: they are neither
 * brought from their owners nor cut again. About 2 n^2 bytes on every rank. */
typedef struct snrq_kept_panels {
    bool filled;
    float *u;   /* panel by panel, from the first column on; owned */
    double *d2; /* [n] owned */
} snrq_kept_panels;

/* Makes room for the panels of an L [n, n]. Not collective. */
snrq_status snrq_kept_panels_create(int64_t columns, snrq_kept_panels *out);
void snrq_kept_panels_free(snrq_kept_panels *kept);
/* Bytes of them. */
size_t snrq_kept_panels_bytes(int64_t columns);

/* snrq_search(); the first one fills `kept`, those that follow use it. */
snrq_status snrq_search_kept(const snrq_matrix *l, snrq_kept_panels *kept, snrq_search_kind kind,
                             int beam, snrq_rows *rows);

/* What GPTQ and GPTAQ add to the greedy recursion. */
typedef struct snrq_gptq {
    /* Each group's grid is fitted to the values to round, R_j + feedback, when its first column is
     * about to be decided. Groups must be runs of positions (snrq_groups.runs) and more than one;
     * NULL: grids as given. */
    const snrq_rule *refit;
    /* GPTAQ: A = D L^-T [n, n], or NULL. The value to round is y_j + m_j with m_j = alpha sum_{i>j}
     * v_i A_ij / L_jj and v_i = y_i + m_i, the value that was rounded at i. (With V = the upper
     * Cholesky factor of H^-1 in the order of decision, this is GPTAQ's P = alpha striu(D V^T) V,
     * arXiv 2504.02692, brought into the form of the recursion here by (I + U): y = W + (W - Q) U +
     * v P (I + U), and P (I + U) = alpha striu(D V^T) diag(1 / L_jj).) */
    const snrq_matrix *a;
    double alpha;
} snrq_gptq;

/* Rounds all rows by GPTQ or GPTAQ; scales and zeros of `rows` are updated where they are refitted.
 * The costs are still (Q - R) H (Q - R)^T. Collective; agreed. */
snrq_status snrq_search_gptq(const snrq_matrix *l, const snrq_gptq *gptq, snrq_rows *rows);

/* Twin of snrq_search on one row with L as a dense fp64 [n, n] column-major matrix: every beam
 * keeps its whole history, every candidate is looked at. For tests. */
snrq_status snrq_search_reference(const double *l, snrq_search_kind kind, int beam,
                                  const snrq_rows *rows, int64_t row, uint8_t *codes, double *cost);

#endif
