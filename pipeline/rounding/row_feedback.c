/* Coefficients of row feedback; see row_feedback.h for the symbols. */
#include "pipeline/rounding/row_feedback.h"

#include <math.h>

enum { ROWS = SNRQ_TILE_ROWS, BLOCK = SNRQ_ROW_BLOCK };

/* Added to G, as a share of its diagonal: G is a mean over a sample, and two factors are less than
 * the whole truth. With plenty of tokens it hardly matters how much (docs/method.md). */
static double damping(int64_t tokens)
{
    return 0.5 + 8.0 * ROWS / (double)(tokens > 0 ? tokens : 1);
}

/* Rows by ascending G_ii, ties by number. */
static void sort_rows(const float *g, int32_t *row)
{
    for (int32_t i = 0; i < ROWS; i++) {
        int at = i;
        for (; at > 0 && g[row[at - 1] * (ROWS + 1)] > g[i * (ROWS + 1)]; at--)
            row[at] = row[at - 1];
        row[at] = i;
    }
}

/* The damped G in the order of decision. */
static void take_gram(const float *g, double damp, const int32_t *row, double (*out)[ROWS])
{
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < ROWS; j++) out[i][j] = (double)g[row[i] * ROWS + row[j]];
    for (int i = 0; i < ROWS; i++) out[i][i] = out[i][i] > 0.0 ? out[i][i] * (1.0 + damp) : 1.0;
}

/* Lower triangle: G <- M. False if G is not positive definite. */
static bool factorize(double (*g)[ROWS])
{
    for (int j = 0; j < ROWS; j++) {
        for (int k = 0; k < j; k++)
            for (int i = j; i < ROWS; i++) g[i][j] -= g[i][k] * g[j][k];
        if (!(g[j][j] > 0.0)) return false;
        double root = sqrt(g[j][j]);
        for (int i = j; i < ROWS; i++) g[i][j] /= root;
    }
    return true;
}

/* Column k of the coefficients of the block that begins at `begin`: solves M_BB^T x = M_kB^T. */
static void solve(double (*m)[ROWS], int begin, int k, snrq_tile_feedback *out)
{
    double x[ROWS];
    for (int i = begin + BLOCK - 1; i >= begin; i--) {
        x[i] = m[k][i];
        for (int j = i + 1; j < begin + BLOCK; j++) x[i] -= m[j][i] * x[j];
        x[i] /= m[i][i];
        out->decided[i][k] = (float)x[i];
    }
}

snrq_status snrq_tile_feedback_create(const float *g, int64_t tokens, snrq_tile_feedback *out)
{
    double m[ROWS][ROWS];
    *out = (snrq_tile_feedback){0};
    sort_rows(g, out->row);
    take_gram(g, damping(tokens), out->row, m);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < ROWS; j++) out->others[i][j] = (float)(m[i][j] / m[i][i]);
    if (!factorize(m)) return snrq_fail(SNRQ_BAD_DATA, "not a Gram matrix: not positive definite");
    for (int begin = 0; begin < ROWS; begin += BLOCK)
        for (int k = begin + BLOCK; k < ROWS; k++) solve(m, begin, k, out);
    return SNRQ_OK;
}
