/* Coordinate descent after the search, and the gradient that it follows.
 *
 * Symbols as in search.h; E = R - Q. The gradient of the objective is -2 G with G = E H [rows, n].
 * The best step of column j, all others fixed, is G_j / H_jj.
 *
 * G is formed once, by products of whole tiles of E with panels of H; after that, a change of a
 * code by `step` subtracts step H_k from it. Few codes change, so these updates take little time.
 * They are put off until they are needed: a panel of G is brought up to date when the descent comes
 * to it, by the changes of all other columns since it was there before.
 */
#ifndef SNRQ_REFINE_H
#define SNRQ_REFINE_H

#include "pipeline/rounding/gram_panel.h"
#include "pipeline/rounding/search.h"

/* G of a set of rows, as the last pass left it: without the changes that it made in columns in
 * front of a panel after it had been there. */
typedef struct snrq_gradient {
    float *g;         /* [rows, n] */
    uint8_t *before;  /* [rows, n] codes when a pass came to their column last */
    uint8_t *changes; /* [rows, snrq_gram_panels(n)] how many have changed since, by panel */
} snrq_gradient;

void snrq_gradient_free(snrq_gradient *gradient);

/* Descends on the objective: q_j <- nearest(Q_j + G_j / H_jj) from last to first column, at most
 * `passes` times or until a pass changes nothing on any rank. Updates codes and costs; a cost never
 * rises. What becomes of a row does not depend on the others. h: the damped Gram. *gradient, unless
 * NULL: G of the rows as they are then; the caller frees it. Collective; agreed. */
snrq_status snrq_refine(const snrq_matrix *h, int64_t passes, snrq_rows *rows,
                        snrq_gradient *gradient);

/* g [SNRQ_GRAM_PANEL] -= what columns [from, to), whole panels, of a row have changed since they
 * were `before`, times their rows of H in the panel; row k of H is row place[k] of the panel, or k
 * if place is NULL. Not collective. */
void snrq_gradient_update(const snrq_gradient *gradient, const snrq_rows *rows, int64_t row,
                          int64_t from, int64_t to, const snrq_gram_panel *panel,
                          const int32_t *place, float *g);

#endif
