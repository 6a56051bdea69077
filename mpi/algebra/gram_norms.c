/* Column norms of activations, summed over sequences and ranks exactly; see gram.h.
 *
 * The fp64 sum of one sequence is formed token by token, hence the same on any rank. Sums of
 * sequences are added as integers: their unit is agreed on by a MAX over all sequences, with room
 * for as many terms as there are sequences.
 */
#include "mpi/algebra/gram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUM_BITS = 62,
    UNIT_COLUMNS = 512 /* columns of one unit of work */
};

/* sums[j] <- sum over tokens of x_j^2 for columns [begin, end) of sequence s, token by token. */
static void add_squares(const snrq_activations *a, const snrq_activations *minus, int64_t s,
                        int64_t begin, int64_t end, double *sums)
{
    for (int64_t t = snrq_activations_begin(a, s); t < snrq_activations_begin(a, s + 1); t++) {
        size_t at = (size_t)(t * a->columns);
        const float *x = a->data + at;
        const float *y = minus == NULL ? NULL : minus->data + at;
        const double factor = a->factor == NULL ? 1.0 : a->factor[t];
        for (int64_t j = begin; j < end; j++) {
            double value = factor * (double)(y == NULL ? x[j] : x[j] - y[j]);
            sums[j] += value * value;
        }
    }
}

/* sums [sequences, n] <- scale_s^2 sum_t x_tj^2. Fails if one is not finite. */
static snrq_status sum_squares(const snrq_activations *a, const snrq_activations *minus,
                               const double *scale, double *sums)
{
    int64_t n = a->columns, parts = (n + UNIT_COLUMNS - 1) / UNIT_COLUMNS;
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < a->sequences * parts; unit++) {
        int64_t s = unit / parts, begin = unit % parts * UNIT_COLUMNS;
        int64_t end = begin + UNIT_COLUMNS < n ? begin + UNIT_COLUMNS : n;
        double *row = sums + s * n, factor = scale == NULL ? 1 : scale[s] * scale[s];
        add_squares(a, minus, s, begin, end, row);
        for (int64_t j = begin; j < end; j++) row[j] *= factor;
    }
    for (int64_t at = 0; at < a->sequences * n; at++)
        if (!isfinite(sums[at]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "the activations of input column %lld are not finite (NaN or Inf) in "
                             "sequence %lld of this rank",
                             (long long)(at % n), (long long)(at / n));
    return SNRQ_OK;
}

/* norms[j] <- sum over all sequences of sums[s][j], added as integers of a unit that all ranks
 * agree on. */
static snrq_status add_sequences(const snrq_context *context, int64_t sequences, int64_t n,
                                 const double *sums, int64_t *fixed, double *norms)
{
    int64_t total = sequences;
    int guard = 0;
    SNRQ_TRY(snrq_sum_int64(context, &total, 1));
    while (((int64_t)1 << guard) < total) guard++;
    memset(norms, 0, (size_t)n * sizeof *norms);
    for (int64_t at = 0; at < sequences * n; at++)
        if (sums[at] > norms[at % n]) norms[at % n] = sums[at];
    SNRQ_TRY(snrq_max_double(context, norms, n));
    for (int64_t at = 0; at < sequences * n; at++) {
        int exponent; /* the largest sum of a sequence is below 2^exponent */
        frexp(norms[at % n], &exponent);
        fixed[at % n] += llrint(ldexp(sums[at], SUM_BITS - guard - exponent));
    }
    SNRQ_TRY(snrq_sum_int64(context, fixed, n));
    for (int64_t j = 0; j < n; j++) {
        int exponent;
        frexp(norms[j], &exponent);
        norms[j] = ldexp((double)fixed[j], exponent + guard - SUM_BITS);
    }
    return SNRQ_OK;
}

snrq_status snrq_gram_norms(const snrq_context *context, const snrq_activations *a,
                            const snrq_activations *minus, const double *scale, double *norms)
{
    double *sums = NULL;
    int64_t *fixed = NULL;
    snrq_status status =
        snrq_allocate((size_t)(a->sequences * a->columns), sizeof *sums, "column sums", &sums);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)a->columns, sizeof *fixed, "column sums", &fixed);
    if (status == SNRQ_OK) status = sum_squares(a, minus, scale, sums);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = add_sequences(context, a->sequences, a->columns, sums, fixed, norms);
    free(sums);
    free(fixed);
    return status;
}
