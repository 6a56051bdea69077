/* Targets; see target.h. */
#include "pipeline/rounding/target.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of W in decision order, dead inputs zero. */
typedef struct ordered_rows {
    snrq_row_source *row;
    const void *source;
    const snrq_statistics *statistics;
    float *original; /* [columns] scratch */
} ordered_rows;

static void ordered_row(const void *source, int64_t row, float *out)
{
    const ordered_rows *s = source;
    s->row(s->source, row, s->original);
    for (int64_t k = 0; k < s->statistics->columns; k++)
        out[k] = s->statistics->dead[k] ? 0.0f : s->original[s->statistics->order[k]];
}

static double dot(int64_t n, const float *w, const double *v)
{
    double sum = 0.0;
    for (int64_t k = 0; k < n; k++) sum += (double)w[k] * v[k];
    return sum;
}

/* out [rows] = diagonal of W A W^T for this rank's rows; product and table are scratch. */
static snrq_status quadratic_forms(const snrq_matrix *a, const snrq_matrix *weights,
                                   snrq_matrix *product, const snrq_target_parts *t, double *table,
                                   double *out)
{
    SNRQ_TRY(snrq_factor_multiply(a, 0, weights, product));
    SNRQ_TRY(snrq_matrix_rows(product, t->range, table));
    for (int64_t r = 0; r < t->range.end - t->range.begin; r++)
        out[r] = dot(t->columns, t->w + r * t->columns, table + r * t->columns);
    return SNRQ_OK;
}

static snrq_status compute(const snrq_rule *rule, snrq_statistics *s, const snrq_matrix *weights,
                           snrq_matrix *product, double *table, snrq_target_parts *t)
{
    SNRQ_TRY(quadratic_forms(s->h, weights, product, t, table, t->whw));
    if (s->e != NULL) SNRQ_TRY(quadratic_forms(s->e, weights, product, t, table, t->wew));
    SNRQ_TRY(snrq_matrix_create(s->process_grid, t->columns, t->columns, &t->l));
    SNRQ_TRY(snrq_factor_cholesky(s->h, rule->damp, t->l, &t->factor));
    if (!snrq_rule_shifts_target(rule)) return SNRQ_OK;
    SNRQ_TRY(snrq_factor_multiply(s->d, 1, weights, product));
    SNRQ_TRY(snrq_matrix_rows(product, t->range, t->wd));
    SNRQ_TRY(snrq_factor_solve(t->l, product));
    return snrq_matrix_rows(product, t->range, t->wdh);
}

static snrq_status allocate(const snrq_rule *rule, const snrq_statistics *s, snrq_target_parts *t,
                            double **table)
{
    size_t rows = (size_t)(t->range.end - t->range.begin), cells = rows * (size_t)t->columns;
    SNRQ_TRY(snrq_allocate(cells, sizeof(float), "weights", &t->w));
    SNRQ_TRY(snrq_allocate(rows, sizeof(double), "row figures", &t->whw));
    SNRQ_TRY(snrq_allocate(cells, sizeof(double), "products", table));
    if (s->e != NULL) SNRQ_TRY(snrq_allocate(rows, sizeof(double), "row figures", &t->wew));
    if (!snrq_rule_shifts_target(rule)) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate(cells, sizeof(double), "W D", &t->wd));
    return snrq_allocate(cells, sizeof(double), "W D H^-1", &t->wdh);
}

snrq_status snrq_target_create(const snrq_context *context, const snrq_rule *rule,
                               snrq_statistics *statistics, const snrq_stack *stack,
                               snrq_range range, snrq_target_parts *out)
{
    snrq_matrix *weights = NULL, *product = NULL;
    double *table = NULL;
    ordered_rows ordered = {.row = stack->row, .source = stack->source, .statistics = statistics};
    int64_t n = statistics->columns, m = stack->first[stack->count];
    *out = (snrq_target_parts){.range = range, .columns = n};
    snrq_status status = snrq_allocate((size_t)n, sizeof(float), "weight row", &ordered.original);
    if (status == SNRQ_OK) status = allocate(rule, statistics, out, &table);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = snrq_matrix_create(statistics->process_grid, n, m, &weights);
    if (status == SNRQ_OK) status = snrq_matrix_create(statistics->process_grid, n, m, &product);
    if (status == SNRQ_OK) {
        for (int64_t r = range.begin; r < range.end; r++)
            ordered_row(&ordered, r, out->w + (r - range.begin) * n);
        status = snrq_agree(context, snrq_matrix_set_rows(weights, ordered_row, &ordered));
    }
    if (status == SNRQ_OK) status = compute(rule, statistics, weights, product, table, out);
    snrq_matrix_destroy(&product);
    snrq_matrix_destroy(&weights);
    free(table);
    free(ordered.original);
    if (status != SNRQ_OK) snrq_target_free(out);
    return status;
}

void snrq_target_free(snrq_target_parts *t)
{
    snrq_matrix_destroy(&t->l);
    free(t->w);
    free(t->wd);
    free(t->wdh);
    free(t->whw);
    free(t->wew);
    memset(t, 0, sizeof *t);
}

snrq_status snrq_sum_rows(const snrq_context *context, snrq_range mine, const double *values,
                          int64_t rows_global, snrq_range module, double *sum)
{
    double *all = NULL;
    *sum = 0.0;
    snrq_status status =
        snrq_agree(context, snrq_allocate((size_t)rows_global, sizeof *all, "row figures", &all));
    if (status == SNRQ_OK) {
        memcpy(all + mine.begin, values, (size_t)(mine.end - mine.begin) * sizeof *all);
        status = snrq_collect(context, all, rows_global);
    }
    for (int64_t r = module.begin; status == SNRQ_OK && r < module.end; r++) *sum += all[r];
    free(all);
    return status;
}

snrq_status snrq_target_alpha_corr(const snrq_context *context, const snrq_target_parts *t,
                                   int64_t rows_global, snrq_range module, double *alpha)
{
    int64_t rows = t->range.end - t->range.begin, n = t->columns;
    double reachable = 0.0, energy = 0.0, *row = NULL;
    snrq_status status = snrq_allocate((size_t)rows, sizeof *row, "row figures", &row);
    for (int64_t r = 0; status == SNRQ_OK && r < rows; r++)
        for (int64_t k = r * n; k < (r + 1) * n; k++) row[r] += t->wd[k] * t->wdh[k];
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = snrq_sum_rows(context, t->range, row, rows_global, module, &reachable);
    if (status == SNRQ_OK)
        status = snrq_sum_rows(context, t->range, t->wew, rows_global, module, &energy);
    double share = reachable / energy;
    *alpha = !(energy > 0.0) || !isfinite(share) || share < 0.0 ? 0.0 : share > 1.0 ? 1.0 : share;
    free(row);
    return status;
}

void snrq_target_row(const snrq_target_parts *t, int64_t row, double alpha, float *out)
{
    for (int64_t k = 0; k < t->columns; k++) {
        int64_t at = row * t->columns + k;
        double shift = t->wdh != NULL ? alpha * t->wdh[at] : 0.0;
        out[k] = (float)((double)t->w[at] + shift);
    }
}
