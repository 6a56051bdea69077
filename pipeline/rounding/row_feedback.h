/* Row feedback: the errors of rows that matter to each other, made up for as those of columns are.
 *
 * Symbols, of a tile of SNRQ_TILE_ROWS rows:
 *   G [rows, rows]   what the rows' outputs are worth: the mean of g g^T, where g is the gradient
 * of the loss with respect to the outputs; block-diagonal if the tile has rows of several modules
 *   E = R - Q        errors of the rows, H their damped Gram, as in search.h
 *   tr(G E H E^T)    twice the loss that the errors are expected to cost: what is minimized here
 *
 * With G = M M^T (M lower) it is ||M^T E L||^2: rows are to G what columns are to H. Rows are
 * decided in blocks of SNRQ_ROW_BLOCK, from the last to the first, in an order in which those of
 * large G_ii come last; the rows of a block B do not know of each other. What the rows D decided
 * before add to a block's targets is what those that follow would be best at, if they were free:
 *
 *     R_B + M_BB^-T M_DB^T E_D
 *
 * Once all are decided, a row can be rounded again with all others as they are: the best target
 * of row i is then R_i + sum over j != i of (G_ij / G_ii) E_j. Rows that are rounded again at the
 * same time do not know of each other's new roundings. Where errors are large they should: there
 * a part of a tile's rows is taken at a time.
 *
 * Sources: Kronecker-factored Fisher, Martens and Grosse (arXiv 1503.05671); rounding with both
 * factors, YAQA (arXiv 2505.22988). docs/method.md, "Row feedback".
 */
#ifndef SNRQ_ROW_FEEDBACK_H
#define SNRQ_ROW_FEEDBACK_H

#include "pipeline/rounding/search.h"

enum { SNRQ_ROW_BLOCK = 16, SNRQ_ROW_BLOCKS = SNRQ_TILE_ROWS / SNRQ_ROW_BLOCK };

/* Rows of a tile that are rounded again at a time. */
static inline int snrq_row_part(int bits)
{
    return bits <= 2 ? SNRQ_ROW_BLOCK / 2 : SNRQ_TILE_ROWS;
}

/* A tile's coefficients; rows by the place at which they are decided. */
typedef struct snrq_tile_feedback {
    int32_t row[SNRQ_TILE_ROWS];                   /* of the tile, at each place */
    float decided[SNRQ_TILE_ROWS][SNRQ_TILE_ROWS]; /* M_BB^-T M_DB^T; 0 where j is not in D */
    float others[SNRQ_TILE_ROWS][SNRQ_TILE_ROWS];  /* G_ij / G_ii, and so 1 for i = j */
} snrq_tile_feedback;

/* From G [SNRQ_TILE_ROWS, SNRQ_TILE_ROWS], a mean over so many tokens; it is damped: a share of its
 * diagonal is added, the more, the fewer the tokens. A row with G_ii = 0 is on its own.
 * SNRQ_BAD_DATA if that is not positive definite, as a Gram matrix would be. Not collective. */
snrq_status snrq_tile_feedback_create(const float *g, int64_t tokens, snrq_tile_feedback *out);

#endif
