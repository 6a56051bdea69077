/* GGUF version 3, the file of llama.cpp: its layout and its GGUF blocks.
 *
 * Everything is little-endian. A file is
 *
 *   1.  "GGUF"                                              4 bytes
 *   2.  version                                             u32, 3
 *   3.  number of tensors                                   u64
 *   4.  number of key-value pairs                           u64
 *   5.  key-value pairs, each: key (string), kind (u32), value
 *         string   length in bytes (u64), the bytes, no NUL
 *         bool     1 byte;   numbers: as they are
 *         array    kind of the elements (u32), their number (u64), the elements
 *   6.  tensors, each: name (string, less than 64 bytes), number of dimensions (u32, 1 to 4),
 *       dimensions (u64 each, the contiguous one first: the reverse of safetensors),
 *       type (u32), offset of its data in 8. (u64)
 *   7.  zeros up to a multiple of general.alignment (32 unless that key says otherwise)
 *   8.  data of the tensors in the order of 6., each padded with zeros to the alignment
 *
 * A tensor is a sequence of GGUF blocks along its rows; what they hold is said below, where
 * "value" is what a reader makes of quant q. Halves (d, dmin) are IEEE binary16. Source:
 * ggml's gguf.md and block definitions. */
#ifndef SNRQ_GGUF_H
#define SNRQ_GGUF_H

#include <assert.h>
#include <stdint.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF files are written as they lie in memory: a little-endian machine is needed"
#endif

enum {
    SNRQ_GGUF_VERSION = 3,
    SNRQ_GGUF_ALIGNMENT = 32,
    SNRQ_GGUF_NAME = 64, /* bytes of a tensor's name with its NUL */
    SNRQ_GGUF_MAX_BLOCK = 256
};

typedef enum snrq_gguf_kind {
    SNRQ_GGUF_U16 = 2,
    SNRQ_GGUF_U32 = 4,
    SNRQ_GGUF_I32 = 5,
    SNRQ_GGUF_F32_VALUE = 6,
    SNRQ_GGUF_BOOL = 7,
    SNRQ_GGUF_STRING = 8,
    SNRQ_GGUF_ARRAY = 9
} snrq_gguf_kind;

typedef enum snrq_gguf_type {
    SNRQ_GGUF_F32 = 0,
    SNRQ_GGUF_F16 = 1,
    SNRQ_GGUF_Q4_0 = 2,
    SNRQ_GGUF_Q4_1 = 3,
    SNRQ_GGUF_Q5_0 = 6,
    SNRQ_GGUF_Q5_1 = 7,
    SNRQ_GGUF_Q8_0 = 8,
    SNRQ_GGUF_Q2_K = 10,
    SNRQ_GGUF_Q3_K = 11,
    SNRQ_GGUF_Q4_K = 12,
    SNRQ_GGUF_Q5_K = 13,
    SNRQ_GGUF_Q6_K = 14,
    SNRQ_GGUF_IQ4_NL = 20,
    SNRQ_GGUF_IQ4_XS = 23,
    SNRQ_GGUF_BF16 = 30,
    SNRQ_GGUF_MXFP4 = 39
} snrq_gguf_type;
enum { SNRQ_GGUF_TYPES = SNRQ_GGUF_MXFP4 + 1 }; /* numbers of types are smaller */

/* 32 weights; value d * (q - 8). q of weight j lies in the low half of byte j of `quants`, that of
 * weight j + 16 in the high half. */
typedef struct snrq_q4_0 {
    uint16_t d;
    uint8_t quants[16];
} snrq_q4_0;
_Static_assert(sizeof(snrq_q4_0) == 18, "Q4_0 has 18 bytes");

/* 32 weights; value d * (q - 16). Bit 4 of q of weight j is bit j of the 32 in `fifth`, the other
 * bits are as in Q4_0. */
typedef struct snrq_q5_0 {
    uint16_t d;
    uint8_t fifth[4];
    uint8_t quants[16];
} snrq_q5_0;
_Static_assert(sizeof(snrq_q5_0) == 22, "Q5_0 has 22 bytes");

/* 32 weights; value d * q + m. q as in Q4_0. */
typedef struct snrq_q4_1 {
    uint16_t d, m;
    uint8_t quants[16];
} snrq_q4_1;
_Static_assert(sizeof(snrq_q4_1) == 20, "Q4_1 has 20 bytes");

/* 32 weights; value d * q + m. q as in Q5_0. */
typedef struct snrq_q5_1 {
    uint16_t d, m;
    uint8_t fifth[4];
    uint8_t quants[16];
} snrq_q5_1;
_Static_assert(sizeof(snrq_q5_1) == 24, "Q5_1 has 24 bytes");

/* 32 weights; value d * q. */
typedef struct snrq_q8_0 {
    uint16_t d;
    int8_t quants[32];
} snrq_q8_0;
_Static_assert(sizeof(snrq_q8_0) == 34, "Q8_0 has 34 bytes");

/* 256 weights; value d * scale * q - dmin * minimum, for 16 weights each. Scale in the low half of
 * a byte of `scales`, minimum in the high half. q of weight i: byte 32 (i / 128) + i % 32 of
 * `quants`, from bit 2 (i % 128 / 32) on. */
typedef struct snrq_q2_k {
    uint8_t scales[16];
    uint8_t quants[64];
    uint16_t d, dmin;
} snrq_q2_k;
_Static_assert(sizeof(snrq_q2_k) == 84, "Q2_K has 84 bytes");

/* 256 weights; value d * (scale - 32) * (q - 4), a scale for 16 weights. Bit 2 of q of weight i is
 * bit i / 32 of byte i % 32 of `third`, its other bits are as in Q2_K. Scale s has its low 4 bits
 * in byte s % 8 of `scales` (in the high half from s = 8 on) and its upper 2 bits in byte 8 + s % 4
 * from bit 2 (s / 4) on. */
typedef struct snrq_q3_k {
    uint8_t third[32];
    uint8_t quants[64];
    uint8_t scales[12];
    uint16_t d;
} snrq_q3_k;
_Static_assert(sizeof(snrq_q3_k) == 110, "Q3_K has 110 bytes");

/* 256 weights; value d * scale * q - dmin * minimum, for 32 weights each. Scale and minimum s < 4
 * are the lower 6 bits of bytes s and s + 4 of `scales`; of those from s = 4 on, the low 4 bits are
 * in byte s + 4 (the minimum in the high half), the upper 2 on top of bytes s - 4 and s. q of
 * weight i: byte 32 (i / 64) + i % 32 of `quants`, in the high half if i % 64 >= 32. */
typedef struct snrq_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t quants[128];
} snrq_q4_k;
_Static_assert(sizeof(snrq_q4_k) == 144, "Q4_K has 144 bytes");

/* As Q4_K, with bit 4 of q of weight i in bit i / 32 of byte i % 32 of `fifth`. */
typedef struct snrq_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t fifth[32];
    uint8_t quants[128];
} snrq_q5_k;
_Static_assert(sizeof(snrq_q5_k) == 176, "Q5_K has 176 bytes");

/* 256 weights; value d * scale * (q - 32), a scale for 16 weights. q of weight i, with h = i / 128
 * and k = i % 128 / 32: its low 4 bits in byte 64 h + 32 (k % 2) + i % 32 of `low` (in the high
 * half from k = 2 on), its upper 2 in byte 32 h + i % 32 of `high` from bit 2 k on. */
typedef struct snrq_q6_k {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint16_t d;
} snrq_q6_k;
_Static_assert(sizeof(snrq_q6_k) == 210, "Q6_K has 210 bytes");

/* 32 weights; value d * level q of 16 (mpi/algebra/weight_format.c). q as in Q4_0. */
typedef struct snrq_iq4_nl {
    uint16_t d;
    uint8_t quants[16];
} snrq_iq4_nl;
_Static_assert(sizeof(snrq_iq4_nl) == 18, "IQ4_NL has 18 bytes");

/* 256 weights; value d * (scale - 32) * level q, a scale for 32 weights. Scale s has its low 4 bits
 * in byte s / 2 of `low` (in the high half if s is odd), its upper 2 in `high` from bit 2 s on. q
 * of weight i: byte 16 (i / 32) + i % 16 of `quants`, in the high half if i % 32 >= 16. */
typedef struct snrq_iq4_xs {
    uint16_t d, high;
    uint8_t low[4];
    uint8_t quants[128];
} snrq_iq4_xs;
_Static_assert(sizeof(snrq_iq4_xs) == 136, "IQ4_XS has 136 bytes");

/* 32 weights; value 2^(exponent - 127) * E2M1 number q: sign, two bits of exponent, one of
 * mantissa. q as in Q4_0. */
typedef struct snrq_mxfp4 {
    uint8_t exponent;
    uint8_t quants[16];
} snrq_mxfp4;
_Static_assert(sizeof(snrq_mxfp4) == 17, "MXFP4 has 17 bytes");

#endif
