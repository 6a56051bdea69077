/* Weights of GGUF blocks; see values.h. b: the GGUF block, i: the weight's place in it. */
#include "io/gguf/values.h"

#include <math.h>
#include <string.h>

static int low(unsigned char byte)
{
    return byte & 15;
}

static int high(unsigned char byte)
{
    return byte >> 4;
}

static int bits2(unsigned char byte, int place)
{
    return byte >> (2 * place) & 3;
}

float snrq_gguf_single(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float half(const unsigned char *b)
{
    int bits = b[0] + 256 * b[1], exponent = bits / 1024 % 32;
    float mantissa = (float)(bits % 1024), value = ldexpf(mantissa, -24);
    if (exponent == 31) value = mantissa > 0 ? NAN : INFINITY;
    if (exponent > 0 && exponent < 31) value = ldexpf(mantissa + 1024, exponent - 25);
    return bits < 32768 ? value : -value;
}

static float f32(const unsigned char *b, int i)
{
    (void)i;
    return snrq_gguf_single((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
                            (uint32_t)b[3] << 24);
}

static float f16(const unsigned char *b, int i)
{
    (void)i;
    return half(b);
}

static float bf16(const unsigned char *b, int i)
{
    (void)i;
    return snrq_gguf_single((uint32_t)b[0] << 16 | (uint32_t)b[1] << 24);
}

static float q4_0(const unsigned char *b, int i)
{
    int q = i < 16 ? low(b[2 + i]) : high(b[2 + i - 16]);
    return half(b) * (float)(q - 8);
}

static float q5_0(const unsigned char *b, int i)
{
    int q = i < 16 ? low(b[6 + i]) : high(b[6 + i - 16]);
    int fifth = b[2 + i / 8] >> i % 8 & 1;
    return half(b) * (float)(q + 16 * fifth - 16);
}

static float q4_1(const unsigned char *b, int i)
{
    int q = i < 16 ? low(b[4 + i]) : high(b[4 + i - 16]);
    return half(b) * (float)q + half(b + 2);
}

static float q5_1(const unsigned char *b, int i)
{
    int q = i < 16 ? low(b[8 + i]) : high(b[8 + i - 16]);
    int fifth = b[4 + i / 8] >> i % 8 & 1;
    return half(b) * (float)(q + 16 * fifth) + half(b + 2);
}

static float q8_0(const unsigned char *b, int i)
{
    int q = b[2 + i];
    return half(b) * (float)(q < 128 ? q : q - 256);
}

static float q2_k(const unsigned char *b, int i)
{
    int q = bits2(b[16 + 32 * (i / 128) + i % 32], i % 128 / 32);
    float scale = half(b + 80) * (float)low(b[i / 16]);
    float minimum = half(b + 82) * (float)high(b[i / 16]);
    return scale * (float)q - minimum;
}

static float q3_k(const unsigned char *b, int i)
{
    const unsigned char *packed = b + 96;
    int s = i / 16;
    int scale = s < 8 ? low(packed[s]) : high(packed[s - 8]);
    scale += 16 * bits2(packed[8 + s % 4], s / 4);
    int q = bits2(b[32 + 32 * (i / 128) + i % 32], i % 128 / 32);
    int third = b[i % 32] >> i / 32 & 1;
    return half(b + 108) * (float)(scale - 32) * (float)(q - (third ? 0 : 4));
}

/* Q4_K and Q5_K: quant q in sub-block s. */
static float with_sixes(const unsigned char *b, int s, int q)
{
    const unsigned char *packed = b + 4;
    int scale = packed[s < 4 ? s : s + 4], minimum = packed[s + 4];
    if (s < 4) {
        scale %= 64;
        minimum %= 64;
    } else {
        scale = scale % 16 + 16 * (packed[s - 4] / 64);
        minimum = minimum / 16 + 16 * (packed[s] / 64);
    }
    return half(b) * (float)scale * (float)q - half(b + 2) * (float)minimum;
}

static float q4_k(const unsigned char *b, int i)
{
    unsigned char pair = b[16 + 32 * (i / 64) + i % 32];
    return with_sixes(b, i / 32, i % 64 < 32 ? low(pair) : high(pair));
}

static float q5_k(const unsigned char *b, int i)
{
    unsigned char pair = b[48 + 32 * (i / 64) + i % 32];
    int fifth = b[16 + i % 32] >> i / 32 & 1;
    return with_sixes(b, i / 32, (i % 64 < 32 ? low(pair) : high(pair)) + 16 * fifth);
}

static float q6_k(const unsigned char *b, int i)
{
    int k = i % 128 / 32, scale = b[192 + i / 16];
    unsigned char pair = b[64 * (i / 128) + 32 * (k % 2) + i % 32];
    int q = (k < 2 ? low(pair) : high(pair)) + 16 * bits2(b[128 + 32 * (i / 128) + i % 32], k);
    return half(b + 208) * (float)(scale < 128 ? scale : scale - 256) * (float)(q - 32);
}

static const int iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static float iq4_nl(const unsigned char *b, int i)
{
    return half(b) * (float)iq4[i < 16 ? low(b[2 + i]) : high(b[2 + i - 16])];
}

static float iq4_xs(const unsigned char *b, int i)
{
    int s = i / 32, scale = b[4 + s / 2] >> 4 * (s % 2) & 15;
    scale += 16 * (s < 4 ? bits2(b[2], s) : bits2(b[3], s - 4));
    unsigned char pair = b[8 + 16 * s + i % 16];
    return half(b) * (float)(scale - 32) * (float)iq4[i % 32 < 16 ? low(pair) : high(pair)];
}

static float mxfp4(const unsigned char *b, int i)
{
    static const int doubled[] = {0, 1, 2, 3, 4, 6, 8, 12};
    int q = i < 16 ? low(b[1 + i]) : high(b[1 + i - 16]);
    float value = ldexpf((float)doubled[q % 8], b[0] - 128);
    return q < 8 ? value : -value;
}

const snrq_gguf_value snrq_gguf_values[] = {
    {0, "F32", 1, 4, f32},        {1, "F16", 1, 2, f16},          {30, "BF16", 1, 2, bf16},
    {2, "Q4_0", 32, 18, q4_0},    {6, "Q5_0", 32, 22, q5_0},      {8, "Q8_0", 32, 34, q8_0},
    {10, "Q2_K", 256, 84, q2_k},  {11, "Q3_K", 256, 110, q3_k},   {12, "Q4_K", 256, 144, q4_k},
    {3, "Q4_1", 32, 20, q4_1},    {7, "Q5_1", 32, 24, q5_1},      {13, "Q5_K", 256, 176, q5_k},
    {14, "Q6_K", 256, 210, q6_k}, {20, "IQ4_NL", 32, 18, iq4_nl}, {23, "IQ4_XS", 256, 136, iq4_xs},
    {39, "MXFP4", 32, 17, mxfp4},
};

int snrq_gguf_value_kind(uint32_t type)
{
    for (int i = 0; i < (int)(sizeof snrq_gguf_values / sizeof snrq_gguf_values[0]); i++)
        if (snrq_gguf_values[i].type == type) return i;
    return -1;
}
