/* The vectorizable exp against libm's in fp64. */
#include <math.h>

#include "pipeline/model/exponential.h"
#include "tests/snrq_test.h"

static void agrees_with_libm_everywhere(void)
{
    for (int i = 0; i <= 1750000; i++) {
        float x = -87.0f + (float)i * 1e-4f;
        double e = exp((double)x);
        CU_ASSERT(fabs((double)snrq_exp(x) - e) <= 2e-7 * e);
    }
}

static void ends_are_clamped_and_zero_is_exact(void)
{
    CU_ASSERT_EQUAL(snrq_exp(0.0f), 1.0f);
    CU_ASSERT_EQUAL(snrq_exp(-1e30f), snrq_exp(-87.0f));
    CU_ASSERT_EQUAL(snrq_exp(-INFINITY), snrq_exp(-87.0f));
    CU_ASSERT_EQUAL(snrq_exp(1e30f), snrq_exp(88.0f));
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(agrees_with_libm_everywhere),
                                      SNRQ_TEST(ends_are_clamped_and_zero_is_exact)};
    return snrq_run_tests("exponential", tests, sizeof tests / sizeof *tests, 1);
}
