/* Factorization, and what the rounding targets of modules that share an input are made of.
 *
 * Symbols (decision order; m rows of all the modules, stacked, of which this rank has `rows`):
 *   W [m, n]         weights;  H, D, E, L as in statistics.h and search.h
 *   a                regularization strength of the row's module
 *   b, C             of a unit that writes to the residual stream: how much of the stream's error
 *                    is taken along, and its sums with the inputs (statistics.h)
 *   R = W + (a W D + b C) H^-1                the target; without C, W (H + a D) H^-1
 * H is the damped matrix here: H + delta diag(H) + lambda I. Source: arXiv 2602.05902 (target and
 * closed forms of a), docs/method.md.
 *
 * H is factorized in fp64; what is made of rows of W is fp32, row by row (row_products.h). Why that
 * is enough: docs/method.md, "Precision".
 */
#ifndef SNRQ_TARGET_H
#define SNRQ_TARGET_H

#include "mpi/algebra/factor.h"
#include "mpi/algebra/row_products.h"
#include "pipeline/rounding/statistics.h"

enum { SNRQ_MODULES_NAME = 192 };

/* Writes row `row` of a dense table (n floats) to its last argument. */
typedef void snrq_row_source(const void *source, int64_t row, float *out);

/* The rows of modules that share an input and are rounded together, one module after the other. */
typedef struct snrq_stack {
    int count;            /* modules */
    const int64_t *first; /* [count + 1] stacked row where each module starts; the last entry is the
                             number of rows */
    const char *const *names;   /* [count] for messages */
    const char *together;       /* a name for all of them, for messages */
    const double *alpha_before; /* [count] alpha chained: strength of each module, else unused */
    snrq_row_source *row;       /* row r of the stacked W, original column order; called from many
                                   threads at a time */
    const void *source;
    const float *row_grams; /* [tiles of this rank][SNRQ_TILE_ROWS][SNRQ_TILE_ROWS] G of its stacked
                               rows (row_feedback.h), where the rule couples rows */
    int64_t row_gram_tokens; /* that G is a mean over */
} snrq_stack;

/* What R is put together from, fields named after their formulas. */
typedef struct snrq_target_parts {
    snrq_range range; /* of this rank's rows */
    int64_t columns;
    double unit; /* of W D below: a power of two near mean(diag H), so that it fits fp32 */
    float *w;    /* W [rows, n], dead inputs zero; owned */
    /* With C, the next three have W D + (b / a) C in place of W D. */
    float *wd;       /* W D / unit [rows, n], or NULL if the target is W; owned */
    float *wdh;      /* W D H^-1 [rows, n], or NULL; owned */
    double *reached; /* [rows] diagonal of W D H^-1 D^T W^T, or NULL; owned */
    double *whw;     /* [rows] diagonal of W H W^T, undamped; owned */
    double *wew;     /* [rows] diagonal of W E W^T, or NULL; owned */
    double *added;   /* [n] to the diagonal of H: delta H_kk + lambda; owned */
    snrq_matrix *l;  /* Cholesky factor of the damped H; owned */
    snrq_factor_report factor;
} snrq_target_parts;

/* Multiplies, factorizes (H becomes the damped matrix) and solves. Collective; agreed. */
snrq_status snrq_target_create(const snrq_context *context, const snrq_rule *rule,
                               snrq_statistics *statistics, const snrq_stack *stack,
                               snrq_range range, snrq_target_parts *out);
void snrq_target_free(snrq_target_parts *parts);

/* alpha corr: the share of the output mismatch energy that a weight change can reach,
 * tr(W D H^-1 D^T W^T) / tr(W E W^T), clamped to [0, 1], over stacked rows [module.begin,
 * module.end); 0 if the denominator is 0 or not finite. Collective; the same on all ranks. */
snrq_status snrq_target_alpha_corr(const snrq_context *context, const snrq_target_parts *parts,
                                   int64_t rows_global, snrq_range module, double *alpha);

/* R [columns] of local row `row`. Not collective. */
void snrq_target_row(const snrq_target_parts *parts, int64_t row, double alpha, float *out);

/* Frees what only snrq_target_row() needs. Not collective. */
void snrq_target_free_shifts(snrq_target_parts *parts);

/* Adds up values [range of this rank] over the rows [module.begin, module.end) of all ranks, in row
 * order. Collective. */
snrq_status snrq_sum_rows(const snrq_context *context, snrq_range mine, const double *values,
                          int64_t rows_global, snrq_range module, double *sum);

#endif
