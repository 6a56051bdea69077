/* What is gathered on the way back through a block. */
#ifndef SNRQ_GRADIENT_SUMS_H
#define SNRQ_GRADIENT_SUMS_H

#include "pipeline/model/gradient_gram.h"
#include "pipeline/model/parameter_gradient.h"

/* Borrowed, each; NULL: it is not wanted. */
typedef struct snrq_gradient_sums {
    snrq_gradient_gram *gram;
    snrq_parameter_gradient *parameters;
} snrq_gradient_sums;

/* Adds a batch of a unit: its inputs x, which only `parameters` reads, and the gradients dy of its
 * outputs; sequence s in rows [first[s], first[s + 1]). */
static inline snrq_status snrq_gradient_sums_add(const snrq_gradient_sums *sums, int unit,
                                                 int64_t sequences, const int64_t *first,
                                                 const float *x, const float *dy)
{
    if (sums->gram != NULL)
        SNRQ_TRY(snrq_gradient_gram_add(sums->gram, unit, sequences, first, dy));
    if (sums->parameters == NULL) return SNRQ_OK;
    return snrq_scale_gradient_add(sums->parameters, unit, sequences, first, x, dy);
}

/* Adds a batch that went through a norm, if that is wanted. */
static inline snrq_status snrq_gradient_sums_add_norm(const snrq_gradient_sums *sums,
                                                      snrq_vector norm,
                                                      const snrq_normed_rows *rows,
                                                      int64_t sequences, const int64_t *first)
{
    snrq_parameter_gradient *p = sums->parameters;
    if (p == NULL || p->block->vector[norm] == NULL) return SNRQ_OK;
    return snrq_norm_gradient_add(rows, sequences, first, p->block->family->vector[norm].name,
                                  p->sum + p->norm[norm]);
}

#endif
