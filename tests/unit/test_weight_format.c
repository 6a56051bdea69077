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
        double scale = f->scale.power ? 8 : !f->scale.shared ? 16 : f->bits == 6 ? 8 : 6;
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
        CU_ASSERT(narrow != NULL && narrow->super_block == 32 && narrow->bits >= f->bits);
        CU_ASSERT_PTR_EQUAL(snrq_weight_format_for(f, 256), f);
        CU_ASSERT_PTR_NULL(snrq_weight_format_for(f, 172));
    }
    CU_ASSERT_PTR_NULL(snrq_weight_format_find("q9_k"));
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
        CU_ASSERT_EQUAL(snrq_stored_number(&set, ldexpf(1.0f, e)), ldexpf(1.0f, e));
        if (e < 127) CU_ASSERT_EQUAL(snrq_stored_number(&set, ldexpf(1.41f, e)), ldexpf(1.0f, e));
        if (e < 127)
            CU_ASSERT_EQUAL(snrq_stored_number(&set, ldexpf(1.42f, e)), ldexpf(1.0f, e + 1));
    }
    CU_ASSERT(isinf(snrq_stored_number(&set, 3e38f)));
    CU_ASSERT_EQUAL(snrq_stored_number(&set, 1e-44f), 0x1p-126f);
}

/* One row of a format, with random targets of `size`; fails as the fit does. */
typedef struct fitted {
    snrq_groups groups;
    float target[COLUMNS], scales[COLUMNS / 16], minima[COLUMNS / 16];
    double d2[COLUMNS];
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
    out->status =
        snrq_format_grid_fit(&rule, &out->groups, out->target, out->d2, out->scales, out->minima);
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

static bool is_stored(const snrq_weight_format *f, const snrq_stored_numbers *set,
                      const float *values)
{
    float shared;
    int integers[16];
    int64_t step = f->super_block / f->group;
    for (int64_t g = 0; g < COLUMNS / f->group; g += step) {
        if (set->shared && !snrq_multiples_find(set, step, values + g, &shared, integers))
            return false;
        if (!set->shared && snrq_stored_number(set, values[g]) != values[g]) return false;
    }
    return true;
}

static void fits_can_be_stored_and_searching_pays(void)
{
    for (int i = 0; i < SNRQ_WEIGHT_FORMATS; i++) {
        const snrq_weight_format *f = &snrq_weight_formats[i];
        fitted plain, searched;
        fit(f, SNRQ_QUANT_GRID_MINMAX, 0.02f, &plain);
        fit(f, SNRQ_QUANT_GRID_HESSIAN, 0.02f, &searched);
        CU_ASSERT(plain.status == SNRQ_OK && searched.status == SNRQ_OK);
        for (int g = 0; g < COLUMNS / f->group; g++) {
            CU_ASSERT(searched.scales[g] != 0.0f && isfinite(searched.scales[g]));
            CU_ASSERT(f->minimum.present || searched.minima[g] == 0.0f);
        }
        CU_ASSERT(is_stored(f, &f->scale, plain.scales) &&
                  is_stored(f, &f->scale, searched.scales));
        if (f->minimum.present)
            CU_ASSERT(is_stored(f, &f->minimum, plain.minima) &&
                      is_stored(f, &f->minimum, searched.minima));
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
        fitted x;
        fit(f, SNRQ_QUANT_GRID_HESSIAN, 0.0f, &x);
        CU_ASSERT_EQUAL(x.status, SNRQ_OK);
        CU_ASSERT(exact ? error_of(f, &x) == 0.0 : error_of(f, &x) < 1e-10);
        snrq_groups_free(&x.groups);
        fit(f, SNRQ_QUANT_GRID_HESSIAN, 1e-12f, &x); /* below any binary16 */
        CU_ASSERT_EQUAL(x.status, SNRQ_OK);
        snrq_groups_free(&x.groups);
        /* Powers of 2 reach as far as fp32 does. */
        fit(f, SNRQ_QUANT_GRID_HESSIAN, f->scale.power ? 1e38f : 1e9f, &x);
        CU_ASSERT_EQUAL(x.status, f->scale.power ? SNRQ_OK : SNRQ_BAD_DATA);
        snrq_groups_free(&x.groups);
    }
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(rows_are_what_they_say),
        SNRQ_TEST(e2m1_levels_are_those_of_the_bits),
        SNRQ_TEST(nearest_levels_are_those_of_brute_force),
        SNRQ_TEST(multiples_are_found_again),
        SNRQ_TEST(powers_are_nearest_and_end),
        SNRQ_TEST(fits_can_be_stored_and_searching_pays),
        SNRQ_TEST(zeros_stay_zero_and_too_much_is_refused),
    };
    return snrq_run_tests("weight_format", tests, sizeof tests / sizeof *tests, 1);
}
