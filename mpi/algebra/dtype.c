/* Number types of checkpoints; see dtype.h.
 *
 * Integer arithmetic on the bits, so that neither the rounding mode nor a flush-to-zero setting of
 * the processor can change a result. NaN keeps its sign and the upper part of its payload.
 */
#include "mpi/algebra/dtype.h"

#include <math.h>
#include <string.h>

/* Checkpoints, token files and this program's own files are little-endian and are read as they are.
 */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "snrq needs a little-endian machine");

size_t snrq_dtype_size(snrq_dtype type)
{
    return type == SNRQ_F32 ? 4 : 2;
}

const char *snrq_dtype_name(snrq_dtype type)
{
    return type == SNRQ_F32 ? "F32" : type == SNRQ_F16 ? "F16" : "BF16";
}

bool snrq_dtype_find(const char *name, snrq_dtype *out)
{
    for (int type = SNRQ_F32; type <= SNRQ_BF16; type++)
        if (strcmp(name, snrq_dtype_name((snrq_dtype)type)) == 0) {
            *out = (snrq_dtype)type;
            return true;
        }
    return false;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Without branches that change control flow, so that the loop in snrq_widen() becomes vector code.
 */
static inline float widen_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = (bits >> 10) & 0x1fu;
    uint32_t mantissa = bits & 0x3ffu;
    uint32_t normal = ((exponent + 112) << 23) | (mantissa << 13);
    uint32_t special = 0x7f800000u | (mantissa << 13);
    uint32_t subnormal = bits_of((float)mantissa * 0x1p-24f); /* units of 2^-24: exact */
    uint32_t magnitude = exponent == 0 ? subnormal : exponent == 31 ? special : normal;
    return float_of(sign | magnitude);
}

float snrq_f16_to_float(uint16_t bits)
{
    return widen_f16(bits);
}

uint16_t snrq_float_to_f16(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        uint32_t payload = (magnitude >> 13) & 0x3ffu;
        half = 0x7c00u | (payload != 0 ? payload : 0x200u);
    } else if (magnitude >= 0x477ff000u) {
        half = 0x7c00u; /* 65520, half-way beyond the largest number, and all above: infinity */
    } else if (magnitude >= 0x38800000u) {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    } else if (magnitude < 0x33000000u) {
        half = 0; /* below 2^-25, half of the smallest subnormal */
    } else {
        uint32_t shift = 126u - (magnitude >> 23); /* 14..24: units of 2^-24 */
        uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        uint32_t rest = mantissa & ((1u << shift) - 1u), middle = 1u << (shift - 1u);
        half = mantissa >> shift;
        half += (rest > middle || (rest == middle && (half & 1u))) ? 1u : 0u;
    }
    return (uint16_t)(sign | half);
}

float snrq_e4m3_to_float(uint8_t bits)
{
    int exponent = bits >> 3 & 15, mantissa = bits & 7;
    float value =
        exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);
    if (exponent == 15 && mantissa == 7) value = NAN;
    return bits & 0x80 ? -value : value;
}

float snrq_bf16_to_float(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t snrq_float_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        uint32_t upper = bits >> 16;
        return (uint16_t)((upper & 0x7fu) != 0 ? upper : upper | 0x40u);
    }
    /* A carry out of the largest number gives infinity, as it should. */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void snrq_widen(snrq_dtype type, const void *source, size_t count, float *out)
{
    const unsigned char *from = source;
    if (type == SNRQ_F32) {
        if (count > 0) memcpy(out, from, 4 * count);
        return;
    }
    for (size_t i = 0; type == SNRQ_F16 && i < count; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        out[i] = widen_f16(bits);
    }
    for (size_t i = 0; type == SNRQ_BF16 && i < count; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        out[i] = float_of((uint32_t)bits << 16);
    }
}

float snrq_round_to(snrq_dtype type, float value)
{
    if (type == SNRQ_F32) return value;
    if (type == SNRQ_F16) return snrq_f16_to_float(snrq_float_to_f16(value));
    return snrq_bf16_to_float(snrq_float_to_bf16(value));
}

/* NaN and infinity are the numbers whose exponent bits are all set. One loop per width without
 * early exit becomes vector code. */
static bool all_finite(snrq_dtype type, const unsigned char *from, size_t count)
{
    const uint16_t exponent = type == SNRQ_F16 ? 0x7c00u : 0x7f80u;
    unsigned bad = 0;
    for (size_t i = 0; type == SNRQ_F32 && i < count; i++) {
        uint32_t bits;
        memcpy(&bits, from + 4 * i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    for (size_t i = 0; type != SNRQ_F32 && i < count; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * i, sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return bad == 0;
}

size_t snrq_first_not_finite(snrq_dtype type, const void *source, size_t count)
{
    const size_t part = 4096, size = snrq_dtype_size(type);
    const unsigned char *from = source;
    for (size_t at = 0; at < count; at += part) {
        size_t end = count - at < part ? count : at + part;
        if (all_finite(type, from + at * size, end - at)) continue;
        while (all_finite(type, from + at * size, 1)) at++;
        return at;
    }
    return count;
}
