/* Root mean square normalization; see rms_norm.h. */
#include "pipeline/model/rms_norm.h"

#include <math.h>

void snrq_rms_norm_row(const float *in, const float *weight, double eps, int64_t count, float *out)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += (double)in[i] * (double)in[i];
    float scale = (float)(1.0 / sqrt(sum / (double)count + eps));
    for (int64_t i = 0; i < count; i++) out[i] = in[i] * scale * weight[i];
}

void snrq_rms_norm(const float *h, const float *weight, double eps, int64_t rows, int64_t hidden,
                   float *x)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        snrq_rms_norm_row(h + r * hidden, weight, eps, hidden, x + r * hidden);
}

void snrq_rms_norm_backward_row(const float *in, const float *weight, double eps, int64_t count,
                                const float *g_out, float *g_in)
{
    double squares = 0.0, product = 0.0;
#pragma omp simd reduction(+ : squares, product)
    for (int64_t i = 0; i < count; i++) {
        squares += (double)in[i] * (double)in[i];
        product += (double)weight[i] * (double)g_out[i] * (double)in[i];
    }
    double r = 1.0 / sqrt(squares / (double)count + eps);
    float scale = (float)r, along = (float)(r * r * r * product / (double)count);
    for (int64_t i = 0; i < count; i++) g_in[i] = scale * weight[i] * g_out[i] - along * in[i];
}

void snrq_rms_norm_backward(const float *h, const float *weight, double eps, int64_t rows,
                            int64_t hidden, const float *g_x, float *g_h)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        snrq_rms_norm_backward_row(h + r * hidden, weight, eps, hidden, g_x + r * hidden,
                                   g_h + r * hidden);
}
