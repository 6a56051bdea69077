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

/* IQ4_NL and IQ4_XS. */
static const float iq4[SNRQ_BOOK] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
/* E2M1; the second zero is left out, and a last level that is never nearest. */
static const float e2m1[SNRQ_BOOK] = {-6,   -4, -3,   -2, -1.5f, -1, -0.5f, 0,
                                      0.5f, 1,  1.5f, 2,  3,     4,  6,     1e9f};

/* What narrow rows get is llama.cpp's choice. */
const snrq_weight_format snrq_weight_formats[] = {
    {"q4_0", 4, NULL, 15, 32, 32, OWN, {0}, 4.5, NULL},
    {"q4_1", 4, NULL, 15, 32, 32, OWN, OWN, 5.0, NULL},
    {"q5_0", 5, NULL, 31, 32, 32, OWN, {0}, 5.5, NULL},
    {"q5_1", 5, NULL, 31, 32, 32, OWN, OWN, 6.0, NULL},
    {"q8_0", 8, NULL, 255, 32, 32, OWN, {0}, 8.5, NULL},
    {"q2_k", 2, NULL, 3, 16, 256, MULTIPLES(0, 15), MULTIPLES(0, 15), 2.625, "iq4_nl"},
    {"q3_k", 3, NULL, 7, 16, 256, MULTIPLES(-32, 31), {0}, 3.4375, "iq4_nl"},
    {"q4_k", 4, NULL, 15, 32, 256, MULTIPLES(0, 63), MULTIPLES(0, 63), 4.5, "q5_0"},
    {"q5_k", 5, NULL, 31, 32, 256, MULTIPLES(0, 63), MULTIPLES(0, 63), 5.5, "q5_1"},
    {"q6_k", 6, NULL, 63, 16, 256, MULTIPLES(-128, 127), {0}, 6.5625, "q8_0"},
    {"iq4_nl", 4, iq4, 15, 32, 32, OWN, {0}, 4.5, NULL},
    {"iq4_xs", 4, iq4, 15, 32, 256, MULTIPLES(-32, 31), {0}, 4.25, "iq4_nl"},
    {"mxfp4", 4, e2m1, 14, 32, 32, POWER, {0}, 4.25, NULL},
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
    return f->scale.shared || f->scale.power ? SNRQ_F32 : SNRQ_F16;
}

float snrq_stored_number(const snrq_stored_numbers *set, float value)
{
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
