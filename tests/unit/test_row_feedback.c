/* Coefficients of row feedback against what they stand for, in fp64. */
#include <math.h>
#include <string.h>

#include "pipeline/rounding/row_feedback.h"
#include "tests/snrq_test.h"

enum { ROWS = SNRQ_TILE_ROWS, BLOCK = SNRQ_ROW_BLOCK };

enum { TOKENS = 1024 };
static const double DAMP = 1.0; /* of G with so many tokens: 0.5 + 8 * 64 / 1024 */

static double number(int i, int j)
{
    return sin(12.9898 * i + 78.233 * j + 0.5);
}

/* A Gram of 80 random gradients with one direction in common; row `dead` is worth nothing. */
static void make_gram(int dead, float *g)
{
    memset(g, 0, ROWS * ROWS * sizeof *g);
    for (int t = 0; t < 80; t++)
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < ROWS; j++)
                if (i != dead && j != dead)
                    g[i * ROWS + j] += (float)((number(t, i) + number(t, -1)) * (1 + i % 7) *
                                               (number(t, j) + number(t, -1)) * (1 + j % 7));
}

/* Solves A x = b by Gauss's elimination; A [n, n] is lost. */
static void solve_reference(int n, double (*a)[ROWS], double *b)
{
    for (int p = 0; p < n; p++) {
        int best = p;
        for (int i = p; i < n; i++)
            if (fabs(a[i][p]) > fabs(a[best][p])) best = i;
        for (int j = 0; j < n; j++) {
            double swap = a[p][j];
            a[p][j] = a[best][j];
            a[best][j] = swap;
        }
        double swap = b[p];
        b[p] = b[best];
        b[best] = swap;
        for (int i = p + 1; i < n; i++) {
            double share = a[i][p] / a[p][p];
            for (int j = p; j < n; j++) a[i][j] -= share * a[p][j];
            b[i] -= share * b[p];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int j = i + 1; j < n; j++) b[i] -= a[i][j] * b[j];
        b[i] /= a[i][i];
    }
}

/* What all rows before place `end` would be off by if they were free and row k had an error of 1:
 * they minimize e^T G e. The rows of a block are shifted by minus that. */
static void free_errors_reference(const float *g, const int32_t *row, int end, int k, double *e)
{
    static double a[ROWS][ROWS];
    for (int i = 0; i < end; i++) {
        for (int j = 0; j < end; j++)
            a[i][j] = (double)g[row[i] * ROWS + row[j]] * (i == j ? 1.0 + DAMP : 1.0);
        if (a[i][i] == 0.0) a[i][i] = 1.0;
        e[i] = -(double)g[row[i] * ROWS + row[k]];
    }
    solve_reference(end, a, e);
}

static void check_gram(int dead)
{
    static float g[ROWS * ROWS];
    static snrq_tile_feedback f;
    double worst = 0.0;
    make_gram(dead, g);
    CU_ASSERT_EQUAL_FATAL(snrq_tile_feedback_create(g, TOKENS, &f), SNRQ_OK);
    for (int begin = 0; begin < ROWS; begin += BLOCK)
        for (int k = 0; k < ROWS; k++) {
            double e[ROWS] = {0.0};
            if (k >= begin + BLOCK) free_errors_reference(g, f.row, begin + BLOCK, k, e);
            for (int i = begin; i < begin + BLOCK; i++)
                worst = fmax(worst, fabs((double)f.decided[i][k] + e[i]));
        }
    CU_ASSERT(worst < 1e-6);
}

static void blocks_make_up_for_what_later_rows_would_leave(void)
{
    check_gram(-1);
    check_gram(5);
}

static void rows_that_are_worth_most_come_last(void)
{
    static float g[ROWS * ROWS];
    static snrq_tile_feedback f;
    int seen[ROWS] = {0};
    make_gram(5, g);
    CU_ASSERT_EQUAL_FATAL(snrq_tile_feedback_create(g, TOKENS, &f), SNRQ_OK);
    CU_ASSERT_EQUAL(f.row[0], 5);
    for (int i = 0; i < ROWS; i++) seen[f.row[i]]++;
    for (int i = 0; i < ROWS; i++) CU_ASSERT_EQUAL(seen[i], 1);
    for (int i = 1; i < ROWS; i++)
        CU_ASSERT(g[f.row[i - 1] * (ROWS + 1)] <= g[f.row[i] * (ROWS + 1)]);
}

static void others_count_by_their_share(void)
{
    static float g[ROWS * ROWS];
    static snrq_tile_feedback f;
    double worst = 0.0;
    make_gram(-1, g);
    CU_ASSERT_EQUAL_FATAL(snrq_tile_feedback_create(g, TOKENS, &f), SNRQ_OK);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < ROWS; j++) {
            double wanted = (double)g[f.row[i] * ROWS + f.row[j]] /
                            ((double)g[f.row[i] * (ROWS + 1)] * (1.0 + DAMP));
            if (i == j) wanted = 1.0;
            worst = fmax(worst, fabs((double)f.others[i][j] - wanted) / (1.0 + fabs(wanted)));
        }
    CU_ASSERT(worst < 1e-6);
}

static void what_is_no_gram_matrix_is_refused(void)
{
    static float g[ROWS * ROWS];
    static snrq_tile_feedback f;
    make_gram(-1, g);
    g[3 * ROWS + 9] = g[9 * ROWS + 3] = 100.0f * g[3 * (ROWS + 1)] + 100.0f * g[9 * (ROWS + 1)];
    CU_ASSERT_EQUAL(snrq_tile_feedback_create(g, TOKENS, &f), SNRQ_BAD_DATA);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "positive definite"));
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(blocks_make_up_for_what_later_rows_would_leave),
                                      SNRQ_TEST(rows_that_are_worth_most_come_last),
                                      SNRQ_TEST(others_count_by_their_share),
                                      SNRQ_TEST(what_is_no_gram_matrix_is_refused)};
    return snrq_run_tests("row feedback", tests, sizeof tests / sizeof *tests, 1);
}
