/* Floating point weights read back; see decode_floats.h. */
#include "pipeline/export/decode_floats.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    int bits;
    int64_t inputs, rows;
} kinds[] = {
    [SNRQ_NO_FLOATS] = {"", 0, 1, 1},
    [SNRQ_MXFP4] = {"mxfp4-pack-quantized", 4, 32, 1},
    [SNRQ_NVFP4] = {"nvfp4-pack-quantized", 4, 16, 1},
    [SNRQ_FP8_BLOCK] = {"float-quantized", 8, 128, 128},
};

snrq_float_kind snrq_float_kind_named(const char *format)
{
    for (int k = SNRQ_MXFP4; k <= SNRQ_FP8_BLOCK; k++)
        if (strcmp(kinds[k].name, format) == 0) return (snrq_float_kind)k;
    return SNRQ_NO_FLOATS;
}

int snrq_float_kind_bits(snrq_float_kind kind)
{
    return kinds[kind].bits;
}

int64_t snrq_float_kind_inputs(snrq_float_kind kind)
{
    return kinds[kind].inputs;
}

int64_t snrq_float_kind_rows(snrq_float_kind kind)
{
    return kinds[kind].rows;
}

/* A number of `exponents` bits of exponent, `fractions` of fraction, and this bias; the sign is the
 * bit above. */
static float number(unsigned bits, int exponents, int fractions, int bias)
{
    int exponent = (int)(bits >> fractions) & ((1 << exponents) - 1);
    int fraction = (int)bits & ((1 << fractions) - 1);
    if (exponent > 0) fraction += 1 << fractions;
    float magnitude = ldexpf((float)fraction, (exponent > 0 ? exponent : 1) - bias - fractions);
    return bits >> (exponents + fractions) & 1 ? -magnitude : magnitude;
}

float snrq_e4m3_number(uint8_t bits)
{
    return (bits & 127) == 127 ? NAN : number(bits, 4, 3, 7);
}

float snrq_e8m0_number(uint8_t bits)
{
    return bits == 255 ? NAN : ldexpf(1.0f, bits - 127);
}

bool snrq_float_row(snrq_float_kind kind, int64_t columns, const uint8_t *bytes,
                    const float *scales, float *out)
{
    const int64_t inputs = kinds[kind].inputs;
    for (int64_t c = 0; c < columns; c++) {
        if (kinds[kind].bits == 8)
            out[c] = snrq_e4m3_number(bytes[c]);
        else
            out[c] = number(bytes[c / 2] >> c % 2 * 4 & 15, 2, 1, 1);
        if (isnan(out[c])) return false;
        out[c] *= scales[c / inputs];
    }
    return true;
}
