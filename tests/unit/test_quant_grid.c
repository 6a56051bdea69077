/* Quantization grids against their definition (method.md, "Grids"), on small cases worked out by
 * hand or by brute force. */
#include <math.h>
#include <string.h>

#include "pipeline/rounding/quant_grid.h"
#include "tests/snrq_test.h"

static const int32_t natural[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

/* Fits one group of `count` values with weights one. */
static void fit(const snrq_rule *rule, int64_t count, const float *values, const double *d2,
                float *scale, uint8_t *zero)
{
    static const double ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    snrq_groups groups;
    CU_ASSERT_EQUAL_FATAL(snrq_groups_create(natural, count, 0, true, &groups), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_quant_grid_fit(rule, &groups, values, d2 ? d2 : ones, scale, zero),
                    SNRQ_OK);
    snrq_groups_free(&groups);
}

static void symmetric_scale_reaches_the_largest_magnitude(void)
{
    const snrq_rule rule = {
        .bits = 3, .symmetric = true, .grid = SNRQ_QUANT_GRID_MINMAX, .scale_type = SNRQ_F32};
    float scale = 0;
    uint8_t zero = 0;
    fit(&rule, 4, (const float[]){0.1f, -0.7f, 0.3f, 0.2f}, NULL, &scale, &zero);
    CU_ASSERT_DOUBLE_EQUAL((double)scale, 2 * 0.7 / 7, 1e-7);
    CU_ASSERT_EQUAL(zero, 4);
}

static void symmetric_group_without_negative_values_is_not_halved(void)
{
    const snrq_rule rule = {
        .bits = 3, .symmetric = true, .grid = SNRQ_QUANT_GRID_MINMAX, .scale_type = SNRQ_F32};
    float scale = 0;
    uint8_t zero = 0;
    fit(&rule, 3, (const float[]){0.1f, 0.7f, 0.3f}, NULL, &scale, &zero);
    CU_ASSERT_DOUBLE_EQUAL((double)scale, 2 * 0.7 / 7, 1e-7);
}

static void asymmetric_grid_includes_zero(void)
{
    const snrq_rule rule = {
        .bits = 2, .symmetric = false, .grid = SNRQ_QUANT_GRID_MINMAX, .scale_type = SNRQ_F32};
    float scale = 0;
    uint8_t zero = 9;
    fit(&rule, 3, (const float[]){0.3f, 0.6f, 0.9f}, NULL, &scale, &zero);
    CU_ASSERT_DOUBLE_EQUAL((double)scale, 0.3, 1e-7);
    CU_ASSERT_EQUAL(zero, 0);
    fit(&rule, 3, (const float[]){-0.3f, 0.1f, 0.6f}, NULL, &scale, &zero);
    CU_ASSERT_DOUBLE_EQUAL((double)scale, 0.3, 1e-7);
    CU_ASSERT_EQUAL(zero, 1);
}

static void all_zero_group_stays_exactly_zero(void)
{
    float scale = 0;
    uint8_t zero = 9;
    for (int kind = SNRQ_QUANT_GRID_MINMAX; kind <= SNRQ_QUANT_GRID_HESSIAN; kind++)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
            const snrq_rule rule = {.bits = 4,
                                    .symmetric = symmetric != 0,
                                    .grid = (snrq_quant_grid_kind)kind,
                                    .scale_type = SNRQ_F16};
            fit(&rule, 3, (const float[]){0, 0, 0}, NULL, &scale, &zero);
            int code = snrq_nearest_code(0.0f, scale, zero, 15);
            CU_ASSERT_EQUAL((double)(scale * (float)(code - zero)), 0.0);
        }
}

static void scales_are_what_the_checkpoint_stores(void)
{
    float scale = 0;
    uint8_t zero = 0;
    const snrq_rule rule = {
        .bits = 3, .symmetric = true, .grid = SNRQ_QUANT_GRID_HESSIAN, .scale_type = SNRQ_F16};
    fit(&rule, 5, (const float[]){0.123f, -0.77f, 0.31f, 0.9f, -0.05f}, NULL, &scale, &zero);
    CU_ASSERT_EQUAL((double)scale, (double)snrq_round_to(SNRQ_F16, scale));
}

static void scale_out_of_range_is_refused_by_value(void)
{
    const snrq_rule rule = {
        .bits = 2, .symmetric = true, .grid = SNRQ_QUANT_GRID_MINMAX, .scale_type = SNRQ_F16};
    snrq_groups groups;
    float scale;
    uint8_t zero;
    CU_ASSERT_EQUAL_FATAL(snrq_groups_create(natural, 2, 0, true, &groups), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_quant_grid_fit(&rule, &groups, (const float[]){1e6f, -1.0f},
                                        (const double[]){1, 1}, &scale, &zero),
                    SNRQ_BAD_DATA);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "--scale-type"));
    snrq_groups_free(&groups);
}

static double weighted_error(const snrq_rule *rule, int64_t n, const float *x, const double *d2,
                             float scale, int zero, double power)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        int code = snrq_nearest_code(x[i], scale, zero, (1 << rule->bits) - 1);
        sum += d2[i] * pow(fabs((double)x[i] - (double)scale * (code - zero)), power);
    }
    return sum;
}

/* The chosen scale is at least as good as every shrink factor of the definition. */
static void searched_grids_minimize_their_error(void)
{
    const float x[] = {0.9f, -0.2f, 0.25f, 0.1f, -0.31f, 0.18f, -0.05f, 0.33f, 0.29f, -0.11f};
    const double d2[] = {0.01, 4, 1, 2, 9, 3, 1, 5, 2, 7}, ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    for (int hessian = 0; hessian < 2; hessian++) {
        const snrq_rule rule = {.bits = 3,
                                .symmetric = true,
                                .grid = hessian ? SNRQ_QUANT_GRID_HESSIAN : SNRQ_QUANT_GRID_MSE,
                                .scale_type = SNRQ_F32};
        const double *weights = hessian ? d2 : ones, power = hessian ? 2.0 : 2.4;
        float scale = 0;
        uint8_t zero = 0;
        fit(&rule, 10, x, d2, &scale, &zero);
        double found = weighted_error(&rule, 10, x, weights, scale, zero, power);
        for (int step = 0; step < 80; step++) {
            float other = 2 * 0.9f * (1.0f - 0.01f * (float)step) / 7;
            CU_ASSERT(found <= weighted_error(&rule, 10, x, weights, other, 4, power) * (1 + 1e-5));
        }
    }
}

/* At 2 bits codes reach two steps below zero and one above, or with a negative scale the other way
 * round: whichever the values need. */
static void sign_follows_the_longer_side(void)
{
    snrq_rule rule = {.bits = 2,
                      .symmetric = true,
                      .either_sign = true,
                      .grid = SNRQ_QUANT_GRID_HESSIAN,
                      .scale_type = SNRQ_F32};
    const float above[] = {0.8f, 0.4f, -0.4f, 0.0f}, below[] = {-0.8f, -0.4f, 0.4f, 0.0f};
    float scale = 0;
    uint8_t zero = 0;
    fit(&rule, 4, above, NULL, &scale, &zero);
    CU_ASSERT(scale < 0 && zero == 2);
    CU_ASSERT_EQUAL(snrq_nearest_code(0.8f, scale, zero, 3), 0);
    CU_ASSERT_EQUAL(snrq_nearest_code(-0.4f, scale, zero, 3), 3);
    fit(&rule, 4, below, NULL, &scale, &zero);
    CU_ASSERT(scale > 0);
    rule.either_sign = false;
    fit(&rule, 4, above, NULL, &scale, &zero);
    CU_ASSERT(scale > 0);
}

/* A number in [-1, 1). */
static double number(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-52 - 1.0;
}

/* The range [lo, hi] by its definition. */
static void twin_range(const snrq_rule *rule, float lo, float hi, float *scale, int *zero)
{
    int top = (1 << rule->bits) - 1;
    float s = rule->symmetric ? 2.0f * fmaxf(-lo, hi) / (float)top : (hi - lo) / (float)top;
    s = snrq_round_to(rule->scale_type, s);
    *scale = s == 0.0f ? 1.0f : s;
    *zero = rule->symmetric ? 1 << (rule->bits - 1)
            : s == 0.0f     ? 0
                            : (int)fminf(nearbyintf(-lo / s), (float)top);
}

/* One range after the other, value after value; then all with negative scales. */
static void twin_fit(const snrq_rule *rule, int64_t n, const float *x, const double *d2,
                     float *scale, int *zero)
{
    float lo = 0.0f, hi = 0.0f;
    double best = INFINITY;
    for (int64_t i = 0; i < n; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    for (int step = 0; step < (rule->either_sign ? 160 : 80); step++) {
        float shrink = 1.0f - 0.01f * (float)(step % 80), s;
        int z;
        double sum = 0.0;
        twin_range(rule, lo * shrink, hi * shrink, &s, &z);
        if (step >= 80) s = -s;
        for (int64_t i = 0; i < n; i++) {
            int code = snrq_nearest_code(x[i], s, z, (1 << rule->bits) - 1);
            double e = fabs((double)(x[i] - s * (float)(code - z)));
            sum += rule->grid == SNRQ_QUANT_GRID_MSE ? pow(e, 2.4) : d2[i] * e * e;
        }
        if (step > 0 && !(sum < best)) continue;
        best = sum;
        *scale = s;
        *zero = z;
    }
}

/* A group whose values are of one of these kinds: any, few different ones, which makes ties, one
 * that is much larger than the others, tiny ones, or of one sign. */
enum { ANY, FEW, LOUD, TINY, POSITIVE, KINDS };

static void fill_group(int kind, int64_t n, uint64_t *state, float *x, double *d2)
{
    for (int64_t i = 0; i < n; i++) {
        double value = number(state) + number(state) + number(state);
        if (kind == FEW) value = nearbyint(2.0 * value) * 0.25;
        if (kind == LOUD && i == n / 2) value *= 1000.0;
        if (kind == TINY) value *= 1e-7;
        if (kind == POSITIVE) value = fabs(value);
        x[i] = (float)(0.05 * value);
        d2[i] = kind == FEW ? 1.0 : exp(2.0 * number(state));
    }
}

static void grids_are_those_of_the_definition(void)
{
    const snrq_dtype types[] = {SNRQ_F32, SNRQ_F16, SNRQ_BF16};
    const int64_t counts[] = {1, 2, 15, 16, 17, 64, 128, 300};
    static float x[300];
    static double d2[300];
    uint64_t state = 7;
    int64_t wrong = 0;
    for (int k = 0; k < 4000; k++) {
        const snrq_rule rule = {.bits = 2 + k % 7,
                                .symmetric = k / 7 % 2 == 0,
                                .either_sign = k / 7 % 2 == 0 && k % 10 != 9 && k / 3 % 2 == 0,
                                .scale_type = types[k / 14 % 3],
                                .grid =
                                    k % 10 == 9 ? SNRQ_QUANT_GRID_MSE : SNRQ_QUANT_GRID_HESSIAN};
        int64_t n = counts[k % 8];
        float scale = 0, expected = 0;
        uint8_t zero = 0;
        int expected_zero = 0;
        fill_group(k % KINDS, n, &state, x, d2);
        CU_ASSERT_EQUAL(snrq_quant_grid_fit_group(&rule, n, x, d2, &scale, &zero), SNRQ_OK);
        twin_fit(&rule, n, x, d2, &expected, &expected_zero);
        wrong += memcmp(&scale, &expected, sizeof scale) != 0 || zero != expected_zero;
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* A row's groups are those that are fitted alone, whatever was fitted before them. */
static void groups_of_a_row_do_not_depend_on_each_other(void)
{
    enum { N = 320, SIZE = 32 };
    const snrq_rule rule = {
        .bits = 3, .symmetric = true, .grid = SNRQ_QUANT_GRID_HESSIAN, .scale_type = SNRQ_F16};
    static float x[N], scales[N / SIZE];
    static double d2[N];
    static int32_t order[N];
    uint8_t zeros[N / SIZE];
    uint64_t state = 8;
    snrq_groups groups;
    for (int k = 0; k < N; k++) order[k] = k;
    for (int g = 0; g < N / SIZE; g++)
        fill_group(g % KINDS, SIZE, &state, x + g * SIZE, d2 + g * SIZE);
    CU_ASSERT_EQUAL_FATAL(snrq_groups_create(order, N, SIZE, true, &groups), SNRQ_OK);
    CU_ASSERT_EQUAL(snrq_quant_grid_fit(&rule, &groups, x, d2, scales, zeros), SNRQ_OK);
    for (int g = 0; g < N / SIZE; g++) {
        float scale = 0;
        uint8_t zero = 0;
        CU_ASSERT_EQUAL(
            snrq_quant_grid_fit_group(&rule, SIZE, x + g * SIZE, d2 + g * SIZE, &scale, &zero),
            SNRQ_OK);
        CU_ASSERT(scale == scales[g] && zero == zeros[g]);
    }
    snrq_groups_free(&groups);
}

static void last_group_may_be_shorter_and_order_is_kept(void)
{
    const int32_t order[] = {4, 2, 0, 1, 3};
    snrq_groups g;
    CU_ASSERT_EQUAL_FATAL(snrq_groups_create(order, 5, 2, true, &g), SNRQ_OK);
    CU_ASSERT_EQUAL(g.count, 3);
    CU_ASSERT_EQUAL(memcmp(g.of_position, (const int32_t[]){0, 0, 1, 1, 2}, 20), 0);
    CU_ASSERT_EQUAL(memcmp(g.g_idx, (const int32_t[]){1, 1, 0, 2, 0}, 20), 0);
    snrq_groups_free(&g);
    CU_ASSERT_EQUAL_FATAL(snrq_groups_create(order, 5, 2, false, &g), SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(g.g_idx, (const int32_t[]){0, 0, 1, 1, 2}, 20), 0);
    CU_ASSERT_EQUAL(memcmp(g.of_position, (const int32_t[]){2, 1, 0, 0, 1}, 20), 0);
    CU_ASSERT_EQUAL(memcmp(g.members, (const int32_t[]){2, 3, 1, 4, 0}, 20), 0);
    snrq_groups_free(&g);
}

static void ties_go_to_the_even_code_and_codes_are_clamped(void)
{
    CU_ASSERT_EQUAL(snrq_nearest_code(0.5f, 1.0f, 4, 7), 4);
    CU_ASSERT_EQUAL(snrq_nearest_code(1.5f, 1.0f, 4, 7), 6);
    CU_ASSERT_EQUAL(snrq_nearest_code(100.0f, 1.0f, 4, 7), 7);
    CU_ASSERT_EQUAL(snrq_nearest_code(-100.0f, 1.0f, 4, 7), 0);
    CU_ASSERT_EQUAL(snrq_nearest_code(1e30f, 1e-10f, 4, 7), 7);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(symmetric_scale_reaches_the_largest_magnitude),
        SNRQ_TEST(symmetric_group_without_negative_values_is_not_halved),
        SNRQ_TEST(asymmetric_grid_includes_zero),
        SNRQ_TEST(all_zero_group_stays_exactly_zero),
        SNRQ_TEST(scales_are_what_the_checkpoint_stores),
        SNRQ_TEST(scale_out_of_range_is_refused_by_value),
        SNRQ_TEST(searched_grids_minimize_their_error),
        SNRQ_TEST(sign_follows_the_longer_side),
        SNRQ_TEST(grids_are_those_of_the_definition),
        SNRQ_TEST(groups_of_a_row_do_not_depend_on_each_other),
        SNRQ_TEST(last_group_may_be_shorter_and_order_is_kept),
        SNRQ_TEST(ties_go_to_the_even_code_and_codes_are_clamped)};
    return snrq_run_tests("quant_grid", tests, sizeof tests / sizeof *tests, 1);
}
