/* Internal to the search: SNRQ_LANES floats as one value, by the vector extensions that gcc and
 * clang share. The compiler makes of them what the machine has; each lane is computed as a float.
 */
#ifndef SNRQ_LANES_H
#define SNRQ_LANES_H

#include <stdint.h>
#include <string.h>
#ifdef __FMA__
#include <immintrin.h>
#endif

enum { SNRQ_LANES = 16 };

typedef float snrq_lanes __attribute__((vector_size(SNRQ_LANES * sizeof(float))));
typedef int32_t snrq_int_lanes __attribute__((vector_size(SNRQ_LANES * sizeof(int32_t))));
typedef uint8_t snrq_byte_lanes __attribute__((vector_size(SNRQ_LANES)));

/* a * b + c: in one rounding where the machine has it at full speed. The same in every place of one
 * build. */
static inline float snrq_madd(float a, float b, float c)
{
#ifdef __FP_FAST_FMAF
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

static inline snrq_lanes snrq_lanes_load(const float *from)
{
    snrq_lanes x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void snrq_lanes_store(float *to, snrq_lanes x)
{
    memcpy(to, &x, sizeof x);
}

static inline snrq_lanes snrq_lanes_all(float x)
{
    return x - (snrq_lanes){0};
}

/* yes where mask (all bits set or none), no elsewhere */
static inline snrq_lanes snrq_lanes_select(snrq_int_lanes mask, snrq_lanes yes, snrq_lanes no)
{
    return (snrq_lanes)(((snrq_int_lanes)yes & mask) | ((snrq_int_lanes)no & ~mask));
}

static inline snrq_lanes snrq_lanes_min(snrq_lanes a, snrq_lanes b)
{
    return snrq_lanes_select(a < b, a, b);
}

static inline snrq_lanes snrq_lanes_max(snrq_lanes a, snrq_lanes b)
{
    return snrq_lanes_select(a > b, a, b);
}

/* Largest integer <= x, for |x| < 2^22: there adding and subtracting 1.5 * 2^23 rounds to an
 * integer.
 */
static inline snrq_lanes snrq_lanes_floor(snrq_lanes x)
{
    snrq_lanes nearest = (x + 0x1.8p23f) - 0x1.8p23f;
    return nearest + __builtin_convertvector(nearest > x, snrq_lanes); /* true is -1 */
}

/* a * b + c, as snrq_madd: by name, because compilers do not reliably make vectors of a loop of it.
 */
static inline snrq_lanes snrq_lanes_madd(snrq_lanes a, snrq_lanes b, snrq_lanes c)
{
#if defined __AVX512F__
    return (snrq_lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined __FMA__
    __m256 x[2], y[2], z[2];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    memcpy(z, &c, sizeof z);
    for (int i = 0; i < 2; i++) z[i] = _mm256_fmadd_ps(x[i], y[i], z[i]);
    memcpy(&c, z, sizeof c);
    return c;
#elif defined __FP_FAST_FMAF
    for (int r = 0; r < SNRQ_LANES; r++) c[r] = snrq_madd(a[r], b[r], c[r]);
    return c;
#else
    return a * b + c;
#endif
}

/* Whole numbers from 0 to 255, to and from bytes. */
static inline snrq_byte_lanes snrq_lanes_to_bytes(snrq_lanes x)
{
    return __builtin_convertvector(__builtin_convertvector(x, snrq_int_lanes), snrq_byte_lanes);
}

static inline snrq_lanes snrq_lanes_of_bytes(snrq_byte_lanes x)
{
    return __builtin_convertvector(__builtin_convertvector(x, snrq_int_lanes), snrq_lanes);
}

/* Rows become lanes: x[i][j] <-> x[j][i]. One bit of the indices changes places at a time: of two
 * rows that differ in that bit only, the first takes the lanes without it, the second those with
 * it.
 */
#define SNRQ_FIRST(l, d) ((l) & (d) ? SNRQ_LANES + (l) - (d) : (l))
#define SNRQ_SECOND(l, d) ((l) & (d) ? SNRQ_LANES + (l) : (l) + (d))
#define SNRQ_SHUFFLE(a, b, of, d)                                                                  \
    __builtin_shufflevector(a, b, of(0, d), of(1, d), of(2, d), of(3, d), of(4, d), of(5, d),      \
                            of(6, d), of(7, d), of(8, d), of(9, d), of(10, d), of(11, d),          \
                            of(12, d), of(13, d), of(14, d), of(15, d))
#define SNRQ_TRANSPOSE_BIT(type, x, d)                                                             \
    for (int i = 0; i < SNRQ_LANES; i++) {                                                         \
        if (i & (d)) continue;                                                                     \
        type first = x[i], second = x[i + (d)];                                                    \
        x[i] = SNRQ_SHUFFLE(first, second, SNRQ_FIRST, d);                                         \
        x[i + (d)] = SNRQ_SHUFFLE(first, second, SNRQ_SECOND, d);                                  \
    }

static inline void snrq_lanes_transpose(snrq_lanes x[SNRQ_LANES])
{
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, 8)
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, 4)
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, 2)
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, 1)
}

static inline void snrq_byte_lanes_transpose(snrq_byte_lanes x[SNRQ_LANES])
{
    SNRQ_TRANSPOSE_BIT(snrq_byte_lanes, x, 8)
    SNRQ_TRANSPOSE_BIT(snrq_byte_lanes, x, 4)
    SNRQ_TRANSPOSE_BIT(snrq_byte_lanes, x, 2)
    SNRQ_TRANSPOSE_BIT(snrq_byte_lanes, x, 1)
}

/* Bit r is set where mask is in lane r. */
static inline uint32_t snrq_lanes_bits(snrq_int_lanes mask)
{
    const snrq_int_lanes bit = {1 << 0,  1 << 1,  1 << 2,  1 << 3, 1 << 4,  1 << 5,
                                1 << 6,  1 << 7,  1 << 8,  1 << 9, 1 << 10, 1 << 11,
                                1 << 12, 1 << 13, 1 << 14, 1 << 15};
    uint32_t bits = 0;
    mask &= bit;
    for (int r = 0; r < SNRQ_LANES; r++) bits |= (uint32_t)mask[r];
    return bits;
}

#endif
