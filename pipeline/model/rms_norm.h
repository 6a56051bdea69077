/* Root mean square normalization. */
#ifndef SNRQ_RMS_NORM_H
#define SNRQ_RMS_NORM_H

#include <stdint.h>

/* out [count] = in / sqrt(mean of in^2 + eps) * weight. In place is allowed. */
void snrq_rms_norm_row(const float *in, const float *weight, double eps, int64_t count, float *out);

/* x [rows, hidden] = h, row by row, with weight [hidden]. */
void snrq_rms_norm(const float *h, const float *weight, double eps, int64_t rows, int64_t hidden,
                   float *x);

#endif
