/* The table of formats; see weight_format.h. */
#include "mpi/algebra/weight_format.h"

#include <math.h>
#include <string.h>

#define OWN                                                                                        \
    {                                                                                              \
        .present = true                                                                            \
    }
#define MULTIPLES(low, high)                                                                       \
    {                                                                                              \
        .present = true, .shared = true, .lowest = (low), .highest = (high)                        \
    }

#define POWER                                                                                      \
    {                                                                                              \
        .present = true, .power = true                                                             \
    }

#define OF_TENSOR                                                                                  \
    {                                                                                              \
        .present = true, .tensor = true                                                            \
    }

/* IQ4_NL and IQ4_XS. */
static const float iq4[SNRQ_BOOK] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
/* E2M1; the second zero is left out, and a last level that is never nearest. */
static const float e2m1[SNRQ_BOOK] = {-6,   -4, -3,   -2, -1.5f, -1, -0.5f, 0,
                                      0.5f, 1,  1.5f, 2,  3,     4,  6,     1e9f};

/* E4M3 by exponents, each with the spacing of its numbers; 15 times the largest is no number. */
#define UP(u) 8 * u, 9 * u, 10 * u, 11 * u, 12 * u, 13 * u, 14 * u, 15 * u
#define DOWN(u) -15 * u, -14 * u, -13 * u, -12 * u, -11 * u, -10 * u, -9 * u, -8 * u
#define LEAST 0x1p-9f
static const float e4m3[] = {-448,
                             -416,
                             -384,
                             -352,
                             -320,
                             -288,
                             -256,
                             DOWN(16),
                             DOWN(8),
                             DOWN(4),
                             DOWN(2),
                             DOWN(1),
                             DOWN(0x1p-1f),
                             DOWN(0x1p-2f),
                             DOWN(0x1p-3f),
                             DOWN(0x1p-4f),
                             DOWN(0x1p-5f),
                             DOWN(0x1p-6f),
                             DOWN(0x1p-7f),
                             DOWN(0x1p-8f),
                             DOWN(LEAST),
                             -7 * LEAST,
                             -6 * LEAST,
                             -5 * LEAST,
                             -4 * LEAST,
                             -3 * LEAST,
                             -2 * LEAST,
                             -LEAST,
                             0,
                             LEAST,
                             2 * LEAST,
                             3 * LEAST,
                             4 * LEAST,
                             5 * LEAST,
                             6 * LEAST,
                             7 * LEAST,
                             UP(LEAST),
                             UP(0x1p-8f),
                             UP(0x1p-7f),
                             UP(0x1p-6f),
                             UP(0x1p-5f),
                             UP(0x1p-4f),
                             UP(0x1p-3f),
                             UP(0x1p-2f),
                             UP(0x1p-1f),
                             UP(1),
                             UP(2),
                             UP(4),
                             UP(8),
                             UP(16),
                             256,
                             288,
                             320,
                             352,
                             384,
                             416,
                             448};
_Static_assert(sizeof e4m3 / sizeof *e4m3 == SNRQ_E4M3_LEVELS, "as many as the header says");

/* What narrow rows get is llama.cpp's choice. */
const snrq_weight_format snrq_weight_formats[] = {
    {"q4_0", 4, NULL, 15, 32, 32, OWN, {0}, 4.5, NULL, 0},
    {"q4_1", 4, NULL, 15, 32, 32, OWN, OWN, 5.0, NULL, 0},
    {"q5_0", 5, NULL, 31, 32, 32, OWN, {0}, 5.5, NULL, 0},
    {"q5_1", 5, NULL, 31, 32, 32, OWN, OWN, 6.0, NULL, 0},
    {"q8_0", 8, NULL, 255, 32, 32, OWN, {0}, 8.5, NULL, 0},
    {"q2_k", 2, NULL, 3, 16, 256, MULTIPLES(0, 15), MULTIPLES(0, 15), 2.625, "q4_0", 0},
    {"q3_k", 3, NULL, 7, 16, 256, MULTIPLES(-32, 31), {0}, 3.4375, "q4_0", 0},
    {"q4_k", 4, NULL, 15, 32, 256, MULTIPLES(0, 63), MULTIPLES(0, 63), 4.5, "q5_0", 0},
    {"q5_k", 5, NULL, 31, 32, 256, MULTIPLES(0, 63), MULTIPLES(0, 63), 5.5, "q5_1", 0},
    {"q6_k", 6, NULL, 63, 16, 256, MULTIPLES(-128, 127), {0}, 6.5625, "q8_0", 0},
    {"iq4_nl", 4, iq4, 15, 32, 32, OWN, {0}, 4.5, NULL, 0},
    {"iq4_xs", 4, iq4, 15, 32, 256, MULTIPLES(-32, 31), {0}, 4.25, "iq4_nl", 0},
    {"mxfp4", 4, e2m1, 14, 32, 32, POWER, {0}, 4.25, NULL, 0},
    {"nvfp4", 4, e2m1, 14, 16, 16, OF_TENSOR, {0}, 4.5, NULL, 0},
    {"fp8_block", 8, e4m3, 252, 128, 1, POWER, {0}, 8.0 + 32.0 / (128 * 128), NULL, 128},
};
_Static_assert(sizeof snrq_weight_formats / sizeof *snrq_weight_formats == SNRQ_WEIGHT_FORMATS,
               "as many as the header says");

const snrq_weight_format *snrq_weight_format_find(const char *name)
{
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++)
        if (strcmp(snrq_weight_formats[i].name, name) == 0) return &snrq_weight_formats[i];
    return NULL;
}

const snrq_weight_format *snrq_weight_format_for(const snrq_weight_format *f, int64_t columns)
{
    if (f != NULL && columns % f->super_block != 0)
        f = f->narrow != NULL ? snrq_weight_format_find(f->narrow) : NULL;
    return f != NULL && columns % f->super_block == 0 ? f : NULL;
}

bool snrq_weight_format_symmetric(const snrq_weight_format *f)
{
    return !f->minimum.present && f->levels == NULL;
}

int snrq_weight_format_zero(const snrq_weight_format *f)
{
    return snrq_weight_format_symmetric(f) ? 1 << (f->bits - 1) : 0;
}

snrq_dtype snrq_weight_format_scale_type(const snrq_weight_format *f)
{
    return f->scale.shared || f->scale.power || f->scale.tensor ? SNRQ_F32 : SNRQ_F16;
}

/* The nearest E4M3 number above 0. */
static float nearest_e4m3(float value)
{
    int code = snrq_nearest_level(e4m3, SNRQ_E4M3_LEVELS - 1, value);
    return e4m3[code > SNRQ_E4M3_ZERO ? code : SNRQ_E4M3_ZERO + 1];
}

/* The smallest power of 2 that is not below a number, as far as it and its inverse are normal. */
static float power_above(double number)
{
    int exponent;
    double fraction = frexp(number, &exponent);
    exponent -= fraction == 0.5;
    exponent = exponent < -117 ? -117 : exponent > 125 ? 125 : exponent;
    return ldexpf(1.0f, exponent);
}

float snrq_weight_format_tensor_scale(const snrq_weight_format *f, float largest)
{
    const float most = 0.5f * e4m3[SNRQ_E4M3_LEVELS - 1];
    return f->scale.tensor && largest > 0.0f
               ? power_above((double)largest / (double)(f->levels[f->top] * most))
               : 1.0f;
}

float snrq_weight_format_block_scale(const snrq_weight_format *f, float largest)
{
    return largest > 0.0f ? power_above((double)largest / (double)f->levels[f->top]) : 1.0f;
}

float snrq_stored_number(const snrq_stored_numbers *set, float tensor, float value)
{
    if (set->tensor)
        return value > 0.0f && isfinite(value) ? tensor * nearest_e4m3(value / tensor)
               : value > 0.0f                  ? INFINITY
                                               : 0.0f;
    if (!set->power) return snrq_round_to(SNRQ_F16, value);
    if (!(value > 0.0f)) return 0.0f;
    if (value > 1.41421356f * 0x1p127f) return INFINITY;
    int exponent;
    frexpf(value * 0.70710678f, &exponent);       /* to the nearest one by ratio */
    exponent = exponent < -126 ? -126 : exponent; /* a subnormal scale has no inverse */
    return ldexpf(1.0f, exponent);
}

/* Are all values integers of the set times `shared`? */
static bool are_multiples(const snrq_stored_numbers *set, int64_t count, const float *values,
                          float shared, int *integers)
{
    for (int64_t i = 0; i < count; i++) {
        float ratio = values[i] / shared;
        if (!(ratio >= (float)set->lowest && ratio <= (float)set->highest)) return false;
        integers[i] = (int)lrintf(ratio);
        if (shared * (float)integers[i] != values[i]) return false;
    }
    return true;
}

bool snrq_multiples_find(const snrq_stored_numbers *set, int64_t count, const float *values,
                         float *shared, int *integers)
{
    float largest = 0.0f;
    for (int64_t i = 0; i < count; i++)
        if (fabsf(values[i]) > fabsf(largest)) largest = values[i];
    *shared = 0.0f;
    for (int64_t i = 0; i < count; i++) integers[i] = 0;
    if (largest == 0.0f) return true;
    int most = set->highest > -set->lowest ? set->highest : -set->lowest;
    for (int k = most; k > 0; k--) {
        *shared = snrq_round_to(SNRQ_F16, fabsf(largest) / (float)k);
        if (*shared > 0.0f && isfinite(*shared) &&
            are_multiples(set, count, values, *shared, integers))
            return true;
    }
    return false;
}
