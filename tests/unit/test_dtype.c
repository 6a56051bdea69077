/* Number types: exact widening, and narrowing against a slow twin that only uses comparisons. */
#include "mpi/algebra/dtype.h"

#include <math.h>
#include <string.h>

#include "tests/snrq_test.h"
#include "tests/unit/test_files.h"

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The value of finite 16-bit numbers with `mantissa_bits`, from the definition. */
static double slow_value(uint16_t bits, int mantissa_bits, int bias)
{
    int mantissa = bits & ((1 << mantissa_bits) - 1);
    int exponent = (bits & 0x7fff) >> mantissa_bits;
    double magnitude =
        exponent == 0 ? ldexp(mantissa, 1 - bias - mantissa_bits)
                      : ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* Nearest number, ties to even, by bisection over all finite magnitudes; beyond the middle between
 * the largest one and what would follow it: infinity. */
static uint16_t slow_narrow(float value, int mantissa_bits, int bias)
{
    uint16_t infinity = (uint16_t)(((1 << (15 - mantissa_bits)) - 1) << mantissa_bits);
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs((double)value);
    uint16_t low = 0, high = infinity; /* value(low) <= magnitude < value(high) */
    if (magnitude >= slow_value(infinity, mantissa_bits, bias)) return sign | infinity;
    while (high - low > 1) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (slow_value(middle, mantissa_bits, bias) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    double below = magnitude - slow_value(low, mantissa_bits, bias);
    double above = slow_value(high, mantissa_bits, bias) - magnitude;
    uint16_t nearest = below < above ? low : above < below ? high : low % 2 == 0 ? low : high;
    return sign | nearest;
}

static void every_f16_widens_exactly_and_comes_back(void)
{
    int wrong = 0;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t bits = (uint16_t)i;
        float value = snrq_f16_to_float(bits);
        if ((bits & 0x7c00) != 0x7c00)
            wrong += (double)value != slow_value(bits, 10, 15) || !!signbit(value) != bits >> 15;
        else if ((bits & 0x3ff) == 0)
            wrong += !isinf(value) || !!signbit(value) != bits >> 15;
        else
            wrong += !isnan(value);
        wrong += snrq_float_to_f16(value) != bits;
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

static void every_bf16_widens_exactly_and_comes_back(void)
{
    int wrong = 0;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t bits = (uint16_t)i;
        float value = snrq_bf16_to_float(bits);
        wrong += bits_of(value) != i << 16;
        wrong += snrq_float_to_bf16(value) != bits;
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* Index of the first number that is not finite, one by one. */
static size_t slow_first_not_finite(snrq_dtype type, const uint16_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value;
        snrq_widen(type, (const unsigned char *)numbers + i * snrq_dtype_size(type), 1, &value);
        if (!isfinite(value)) return i;
    }
    return count;
}

/* At the ends of parts of every length, and beside numbers that are large but finite. */
static void the_first_number_that_is_not_finite_is_found(void)
{
    enum { MOST = 9000 };
    static uint16_t numbers[2 * MOST];
    const size_t places[] = {0, 1, 4095, 4096, 8191, 8192, MOST - 1, MOST};
    const uint16_t bad[] = {0xffff, 0x7f80, 0x7c00}; /* upper halves, for F32 and BF16; F16 */
    const snrq_dtype types[] = {SNRQ_F32, SNRQ_BF16, SNRQ_F16};
    for (int t = 0; t < 3; t++)
        for (int p = 0; p < 8; p++) {
            size_t width = snrq_dtype_size(types[t]) / 2;
            for (size_t i = 0; i < 2 * MOST; i++)
                numbers[i] = types[t] == SNRQ_F16 ? 0x7bff : 0x7f7f;
            if (places[p] < MOST) numbers[places[p] * width + width - 1] = bad[t];
            size_t found = snrq_first_not_finite(types[t], numbers, MOST);
            CU_ASSERT_EQUAL(found, places[p]);
            CU_ASSERT_EQUAL(found, slow_first_not_finite(types[t], numbers, MOST));
        }
    CU_ASSERT_EQUAL(snrq_first_not_finite(SNRQ_F16, numbers, 0), 0);
}

static int narrowing_is_wrong(float value)
{
    return (snrq_float_to_f16(value) != slow_narrow(value, 10, 15)) +
           (snrq_float_to_bf16(value) != slow_narrow(value, 7, 127));
}

static void random_floats_narrow_as_the_slow_twin(void)
{
    uint64_t state = 1;
    int wrong = 0;
    for (int i = 0; i < 400000; i++) {
        float value = float_of((uint32_t)(test_random(&state) >> 32));
        if (!isnan(value)) wrong += narrowing_is_wrong(value);
        /* Most random floats are far outside the range of F16: a second one within. */
        uint32_t inside = (uint32_t)(test_random(&state) >> 32) & 0x87ffffffu;
        wrong += narrowing_is_wrong(float_of(inside + 0x30000000u));
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* Between every two neighbours: the middle, and the floats just beside it. */
static int ties_are_wrong(double a, double b)
{
    float middle = (float)((a + b) / 2);
    return narrowing_is_wrong(middle) + narrowing_is_wrong(nextafterf(middle, INFINITY)) +
           narrowing_is_wrong(nextafterf(middle, -INFINITY)) + narrowing_is_wrong(-middle);
}

static void ties_go_to_even_everywhere(void)
{
    int wrong = 0;
    for (uint16_t i = 0; i < 0x7c00; i++)
        wrong += ties_are_wrong(slow_value(i, 10, 15), slow_value((uint16_t)(i + 1), 10, 15));
    for (uint16_t i = 0; i < 0x7f7f; i++)
        wrong += ties_are_wrong(slow_value(i, 7, 127), slow_value((uint16_t)(i + 1), 7, 127));
    CU_ASSERT_EQUAL(wrong, 0);
}

static void overflow_becomes_infinity(void)
{
    CU_ASSERT_EQUAL(snrq_float_to_f16(65504.0f), 0x7bff);
    CU_ASSERT_EQUAL(snrq_float_to_f16(65519.996f), 0x7bff);
    CU_ASSERT_EQUAL(snrq_float_to_f16(65520.0f), 0x7c00);
    CU_ASSERT_EQUAL(snrq_float_to_f16(-1e30f), 0xfc00);
    CU_ASSERT_EQUAL(snrq_float_to_f16(INFINITY), 0x7c00);
    CU_ASSERT_EQUAL(snrq_float_to_bf16(float_of(0x7f7f7fff)), 0x7f7f);
    CU_ASSERT_EQUAL(snrq_float_to_bf16(float_of(0x7f7f8000)), 0x7f80);
    CU_ASSERT_EQUAL(snrq_float_to_bf16(-INFINITY), 0xff80);
}

static void tiny_numbers_become_subnormal_or_zero(void)
{
    CU_ASSERT_EQUAL(snrq_float_to_f16(0x1p-24f), 1);
    CU_ASSERT_EQUAL(snrq_float_to_f16(0x1p-25f), 0);
    CU_ASSERT_EQUAL(snrq_float_to_f16(0x1.000002p-25f), 1);
    CU_ASSERT_EQUAL(snrq_float_to_f16(-0x1p-30f), 0x8000);
    CU_ASSERT_EQUAL(snrq_float_to_f16(0x1p-149f), 0);
    CU_ASSERT_EQUAL(snrq_float_to_bf16(0x1p-149f), 0);
    CU_ASSERT_EQUAL(snrq_float_to_bf16(-0.0f), 0x8000);
}

static void nan_stays_nan_whatever_its_payload(void)
{
    for (int bit = 0; bit < 23; bit++) {
        float value = float_of(0x7f800000u | 1u << bit),
              negative = float_of(0xff800000u | 1u << bit);
        CU_ASSERT_TRUE(isnan(snrq_f16_to_float(snrq_float_to_f16(value))));
        CU_ASSERT_TRUE(isnan(snrq_bf16_to_float(snrq_float_to_bf16(value))));
        CU_ASSERT_TRUE(snrq_float_to_f16(negative) > 0xfc00);
        CU_ASSERT_TRUE(snrq_float_to_bf16(negative) > 0xff80);
    }
}

static void widening_an_array_reads_unaligned_numbers_of_each_type(void)
{
    enum { COUNT = 37 };
    unsigned char storage[4 * COUNT + 1];
    float out[COUNT];
    const snrq_dtype types[] = {SNRQ_F32, SNRQ_F16, SNRQ_BF16};
    for (size_t t = 0; t < 3; t++) {
        for (int i = 0; i < COUNT; i++) {
            float value = (float)(i - 18) * 0.375f;
            uint16_t half =
                types[t] == SNRQ_F16 ? snrq_float_to_f16(value) : snrq_float_to_bf16(value);
            size_t size = snrq_dtype_size(types[t]);
            memcpy(storage + 1 + size * (size_t)i, size == 4 ? (void *)&value : (void *)&half,
                   size);
        }
        snrq_widen(types[t], storage + 1, COUNT, out);
        for (int i = 0; i < COUNT; i++) CU_ASSERT_EQUAL(out[i], (float)(i - 18) * 0.375f);
    }
    snrq_widen(SNRQ_F32, NULL, 0, out);
}

static void rounding_to_a_type_is_narrowing_and_widening(void)
{
    CU_ASSERT_EQUAL(snrq_round_to(SNRQ_F32, 0.1f), 0.1f);
    CU_ASSERT_EQUAL(snrq_round_to(SNRQ_F16, 0.1f), 0x1.998p-4f);
    CU_ASSERT_EQUAL(snrq_round_to(SNRQ_BF16, 0.1f), 0x1.9ap-4f);
}

static void types_have_names_and_sizes(void)
{
    CU_ASSERT_STRING_EQUAL(snrq_dtype_name(SNRQ_F32), "F32");
    CU_ASSERT_STRING_EQUAL(snrq_dtype_name(SNRQ_F16), "F16");
    CU_ASSERT_STRING_EQUAL(snrq_dtype_name(SNRQ_BF16), "BF16");
    CU_ASSERT_EQUAL(snrq_dtype_size(SNRQ_F32), 4);
    CU_ASSERT_EQUAL(snrq_dtype_size(SNRQ_F16), 2);
    CU_ASSERT_EQUAL(snrq_dtype_size(SNRQ_BF16), 2);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(every_f16_widens_exactly_and_comes_back),
        SNRQ_TEST(every_bf16_widens_exactly_and_comes_back),
        SNRQ_TEST(the_first_number_that_is_not_finite_is_found),
        SNRQ_TEST(random_floats_narrow_as_the_slow_twin),
        SNRQ_TEST(ties_go_to_even_everywhere),
        SNRQ_TEST(overflow_becomes_infinity),
        SNRQ_TEST(tiny_numbers_become_subnormal_or_zero),
        SNRQ_TEST(nan_stays_nan_whatever_its_payload),
        SNRQ_TEST(widening_an_array_reads_unaligned_numbers_of_each_type),
        SNRQ_TEST(rounding_to_a_type_is_narrowing_and_widening),
        SNRQ_TEST(types_have_names_and_sizes),
    };
    return snrq_run_tests("dtype", tests, sizeof tests / sizeof tests[0], 1);
}
