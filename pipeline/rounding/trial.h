/* Rows that are rounded once more, apart from what was found for them before.
 *
 * A row whose new rounding is not cheaper keeps the old one. Its codes, and so its scales, would
 * come out the same from then on: it is left out of what follows, and those that are left move
 * together into whole tiles. This changes no result, since what becomes of a row does not depend on
 * the others.
 */
#ifndef SNRQ_TRIAL_H
#define SNRQ_TRIAL_H

#include "pipeline/rounding/refine.h"

/* Makes `count` rows of the same groups and format, not filled in. Not collective. */
snrq_status snrq_rows_create_like(const snrq_rows *rows, int64_t count, snrq_rows *out);

/* The rounding of a row (codes, scales, zeros, cost) becomes that of row `to` of another set of
 * rows, or of the same. Not collective. */
void snrq_rows_copy_rounding(const snrq_rows *source, int64_t from, int64_t to, snrq_rows *out);

typedef struct snrq_trial {
    snrq_rows rows; /* the first `count` and padding; owned */
    int64_t count;
    int64_t *origin; /* [count] where they are from; owned */
} snrq_trial;

/* A copy of all rows. Not collective. */
snrq_status snrq_trial_create(const snrq_rows *rows, snrq_trial *out);
void snrq_trial_free(snrq_trial *trial);

/* Gives the rows of a trial other scales, or minima, [rows, groups]; leaves out those whose numbers
 * are the same already. Not collective. */
void snrq_trial_rescale(snrq_trial *trial, bool minima, const float *numbers);

/* Takes over the rows of a trial that are cheaper, and leaves out the others, also in their
 * gradient. Returns how many are left. Not collective. */
int64_t snrq_trial_keep_better(snrq_trial *trial, snrq_gradient *gradient, snrq_rows *rows);

#endif
