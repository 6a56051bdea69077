/* exp(x) in fp32, written so that compilers vectorize loops over it; libm's is a call per element.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by its Taylor polynomial of degree 7, whose remainder
 * is below 2^-27; 2^n by the exponent bits. Relative error below 2e-7. Results below exp(-87)
 * become exp(-87), about 1.6e-38; above exp(88), exp(88).
 */
#ifndef SNRQ_EXPONENTIAL_H
#define SNRQ_EXPONENTIAL_H

#include <stdint.h>
#include <string.h>

static inline float snrq_exp(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = __builtin_rintf(x * 1.44269504f);
    float r = (x - n * 0.693359375f) -
              n * -2.12194440e-4f; /* ln 2 in two parts: n times the first is exact */
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* tanh(x); absolute error below 3e-7. */
static inline float snrq_tanh(float x)
{
    return 1.0f - 2.0f / (snrq_exp(2.0f * x) + 1.0f);
}

#endif
