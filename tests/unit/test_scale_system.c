/* Packed linear systems, several at a time: known solutions, and those that have none. */
#include <math.h>
#include <stdlib.h>

#include "pipeline/rounding/scale_system.h"
#include "tests/snrq_test.h"

enum { MOST = 40 };

static double number(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-52 - 1.0;
}

/* Systems A = M M^T + 1 with a chosen solution. */
static void make_systems(int64_t n, snrq_system_lanes *a, snrq_system_lanes *b,
                         double x[MOST][SNRQ_SYSTEM_ROWS])
{
    static double m[MOST][MOST];
    uint64_t state = 3;
    for (int l = 0; l < SNRQ_SYSTEM_ROWS; l++) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) m[i][j] = number(&state);
        for (int64_t i = 0; i < n; i++) {
            x[i][l] = number(&state);
            b[i][l] = 0.0;
        }
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = i == j;
                for (int64_t k = 0; k < n; k++) sum += m[i][k] * m[j][k];
                if (j <= i) a[snrq_system_at(i, j)][l] = sum;
                b[i][l] += sum * x[j][l];
            }
    }
}

static void solutions_are_found(void)
{
    static snrq_system_lanes a[MOST * (MOST + 1) / 2], b[MOST];
    double x[MOST][SNRQ_SYSTEM_ROWS];
    for (int64_t n = 1; n <= MOST; n += 13) {
        CU_ASSERT(snrq_system_cells(n) == n * (n + 1) / 2);
        make_systems(n, a, b, x);
        CU_ASSERT_EQUAL(snrq_system_solve(n, a, b), 0);
        /* condition of A below 200 */
        for (int64_t i = 0; i < n; i++)
            for (int l = 0; l < SNRQ_SYSTEM_ROWS; l++) CU_ASSERT(fabs(b[i][l] - x[i][l]) < 1e-12);
    }
}

static void an_indefinite_system_is_marked_and_harms_no_other(void)
{
    enum { N = 9 };
    static snrq_system_lanes a[N * (N + 1) / 2], b[N];
    double x[MOST][SNRQ_SYSTEM_ROWS];
    make_systems(N, a, b, x);
    a[snrq_system_at(4, 4)][2] = -1.0;
    a[snrq_system_at(7, 7)][5] = NAN;
    CU_ASSERT_EQUAL(snrq_system_solve(N, a, b), 1u << 2 | 1u << 5);
    for (int64_t i = 0; i < N; i++)
        for (int l = 0; l < SNRQ_SYSTEM_ROWS; l++)
            if (l != 2 && l != 5) CU_ASSERT(fabs(b[i][l] - x[i][l]) < 1e-12);
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(solutions_are_found),
                                      SNRQ_TEST(an_indefinite_system_is_marked_and_harms_no_other)};
    return snrq_run_tests("scale_system", tests, sizeof tests / sizeof *tests, 1);
}
