/* What few tokens do not support is not corrected. */
#include <math.h>

#include "pipeline/rounding/strengths.h"
#include "tests/snrq_test.h"

static snrq_rule automatic(void)
{
    return (snrq_rule){.method = SNRQ_KSNRQ,
                       .alpha_mode = SNRQ_ALPHA_AUTO,
                       .shrink = SNRQ_AUTO,
                       .compensate = SNRQ_AUTO,
                       .inputs = 100000,
                       .residual_inputs = 60000};
}

static void given_values_are_taken(void)
{
    snrq_rule rule = automatic();
    rule.alpha_mode = SNRQ_ALPHA_FIXED;
    rule.alpha_value = 0.25;
    rule.shrink = 0.125;
    rule.compensate = 0.75;
    snrq_strengths s = snrq_strengths_choose(&rule, 4096, 100);
    CU_ASSERT_EQUAL(s.alpha, 0.25);
    CU_ASSERT_EQUAL(s.shrink, 0.125);
    CU_ASSERT_EQUAL(s.level, 0.0);
    CU_ASSERT_EQUAL(s.compensation, 0.75);
}

/* From no tokens to speak of to more than can matter. */
static void more_tokens_mean_more_trust(void)
{
    snrq_rule rule = automatic();
    snrq_strengths before = snrq_strengths_choose(&rule, 576, 1);
    CU_ASSERT_TRUE(before.shrink > 1.0 && before.compensation < 0.01);
    CU_ASSERT_DOUBLE_EQUAL(before.alpha, 0.7 / 1.36, 1e-12); /* however few they are */
    for (int64_t tokens = 10; tokens <= INT64_C(1000000000); tokens *= 10) {
        snrq_strengths s = snrq_strengths_choose(&rule, 576, tokens);
        CU_ASSERT_TRUE(s.shrink < before.shrink && s.level < before.level);
        CU_ASSERT_TRUE(s.alpha >= before.alpha && s.alpha <= 1.0);
        CU_ASSERT_TRUE(s.compensation > before.compensation && s.compensation <= 1.0);
        before = s;
    }
    snrq_strengths plenty = snrq_strengths_choose(&rule, 576, 0); /* unknown */
    CU_ASSERT_TRUE(fabs(plenty.shrink - before.shrink) < 1e-4);
    CU_ASSERT_TRUE(fabs(plenty.alpha - before.alpha) < 1e-4);
    CU_ASSERT_TRUE(fabs(plenty.compensation - before.compensation) < 1e-4);
}

/* Wider inputs and larger models need more tokens. */
static void trust_falls_with_what_is_fitted(void)
{
    snrq_rule small = automatic(), large = automatic();
    large.inputs *= 2;
    large.residual_inputs *= 2;
    snrq_strengths a = snrq_strengths_choose(&small, 576, 131072),
                   b = snrq_strengths_choose(&large, 576, 131072),
                   wide = snrq_strengths_choose(&small, 1536, 131072);
    CU_ASSERT_TRUE(b.alpha < a.alpha && b.compensation < a.compensation && b.shrink == a.shrink);
    CU_ASSERT_TRUE(wide.shrink > a.shrink && wide.alpha == a.alpha);
}

/* C has no meaning without a shifted target whose strength is known before. */
static void only_shifted_targets_compensate(void)
{
    const snrq_method methods[] = {SNRQ_RTN, SNRQ_LDLQ, SNRQ_GPTQ, SNRQ_GPTAQ};
    for (int k = 0; k < 4; k++) {
        snrq_rule rule = automatic();
        rule.method = methods[k];
        CU_ASSERT_EQUAL(snrq_strengths_choose(&rule, 576, 8192).compensation, 0.0);
    }
    snrq_rule rule = automatic();
    rule.alpha_mode = SNRQ_ALPHA_CORR;
    CU_ASSERT_EQUAL(snrq_strengths_choose(&rule, 576, 8192).compensation, 0.0);
    rule.alpha_mode = SNRQ_ALPHA_FIXED;
    rule.alpha_value = 0.0;
    CU_ASSERT_EQUAL(snrq_strengths_choose(&rule, 576, 8192).compensation, 0.0);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(given_values_are_taken),
        SNRQ_TEST(more_tokens_mean_more_trust),
        SNRQ_TEST(trust_falls_with_what_is_fitted),
        SNRQ_TEST(only_shifted_targets_compensate),
    };
    return snrq_run_tests("strengths", tests, sizeof tests / sizeof *tests, 1);
}
