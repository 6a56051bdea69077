/* Root mean square normalization. */
#ifndef SNRQ_RMS_NORM_H
#define SNRQ_RMS_NORM_H

#include <stdint.h>

/* out [count] = in / sqrt(mean of in^2 + eps) * weight. In place is allowed. */
void snrq_rms_norm_row(const float *in, const float *weight, double eps, int64_t count, float *out);

/* x [rows, hidden] = h, row by row, with weight [hidden]. */
void snrq_rms_norm(const float *h, const float *weight, double eps, int64_t rows, int64_t hidden,
                   float *x);

/* The gradient of `in` [count] from that of `out`, g_out [count]: with r = 1 / sqrt(mean of in^2 +
 * eps), g_in = r w g_out - in r^3 / count * sum of w g_out in. g_in may be g_out. */
void snrq_rms_norm_backward_row(const float *in, const float *weight, double eps, int64_t count,
                                const float *g_out, float *g_in);

/* The same, row by row. */
void snrq_rms_norm_backward(const float *h, const float *weight, double eps, int64_t rows,
                            int64_t hidden, const float *g_x, float *g_h);

#endif
