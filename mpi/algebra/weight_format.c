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

/* What narrow rows get is llama.cpp's choice, but for the first two, which get IQ4_NL there. */
const snrq_weight_format snrq_weight_formats[] = {
    {"q4_0", 4, 32, 32, OWN, {0}, 4.5, NULL},
    {"q4_1", 4, 32, 32, OWN, OWN, 5.0, NULL},
    {"q5_0", 5, 32, 32, OWN, {0}, 5.5, NULL},
    {"q5_1", 5, 32, 32, OWN, OWN, 6.0, NULL},
    {"q8_0", 8, 32, 32, OWN, {0}, 8.5, NULL},
    {"q2_k", 2, 16, 256, MULTIPLES(0, 15), MULTIPLES(0, 15), 2.625, "q4_0"},
    {"q3_k", 3, 16, 256, MULTIPLES(-32, 31), {0}, 3.4375, "q4_0"},
    {"q4_k", 4, 32, 256, MULTIPLES(0, 63), MULTIPLES(0, 63), 4.5, "q5_0"},
    {"q5_k", 5, 32, 256, MULTIPLES(0, 63), MULTIPLES(0, 63), 5.5, "q5_1"},
    {"q6_k", 6, 16, 256, MULTIPLES(-128, 127), {0}, 6.5625, "q8_0"},
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

int snrq_weight_format_zero(const snrq_weight_format *f)
{
    return f->minimum.present ? 0 : 1 << (f->bits - 1);
}

snrq_dtype snrq_weight_format_scale_type(const snrq_weight_format *f)
{
    return f->scale.shared ? SNRQ_F32 : SNRQ_F16;
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
