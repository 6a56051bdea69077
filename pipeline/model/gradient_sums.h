/* What is gathered on the way back through a block. */
#ifndef SNRQ_GRADIENT_SUMS_H
#define SNRQ_GRADIENT_SUMS_H

#include "pipeline/model/gradient_gram.h"
#include "pipeline/model/scale_gradient.h"

/* Borrowed, each; NULL: it is not wanted. */
typedef struct snrq_gradient_sums {
    snrq_gradient_gram *gram;
    snrq_scale_gradient *scales;
} snrq_gradient_sums;

/* Adds a batch of a unit: its inputs x, which only `scales` reads, and the gradients dy of its
 * outputs; sequence s in rows [first[s], first[s + 1]). */
static inline snrq_status snrq_gradient_sums_add(const snrq_gradient_sums *sums, int unit,
                                                 int64_t sequences, const int64_t *first,
                                                 const float *x, const float *dy)
{
    if (sums->gram != NULL)
        SNRQ_TRY(snrq_gradient_gram_add(sums->gram, unit, sequences, first, dy));
    if (sums->scales == NULL) return SNRQ_OK;
    return snrq_scale_gradient_add(sums->scales, unit, sequences, first, x, dy);
}

#endif
