/* What a program says of its instructions, and that it refuses to have others. */
#include "mpi/algebra/kernels.h"

#include <string.h>

#include "tests/snrq_test.h"

static void no_wish_or_the_right_one_is_fine(void)
{
    unsetenv("SNRQ_CPU");
    CU_ASSERT_EQUAL(snrq_kernels_check(), SNRQ_OK);
    setenv("SNRQ_CPU", "", 1);
    CU_ASSERT_EQUAL(snrq_kernels_check(), SNRQ_OK);
    setenv("SNRQ_CPU", snrq_kernels_name(), 1);
    CU_ASSERT_EQUAL(snrq_kernels_check(), SNRQ_OK);
}

static void another_wish_is_refused(void)
{
    const char *const names[] = {"generic", "avx2", "avx512", "sse9", "AVX2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], snrq_kernels_name()) == 0) continue;
        setenv("SNRQ_CPU", names[i], 1);
        CU_ASSERT_EQUAL(snrq_kernels_check(), SNRQ_USAGE);
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), names[i]));
    }
}

static void the_description_names_them(void)
{
    char text[256], tiny[4];
    snrq_kernels_describe(text, sizeof text);
    CU_ASSERT_EQUAL(strncmp(text, snrq_kernels_name(), strlen(snrq_kernels_name())), 0);
    CU_ASSERT_PTR_NULL(strchr(text, '\n'));
    snrq_kernels_describe(tiny, sizeof tiny);
    CU_ASSERT_EQUAL(strncmp(text, tiny, sizeof tiny - 1), 0);
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(no_wish_or_the_right_one_is_fine),
        SNRQ_TEST(another_wish_is_refused),
        SNRQ_TEST(the_description_names_them),
    };
    return snrq_run_tests("kernels", tests, sizeof tests / sizeof *tests, 1);
}
