/* Distance of the two streams; see mismatch.h. */
#include "pipeline/mismatch.h"

#include <math.h>
#include <stdlib.h>

/* Sums per sequence. */
enum { ABSOLUTE, SQUARED, INPUT, NUMBERS, SUMS };

/* sums: [SUMS], `stride` apart. */
static void add_sequence(const float *x, const float *xf, int64_t count, double *sums,
                         int64_t stride)
{
    double absolute = 0.0, squared = 0.0, input = 0.0;
#pragma omp simd reduction(+ : absolute, squared, input)
    for (int64_t i = 0; i < count; i++) {
        double difference = (double)xf[i] - (double)x[i];
        absolute += fabs(difference);
        squared += difference * difference;
        input += (double)xf[i] * (double)xf[i];
    }
    sums[ABSOLUTE * stride] = absolute;
    sums[SQUARED * stride] = squared;
    sums[INPUT * stride] = input;
    sums[NUMBERS * stride] = (double)count;
}

static double total_of(const double *sums, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += sums[i];
    return sum;
}

snrq_status snrq_mismatch_measure(const snrq_context *c, const snrq_activations *x,
                                  const snrq_activations *xf, snrq_range mine, int64_t total,
                                  snrq_mismatch *out)
{
    double *sums = NULL;
    *out = (snrq_mismatch){0};
    snrq_status status = snrq_allocate((size_t)(SUMS * total), sizeof *sums, "mismatch", &sums);
    SNRQ_TRY(snrq_agree(c, status));
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < x->sequences; s++) {
        int64_t begin = snrq_activations_begin(x, s), end = snrq_activations_begin(x, s + 1);
        add_sequence(x->data + begin * x->columns, xf->data + begin * x->columns,
                     (end - begin) * x->columns, sums + mine.begin + s, total);
    }
    status = snrq_collect(c, sums, SUMS * total);
    double numbers = total_of(sums + NUMBERS * total, total);
    if (status == SNRQ_OK && numbers > 0.0) {
        out->mean = total_of(sums + ABSOLUTE * total, total) / numbers;
        out->norm = sqrt(total_of(sums + SQUARED * total, total));
        out->input_norm = sqrt(total_of(sums + INPUT * total, total));
    }
    free(sums);
    return status;
}
