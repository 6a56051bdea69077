/* What every CUnit program of this project shares: run the tests given as a table, return their
 * verdict.
 *
 *     static void adds_up(void) { CU_ASSERT_EQUAL(1 + 1, 2); }
 *     int main(void) { return SNRQ_RUN_TESTS(adds_up); }   -- or a list of SNRQ_TEST(name)
 *
 * Silent on success apart from CUnit's own summary on rank 0.
 */
#ifndef SNRQ_TEST_H
#define SNRQ_TEST_H

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct snrq_test {
    const char *name;
    void (*run)(void);
} snrq_test;

#define SNRQ_TEST(function)                                                                        \
    {                                                                                              \
#function, function                                                                        \
    }

enum { SNRQ_TEST_SKIPPED = 77 };

/* Runs the tests; returns 0 if all passed, 1 otherwise. verbose: print the names (one rank only).
 */
static inline int snrq_run_tests(const char *suite_name, const snrq_test *tests, size_t count,
                                 int verbose)
{
    if (CU_initialize_registry() != CUE_SUCCESS) return 1;
    CU_pSuite suite = CU_add_suite(suite_name, NULL, NULL);
    for (size_t i = 0; suite != NULL && i < count; i++)
        if (CU_add_test(suite, tests[i].name, tests[i].run) == NULL) suite = NULL;
    if (suite == NULL) return 1;
    CU_basic_set_mode(verbose ? CU_BRM_NORMAL : CU_BRM_SILENT);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures() + CU_get_number_of_suites_failed();
    unsigned ran = CU_get_number_of_tests_run();
    if (failed > 0 && !verbose) CU_basic_show_failures(CU_get_failure_list());
    CU_cleanup_registry();
    return failed == 0 && ran == count ? 0 : 1;
}

#endif
