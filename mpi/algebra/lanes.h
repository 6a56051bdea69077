/* For the fast loops: SNRQ_LANES floats as one value, by the vector extensions that gcc and
 * clang share. What these have no short form for is written for AVX-512 and AVX2 by name, and
 * plainly for all others; each lane is computed as a float in any case.
 */
#ifndef SNRQ_LANES_H
#define SNRQ_LANES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#ifdef __FMA__
#include <immintrin.h>
#endif

/* As many as the machine's vectors have. */
#ifdef __AVX512F__
enum { SNRQ_LANES = 16 };
#else
enum { SNRQ_LANES = 8 };
#endif

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

/* The same lane by lane: by name, because compilers do not reliably make vectors of a loop of it.
 */
static inline snrq_lanes snrq_lanes_madd(snrq_lanes a, snrq_lanes b, snrq_lanes c)
{
#if defined __AVX512F__
    return (snrq_lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined __FMA__
    return (snrq_lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined __FP_FAST_FMAF
    for (int l = 0; l < SNRQ_LANES; l++) c[l] = snrq_madd(a[l], b[l], c[l]);
    return c;
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

static inline snrq_int_lanes snrq_int_lanes_all(int32_t x)
{
    return x - (snrq_int_lanes){0};
}

/* 0, 1, 2 ... */
static inline snrq_int_lanes snrq_lanes_numbers(void)
{
#ifdef __AVX512F__
    return (snrq_int_lanes){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
    return (snrq_int_lanes){0, 1, 2, 3, 4, 5, 6, 7};
#endif
}

/* The rows [count] again and again: lane l is rows[l % count]; count is a power of 2 and less than
 * SNRQ_LANES. */
static inline snrq_lanes snrq_lanes_spread(const float *rows, int count)
{
    typedef int64_t pairs __attribute__((vector_size(sizeof(snrq_lanes))));
    if (count == 1) return snrq_lanes_all(rows[0]);
    if (count == 2) {
        int64_t pair;
        memcpy(&pair, rows, sizeof pair);
        return (snrq_lanes)(pair - (pairs){0});
    }
#if defined __AVX512F__
    if (count == 4) return (snrq_lanes)_mm512_broadcast_f32x4(_mm_loadu_ps(rows));
    return (snrq_lanes)_mm512_broadcast_f64x4(_mm256_loadu_pd((const double *)rows));
#else
    typedef float four __attribute__((vector_size(4 * sizeof(float))));
    four x;
    memcpy(&x, rows, sizeof x);
    return __builtin_shufflevector(x, x, 0, 1, 2, 3, 0, 1, 2, 3);
#endif
}

/* The lanes for which something holds; one bit each, or all bits of a lane. */
#ifdef __AVX512F__
typedef __mmask16 snrq_mask;
#else
typedef snrq_int_lanes snrq_mask;
#endif

#ifdef __AVX512F__
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

static inline bool snrq_mask_any(snrq_mask mask)
{
    return mask != 0;
}

static inline snrq_lanes snrq_lanes_select(snrq_mask mask, snrq_lanes yes, snrq_lanes no)
{
    return (snrq_lanes)_mm512_mask_blend_ps(mask, (__m512)no, (__m512)yes);
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

/* Lane l: number from[l] % (2 SNRQ_LANES) of the lanes of x and, behind them, y. */
static inline snrq_lanes snrq_lanes_permute_pair(snrq_lanes x, snrq_lanes y, snrq_int_lanes from)
{
    return (snrq_lanes)_mm512_permutex2var_ps((__m512)x, (__m512i)from, (__m512)y);
}
#else
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

static inline bool snrq_mask_any(snrq_mask mask)
{
#ifdef __AVX2__
    return _mm256_movemask_ps((__m256)mask) != 0;
#else
    int64_t words[SNRQ_LANES / 2], any = 0;
    memcpy(words, &mask, sizeof words);
    for (int i = 0; i < SNRQ_LANES / 2; i++) any |= words[i];
    return any != 0;
#endif
}

static inline snrq_lanes snrq_lanes_select(snrq_mask mask, snrq_lanes yes, snrq_lanes no)
{
#ifdef __AVX2__
    return (snrq_lanes)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
#else
    return (snrq_lanes)(((snrq_int_lanes)yes & mask) | ((snrq_int_lanes)no & ~mask));
#endif
}

static inline snrq_lanes snrq_lanes_min(snrq_lanes a, snrq_lanes b)
{
#ifdef __AVX2__
    return (snrq_lanes)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return snrq_lanes_select(a < b, a, b);
#endif
}

static inline snrq_lanes snrq_lanes_max(snrq_lanes a, snrq_lanes b)
{
#ifdef __AVX2__
    return (snrq_lanes)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return snrq_lanes_select(a > b, a, b);
#endif
}

static inline snrq_int_lanes snrq_int_lanes_min(snrq_int_lanes a, snrq_int_lanes b)
{
#ifdef __AVX2__
    return (snrq_int_lanes)_mm256_min_epi32((__m256i)a, (__m256i)b);
#else
    return (a & (a < b)) | (b & ~(a < b));
#endif
}

static inline snrq_int_lanes snrq_int_lanes_max(snrq_int_lanes a, snrq_int_lanes b)
{
#ifdef __AVX2__
    return (snrq_int_lanes)_mm256_max_epi32((__m256i)a, (__m256i)b);
#else
    return (a & (a > b)) | (b & ~(a > b));
#endif
}

static inline snrq_lanes snrq_lanes_floor(snrq_lanes x)
{
#ifdef __AVX2__
    return (snrq_lanes)_mm256_floor_ps((__m256)x);
#else
    for (int l = 0; l < SNRQ_LANES; l++) x[l] = __builtin_floorf(x[l]);
    return x;
#endif
}

/* Lane l: lane from[l] % SNRQ_LANES of x. */
static inline snrq_lanes snrq_lanes_permute(snrq_lanes x, snrq_int_lanes from)
{
#ifdef __AVX2__
    return (snrq_lanes)_mm256_permutevar8x32_ps((__m256)x, (__m256i)from);
#else
    snrq_lanes y;
    for (int l = 0; l < SNRQ_LANES; l++) y[l] = x[from[l] % SNRQ_LANES];
    return y;
#endif
}

/* Lane l: number from[l] % (2 SNRQ_LANES) of the lanes of x and, behind them, y. */
static inline snrq_lanes snrq_lanes_permute_pair(snrq_lanes x, snrq_lanes y, snrq_int_lanes from)
{
    return snrq_lanes_select((from & SNRQ_LANES) != 0, snrq_lanes_permute(y, from),
                             snrq_lanes_permute(x, from));
}
#endif

/* The first half of the lanes, or the second, as fp64. */
typedef double snrq_double_lanes __attribute__((vector_size(SNRQ_LANES / 2 * sizeof(double))));

static inline snrq_double_lanes snrq_lanes_widen(snrq_lanes x, int half)
{
#if defined __AVX512F__ && defined __AVX512DQ__
    __m256 part =
        half == 0 ? _mm512_castps512_ps256((__m512)x) : _mm512_extractf32x8_ps((__m512)x, 1);
    return (snrq_double_lanes)_mm512_cvtps_pd(part);
#elif defined __AVX2__ && !defined __AVX512F__
    __m128 part =
        half == 0 ? _mm256_castps256_ps128((__m256)x) : _mm256_extractf128_ps((__m256)x, 1);
    return (snrq_double_lanes)_mm256_cvtps_pd(part);
#else
    snrq_double_lanes y;
    for (int l = 0; l < SNRQ_LANES / 2; l++) y[l] = (double)x[half * SNRQ_LANES / 2 + l];
    return y;
#endif
}

static inline snrq_lanes snrq_lanes_magnitude(snrq_lanes x)
{
    return (snrq_lanes)((snrq_int_lanes)x & INT32_MAX);
}

static inline snrq_int_lanes snrq_int_lanes_select(snrq_mask mask, snrq_int_lanes yes,
                                                   snrq_int_lanes no)
{
    return (snrq_int_lanes)snrq_lanes_select(mask, (snrq_lanes)yes, (snrq_lanes)no);
}

/* Whole numbers from 0 to 255. */
static inline snrq_byte_lanes snrq_lanes_to_bytes(snrq_lanes x)
{
    return __builtin_convertvector(__builtin_convertvector(x, snrq_int_lanes), snrq_byte_lanes);
}

/* Lanes of a and b in the order that of(l, d) tells for lane l: numbers of b's lanes follow those
 * of a's. */
#ifdef __AVX512F__
#define SNRQ_SHUFFLE(a, b, of, d)                                                                  \
    __builtin_shufflevector(a, b, of(0, d), of(1, d), of(2, d), of(3, d), of(4, d), of(5, d),      \
                            of(6, d), of(7, d), of(8, d), of(9, d), of(10, d), of(11, d),          \
                            of(12, d), of(13, d), of(14, d), of(15, d))
#else
#define SNRQ_SHUFFLE(a, b, of, d)                                                                  \
    __builtin_shufflevector(a, b, of(0, d), of(1, d), of(2, d), of(3, d), of(4, d), of(5, d),      \
                            of(6, d), of(7, d))
#endif

/* A bit of the lanes' numbers and one of the vectors' change places: of two vectors `apart`, the
 * first takes the lanes without bit d of both, the second those with it. */
#define SNRQ_FIRST(l, d) ((l) & (d) ? SNRQ_LANES + (l) - (d) : (l))
#define SNRQ_SECOND(l, d) ((l) & (d) ? SNRQ_LANES + (l) : (l) + (d))
#define SNRQ_TRANSPOSE_BIT(type, x, count, apart, d)                                               \
    for (int i = 0; i < (count); i++) {                                                            \
        if (i & (apart)) continue;                                                                 \
        type first = x[i], second = x[i + (apart)];                                                \
        x[i] = SNRQ_SHUFFLE(first, second, SNRQ_FIRST, d);                                         \
        x[i + (apart)] = SNRQ_SHUFFLE(first, second, SNRQ_SECOND, d);                              \
    }

/* Rows become lanes: x[i][j] <-> x[j][i]. */
static inline void snrq_lanes_transpose(snrq_lanes x[SNRQ_LANES])
{
#ifdef __AVX512F__
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, SNRQ_LANES, 8, 8)
#endif
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, SNRQ_LANES, 4, 4)
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, SNRQ_LANES, 2, 2)
    SNRQ_TRANSPOSE_BIT(snrq_lanes, x, SNRQ_LANES, 1, 1)
}

#endif
