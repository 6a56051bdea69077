/* Internal to the fast loops: SNRQ_LANES floats as one value, by the vector extensions that gcc and
 * clang share. The compiler makes of them what the machine has; each lane is computed as a float.
 */
#ifndef SNRQ_LANES_H
#define SNRQ_LANES_H

#include <stdbool.h>
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

/* The rows [count] of a pattern, again and again: lane l is rows[l % count]. count: 1, 2, 4 or 8.
 */
static inline snrq_lanes snrq_lanes_spread(const float *rows, int count)
{
    typedef int64_t pairs __attribute__((vector_size(sizeof(snrq_lanes))));
    if (count == 1) return snrq_lanes_all(rows[0]);
    if (count == 2) {
        int64_t pair;
        memcpy(&pair, rows, sizeof pair);
        return (snrq_lanes)(pair - (pairs){0});
    }
#ifdef __AVX512F__
    if (count == 4) return (snrq_lanes)_mm512_broadcast_f32x4(_mm_loadu_ps(rows));
    return (snrq_lanes)_mm512_broadcast_f64x4(_mm256_loadu_pd((const double *)rows));
#else
    typedef float four __attribute__((vector_size(4 * sizeof(float))));
    typedef float eight __attribute__((vector_size(8 * sizeof(float))));
    if (count == 4) {
        four x;
        memcpy(&x, rows, sizeof x);
        return __builtin_shufflevector(x, x, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    }
    eight x;
    memcpy(&x, rows, sizeof x);
    return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
#endif
}

/* The lanes for which something holds. What the compiler's own vectors have no short form for is
 * written twice: for AVX-512 and for all others. */
#ifdef __AVX512F__
typedef __mmask16 snrq_mask;

static inline snrq_mask snrq_lanes_less(snrq_lanes a, snrq_lanes b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
}

static inline snrq_mask snrq_int_lanes_less(snrq_int_lanes a, snrq_int_lanes b)
{
    return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b);
}

static inline snrq_mask snrq_int_lanes_equal(snrq_int_lanes a, snrq_int_lanes b)
{
    return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
}

static inline snrq_mask snrq_mask_and(snrq_mask a, snrq_mask b)
{
    return (snrq_mask)(a & b);
}

static inline bool snrq_mask_any(snrq_mask mask)
{
    return mask != 0;
}

static inline snrq_lanes snrq_lanes_select(snrq_mask mask, snrq_lanes yes, snrq_lanes no)
{
    return (snrq_lanes)_mm512_mask_blend_ps(mask, (__m512)no, (__m512)yes);
}

static inline snrq_int_lanes snrq_int_lanes_select(snrq_mask mask, snrq_int_lanes yes,
                                                   snrq_int_lanes no)
{
    return (snrq_int_lanes)_mm512_mask_blend_epi32(mask, (__m512i)no, (__m512i)yes);
}

static inline snrq_lanes snrq_lanes_min(snrq_lanes a, snrq_lanes b)
{
    return (snrq_lanes)_mm512_min_ps((__m512)a, (__m512)b);
}

static inline snrq_lanes snrq_lanes_max(snrq_lanes a, snrq_lanes b)
{
    return (snrq_lanes)_mm512_max_ps((__m512)a, (__m512)b);
}

static inline snrq_int_lanes snrq_int_lanes_min(snrq_int_lanes a, snrq_int_lanes b)
{
    return (snrq_int_lanes)_mm512_min_epi32((__m512i)a, (__m512i)b);
}

static inline snrq_int_lanes snrq_int_lanes_max(snrq_int_lanes a, snrq_int_lanes b)
{
    return (snrq_int_lanes)_mm512_max_epi32((__m512i)a, (__m512i)b);
}

static inline snrq_lanes snrq_lanes_floor(snrq_lanes x)
{
    return (snrq_lanes)_mm512_floor_ps((__m512)x);
}

/* Lane l: lane from[l] % SNRQ_LANES of x. */
static inline snrq_lanes snrq_lanes_permute(snrq_lanes x, snrq_int_lanes from)
{
    return (snrq_lanes)_mm512_permutexvar_ps((__m512i)from, (__m512)x);
}
#else
typedef snrq_int_lanes snrq_mask; /* all bits set or none */

static inline snrq_mask snrq_lanes_less(snrq_lanes a, snrq_lanes b)
{
    return a < b;
}

static inline snrq_mask snrq_int_lanes_less(snrq_int_lanes a, snrq_int_lanes b)
{
    return a < b;
}

static inline snrq_mask snrq_int_lanes_equal(snrq_int_lanes a, snrq_int_lanes b)
{
    return a == b;
}

static inline snrq_mask snrq_mask_and(snrq_mask a, snrq_mask b)
{
    return a & b;
}

static inline bool snrq_mask_any(snrq_mask mask)
{
    int64_t words[SNRQ_LANES / 2], any = 0;
    memcpy(words, &mask, sizeof words);
    for (int i = 0; i < SNRQ_LANES / 2; i++) any |= words[i];
    return any != 0;
}

static inline snrq_lanes snrq_lanes_select(snrq_mask mask, snrq_lanes yes, snrq_lanes no)
{
    return (snrq_lanes)(((snrq_int_lanes)yes & mask) | ((snrq_int_lanes)no & ~mask));
}

static inline snrq_int_lanes snrq_int_lanes_select(snrq_mask mask, snrq_int_lanes yes,
                                                   snrq_int_lanes no)
{
    return (yes & mask) | (no & ~mask);
}

static inline snrq_lanes snrq_lanes_min(snrq_lanes a, snrq_lanes b)
{
    return snrq_lanes_select(a < b, a, b);
}

static inline snrq_lanes snrq_lanes_max(snrq_lanes a, snrq_lanes b)
{
    return snrq_lanes_select(a > b, a, b);
}

static inline snrq_int_lanes snrq_int_lanes_min(snrq_int_lanes a, snrq_int_lanes b)
{
    return snrq_int_lanes_select(a < b, a, b);
}

static inline snrq_int_lanes snrq_int_lanes_max(snrq_int_lanes a, snrq_int_lanes b)
{
    return snrq_int_lanes_select(a > b, a, b);
}

/* For |x| < 2^22: there adding and subtracting 1.5 * 2^23 rounds to an integer. */
static inline snrq_lanes snrq_lanes_floor(snrq_lanes x)
{
    snrq_lanes nearest = (x + 0x1.8p23f) - 0x1.8p23f;
    return nearest + __builtin_convertvector(nearest > x, snrq_lanes); /* true is -1 */
}

static inline snrq_lanes snrq_lanes_permute(snrq_lanes x, snrq_int_lanes from)
{
#ifdef __AVX2__
    __m256 half[2];
    __m256i at[2];
    memcpy(half, &x, sizeof half);
    memcpy(at, &from, sizeof at);
    for (int i = 0; i < 2; i++) {
        __m256 first = _mm256_permutevar8x32_ps(half[0], at[i]);
        __m256 second = _mm256_permutevar8x32_ps(half[1], at[i]);
        __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(at[i], 28)); /* bit 3 is the sign */
        at[i] = _mm256_castps_si256(_mm256_blendv_ps(first, second, upper));
    }
    memcpy(&x, at, sizeof x);
    return x;
#else
    snrq_lanes y;
    for (int l = 0; l < SNRQ_LANES; l++) y[l] = x[from[l] % SNRQ_LANES];
    return y;
#endif
}
#endif

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

/* Lane l: lane l ^ distance of x; distance 1, 2, 4 or 8. */
#define SNRQ_OTHER(l, d) ((l) ^ (d))
#define SNRQ_EXCHANGE(x, d) SNRQ_SHUFFLE(x, x, SNRQ_OTHER, d)

#endif
