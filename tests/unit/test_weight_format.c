/* The table of formats: levels by brute force, numbers that are taken apart, fits that can be
 * stored. */
#include "mpi/algebra/weight_format.h"

#include <math.h>
#include <string.h>

#include "pipeline/rounding/format_grid.h"
#include "tests/unit/test_files.h"

enum { COLUMNS = 512 };

static float uniform(uint64_t *state)
{
    return (float)(test_random(state) >> 40) * 0x1p-23f - 1.0f;
}

static void rows_are_what_they_say(void)
{
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i];
        int64_t groups = f->super_block / f->group;
        if (f->shared_rows > 0) {
            CU_ASSERT_DOUBLE_EQUAL(f->weight_bits, 8.0 + 32.0 / (double)(f->group * f->shared_rows),
                                   1e-12);
            CU_ASSERT_PTR_EQUAL(snrq_weight_format_for(f, 172), f);
            continue;
        }
        double scale = f->scale.power || f->scale.tensor ? 8
                       : !f->scale.shared                ? 16
                       : f->bits == 6                    ? 8
                                                         : 6;
        if (strcmp(f->name, "q2_k") == 0) scale = 4;
        double shared = f->scale.shared ? 16 : 0;
        double bits = f->bits + (scale * (double)groups + shared) / (double)f->super_block;
        if (f->minimum.present) bits += (scale * (double)groups + shared) / (double)f->super_block;
        CU_ASSERT_DOUBLE_EQUAL(bits, f->weight_bits, 1e-12);
        CU_ASSERT_PTR_EQUAL(snrq_weight_format_find(f->name), f);
        CU_ASSERT(f->top < 1 << f->bits);
        for (int k = 0; f->levels != NULL && k < f->top; k++)
            CU_ASSERT(f->levels[k] < f->levels[k + 1]);
        const snrq_weight_format *narrow = snrq_weight_format_for(f, 96);
        CU_ASSERT(narrow != NULL && 96 % narrow->super_block == 0 && narrow->bits >= f->bits);
        CU_ASSERT_PTR_EQUAL(snrq_weight_format_for(f, 256), f);
        CU_ASSERT_PTR_NULL(snrq_weight_format_for(f, 172));
    }
    CU_ASSERT_PTR_NULL(snrq_weight_format_find("q9_k"));
}

/* E4M3 by its bits: sign, four of the exponent, three of the fraction; bits 127 are no number. */
static void e4m3_levels_are_those_of_the_bits(void)
{
    const snrq_weight_format *f = snrq_weight_format_find("fp8_block");
    CU_ASSERT_EQUAL(f->top, 2 * SNRQ_E4M3_ZERO);
    for (int bits = 0; bits < 127; bits++) {
        int exponent = bits >> 3, fraction = bits & 7;
        double value = exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);
        CU_ASSERT_EQUAL((double)f->levels[126 + bits], value);
        CU_ASSERT_EQUAL((double)f->levels[126 - bits], -value);
        CU_ASSERT_EQUAL(snrq_float_bits(f, (uint8_t)(126 + bits)), bits);
        if (bits > 0) CU_ASSERT_EQUAL(snrq_float_bits(f, (uint8_t)(126 - bits)), bits | 128);
    }
}

/* E2M1 by its bits: sign, exponent, mantissa. */
static void e2m1_levels_are_those_of_the_bits(void)
{
    const snrq_weight_format *f = snrq_weight_format_find("mxfp4");
    for (int bits = 0; bits < 8; bits++) {
        int exponent = bits >> 1, mantissa = bits & 1;
        float value = exponent == 0 ? 0.5f * (float)mantissa
                                    : ldexpf(1.0f + 0.5f * (float)mantissa, exponent - 1);
        CU_ASSERT_EQUAL(f->levels[7 + bits], value);
        CU_ASSERT_EQUAL(f->levels[7 - bits], -value);
        CU_ASSERT_EQUAL(snrq_float_bits(f, (uint8_t)(7 + bits)), bits);
        if (bits > 0) CU_ASSERT_EQUAL(snrq_float_bits(f, (uint8_t)(7 - bits)), bits | 8);
    }
}

static void nearest_levels_are_those_of_brute_force(void)
{
    uint64_t state = 1;
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i];
        if (f->levels == NULL) continue;
        for (int n = 0; n < 20000; n++) {
            float x = uniform(&state) * 1.3f * f->levels[f->top];
            int best = 0;
            for (int k = 1; k <= f->top; k++)
                if (fabs((double)x - (double)f->levels[k]) <
                    fabs((double)x - (double)f->levels[best]))
                    best = k;
            CU_ASSERT_EQUAL(snrq_nearest_level(f->levels, f->top, x), best);
        }
        for (int k = 0; k < f->top; k++) { /* ties go down */
            float middle = 0.5f * (f->levels[k] + f->levels[k + 1]);
            CU_ASSERT_EQUAL(snrq_nearest_level(f->levels, f->top, middle), k);
        }
        CU_ASSERT_EQUAL(snrq_nearest_level(f->levels, f->top, INFINITY), f->top);
        CU_ASSERT_EQUAL(snrq_nearest_level(f->levels, f->top, -INFINITY), 0);
    }
}

static void multiples_are_found_again(void)
{
    uint64_t state = 2;
    float values[16], shared;
    int integers[16];
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_stored_numbers *set = &snrq_weight_formats[i].scale;
        int64_t count = snrq_weight_formats[i].super_block / snrq_weight_formats[i].group;
        if (!set->shared) continue;
        for (int n = 0; n < 2000; n++) {
            uint16_t half = (uint16_t)(1 + (test_random(&state) >> 48) % 0x7bff);
            for (int g = 0; g < count; g++) {
                int span = set->highest - set->lowest + 1;
                int integer = set->lowest + (int)((test_random(&state) >> 33) % (uint64_t)span);
                values[g] = snrq_f16_to_float(half) * (float)integer;
            }
            CU_ASSERT_FATAL(snrq_multiples_find(set, count, values, &shared, integers));
            CU_ASSERT(snrq_round_to(SNRQ_F16, shared) == shared);
            for (int g = 0; g < count; g++) {
                CU_ASSERT(integers[g] >= set->lowest && integers[g] <= set->highest);
                CU_ASSERT(shared * (float)integers[g] == values[g]);
            }
        }
        values[0] = 1.0f;
        values[1] = 0.3333333f;
        CU_ASSERT_FALSE(snrq_multiples_find(set, 2, values, &shared, integers));
    }
}

static void powers_are_nearest_and_end(void)
{
    const snrq_stored_numbers set = snrq_weight_format_find("mxfp4")->scale;
    for (int e = -126; e <= 127; e++) {
        CU_ASSERT_EQUAL(snrq_stored_number(&set, 1, ldexpf(1.0f, e)), ldexpf(1.0f, e));
        if (e == 127) break;
        CU_ASSERT_EQUAL(snrq_stored_number(&set, 1, ldexpf(1.41f, e)), ldexpf(1.0f, e));
        CU_ASSERT_EQUAL(snrq_stored_number(&set, 1, ldexpf(1.42f, e)), ldexpf(1.0f, e + 1));
    }
    CU_ASSERT(isinf(snrq_stored_number(&set, 1, 3e38f)));
    CU_ASSERT_EQUAL(snrq_stored_number(&set, 1, 1e-44f), 0x1p-126f);
}

/* By brute force over E4M3: the nearest number above 0, the lower one of two, within the range. */
static void scales_of_a_tensor_are_nearest_and_end(void)
{
    const snrq_stored_numbers set = snrq_weight_format_find("nvfp4")->scale;
    const float *e4m3 = snrq_weight_format_find("fp8_block")->levels;
    uint64_t state = 4;
    for (int n = 0; n < 20000; n++) {
        float tensor = ldexpf(1.0f, (int)(test_random(&state) >> 58) - 40), best = 0.0f;
        float value = ldexpf(1.0f + fabsf(uniform(&state)), (int)(test_random(&state) >> 59) - 16);
        for (int k = SNRQ_E4M3_ZERO + 1; k < SNRQ_E4M3_LEVELS; k++)
            if (best == 0.0f ||
                fabs((double)e4m3[k] - (double)value) < fabs((double)best - (double)value))
                best = e4m3[k];
        CU_ASSERT_EQUAL(snrq_stored_number(&set, tensor, tensor * value), tensor * best);
    }
    CU_ASSERT_EQUAL(snrq_stored_number(&set, 2, 1e30f), 2 * 448);
    CU_ASSERT_EQUAL(snrq_stored_number(&set, 2, 1e-30f), 2 * 0x1p-9f);
    CU_ASSERT_EQUAL(snrq_stored_number(&set, 2, 0), 0);
    CU_ASSERT(isinf(snrq_stored_number(&set, 2, INFINITY)));
}

/* Powers of 2 that no smaller one could replace, for magnitudes of all sizes. */
static void shared_scales_are_the_smallest_powers(void)
{
    const snrq_weight_format *tensor = snrq_weight_format_find("nvfp4");
    const snrq_weight_format *block = snrq_weight_format_find("fp8_block");
    for (int e = -100; e < 120; e++)
        for (float x = ldexpf(1.0f, e); x < ldexpf(2.0f, e); x *= 1.0625f) {
            double t = (double)snrq_weight_format_tensor_scale(tensor, x), y = (double)x;
            double b = (double)snrq_weight_format_block_scale(block, x);
            CU_ASSERT(t == exp2(rint(log2(t))) && b == exp2(rint(log2(b))));
            CU_ASSERT(y <= 6 * 224 * t * (1 + 1e-6) && y > 6 * 112 * t * (1 - 1e-6));
            CU_ASSERT(y <= 448 * b * (1 + 1e-6) && y > 224 * b * (1 - 1e-6));
        }
    CU_ASSERT_EQUAL(snrq_weight_format_tensor_scale(tensor, 0), 1);
    CU_ASSERT_EQUAL(snrq_weight_format_block_scale(block, 0), 1);
    CU_ASSERT_EQUAL(snrq_weight_format_tensor_scale(tensor, 1e-45f), 0x1p-117f);
    CU_ASSERT(snrq_weight_format_block_scale(block, 3.4e38f) * 448 >= 3.4e38f);
    CU_ASSERT_EQUAL(snrq_weight_format_tensor_scale(block, 5), 1);
}

/* One row of a format, with random targets of `size`; fails as the fit does. */
typedef struct fitted {
    snrq_groups groups;
    float target[COLUMNS], scales[COLUMNS / 16], minima[COLUMNS / 16];
    double d2[COLUMNS];
    float tensor;
    snrq_status status;
} fitted;

static void fit(const snrq_weight_format *f, snrq_quant_grid_kind kind, float size, fitted *out)
{
    uint64_t state = 3;
    int32_t order[COLUMNS];
    snrq_rule rule = {.grid = kind};
    snrq_rule_set_format(&rule, f);
    for (int k = 0; k < COLUMNS; k++) order[k] = COLUMNS - 1 - k;
    snrq_groups_create(order, COLUMNS, f->group, false, &out->groups);
    for (int k = 0; k < COLUMNS; k++) {
        float x = uniform(&state) + uniform(&state) + uniform(&state);
        out->target[k] = size * x;
        out->d2[k] = 1.0 + fabs((double)uniform(&state)) * 4.0;
    }
    float largest = 0.0f;
    for (int k = 0; k < COLUMNS; k++) largest = fmaxf(largest, fabsf(out->target[k]));
    out->tensor = snrq_weight_format_tensor_scale(f, largest);
    out->status = snrq_format_grid_fit(&rule, &out->groups, out->target, out->d2, out->tensor,
                                       out->scales, out->minima);
}

static double error_of(const snrq_weight_format *f, const fitted *x)
{
    double sum = 0.0;
    for (int k = 0; k < COLUMNS; k++) {
        int g = x->groups.of_position[k], zero = snrq_weight_format_zero(f);
        double least = INFINITY; /* by brute force */
        for (int code = 0; code <= f->top; code++) {
            float value = snrq_code_value(f->levels, x->scales[g], zero, x->minima[g], code);
            least = fmin(least, fabs((double)(x->target[k] - value)));
        }
        sum += x->d2[k] * least * least;
    }
    return sum;
}

static bool is_stored(const snrq_weight_format *f, const snrq_stored_numbers *set, float tensor,
                      const float *values)
{
    float shared;
    int integers[16];
    int64_t step = f->super_block / f->group;
    for (int64_t g = 0; g < COLUMNS / f->group; g += step) {
        if (set->shared && !snrq_multiples_find(set, step, values + g, &shared, integers))
            return false;
        if (!set->shared && snrq_stored_number(set, tensor, values[g]) != values[g]) return false;
    }
    return true;
}

static void fits_can_be_stored_and_searching_pays(void)
{
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i];
        fitted plain, searched;
        if (f->shared_rows > 0) continue;
        fit(f, SNRQ_QUANT_GRID_MINMAX, 0.02f, &plain);
        fit(f, SNRQ_QUANT_GRID_HESSIAN, 0.02f, &searched);
        CU_ASSERT(plain.status == SNRQ_OK && searched.status == SNRQ_OK);
        for (int g = 0; g < COLUMNS / f->group; g++) {
            CU_ASSERT(searched.scales[g] != 0.0f && isfinite(searched.scales[g]));
            CU_ASSERT(f->minimum.present || searched.minima[g] == 0.0f);
        }
        CU_ASSERT(is_stored(f, &f->scale, plain.tensor, plain.scales) &&
                  is_stored(f, &f->scale, searched.tensor, searched.scales));
        if (f->minimum.present)
            CU_ASSERT(is_stored(f, &f->minimum, 1, plain.minima) &&
                      is_stored(f, &f->minimum, 1, searched.minima));
        CU_ASSERT(error_of(f, &searched) <= error_of(f, &plain));
        snrq_groups_free(&plain.groups);
        snrq_groups_free(&searched.groups);
    }
}

static void zeros_stay_zero_and_too_much_is_refused(void)
{
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i];
        bool exact = f->levels == NULL || f->levels[7] == 0.0f;
        bool wide = f->scale.power || f->scale.tensor; /* reach as far as fp32 does */
        fitted x;
        if (f->shared_rows > 0) continue;
        fit(f, SNRQ_QUANT_GRID_HESSIAN, 0.0f, &x);
        CU_ASSERT_EQUAL(x.status, SNRQ_OK);
        CU_ASSERT(exact ? error_of(f, &x) == 0.0 : error_of(f, &x) < 1e-10);
        snrq_groups_free(&x.groups);
        fit(f, SNRQ_QUANT_GRID_HESSIAN, 1e-12f, &x); /* below any binary16 */
        CU_ASSERT_EQUAL(x.status, SNRQ_OK);
        snrq_groups_free(&x.groups);
        fit(f, SNRQ_QUANT_GRID_HESSIAN, wide ? 1e38f : 1e9f, &x);
        CU_ASSERT_EQUAL(x.status, wide ? SNRQ_OK : SNRQ_BAD_DATA);
        snrq_groups_free(&x.groups);
    }
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(rows_are_what_they_say),
        SNRQ_TEST(e4m3_levels_are_those_of_the_bits),
        SNRQ_TEST(e2m1_levels_are_those_of_the_bits),
        SNRQ_TEST(nearest_levels_are_those_of_brute_force),
        SNRQ_TEST(multiples_are_found_again),
        SNRQ_TEST(powers_are_nearest_and_end),
        SNRQ_TEST(scales_of_a_tensor_are_nearest_and_end),
        SNRQ_TEST(shared_scales_are_the_smallest_powers),
        SNRQ_TEST(fits_can_be_stored_and_searching_pays),
        SNRQ_TEST(zeros_stay_zero_and_too_much_is_refused),
    };
    return snrq_run_tests("weight_format", tests, sizeof tests / sizeof *tests, 1);
}
