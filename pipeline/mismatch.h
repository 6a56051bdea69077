/* How far the two streams are apart where a unit reads them: dX = Xf - X. For the run log. */
#ifndef SNRQ_MISMATCH_H
#define SNRQ_MISMATCH_H

#include "mpi/algebra/gram.h"
#include "mpi/collective.h"

typedef struct snrq_mismatch {
    double mean;       /* of |dX| over tokens and columns */
    double norm;       /* ||dX||_F */
    double input_norm; /* ||Xf||_F */
} snrq_mismatch;

/* Measures the input of a unit. x and xf hold the same tokens of the sequences `mine` of all
 * `total`. The same on any number of ranks. Collective; agreed. */
snrq_status snrq_mismatch_measure(const snrq_context *context, const snrq_activations *x,
                                  const snrq_activations *xf, snrq_range mine, int64_t total,
                                  snrq_mismatch *out);

#endif
