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
                                   snrq_matrix *product, const snrq_target *t, double *table,
                                   double *out)
{
    SNRQ_TRY(snrq_factor_multiply(a, 0, weights, product));
    SNRQ_TRY(snrq_matrix_rows(product, t->range, table));
    for (int64_t r = 0; r < t->range.end - t->range.begin; r++)
        out[r] = dot(t->columns, t->weights + r * t->columns, table + r * t->columns);
    return SNRQ_OK;
}

static snrq_status compute(const snrq_options *o, snrq_statistics *s, const snrq_matrix *weights,
                           snrq_matrix *product, double *table, snrq_target *t)
{
    SNRQ_TRY(quadratic_forms(s->h, weights, product, t, table, t->output));
    if (s->e != NULL)
        SNRQ_TRY(quadratic_forms(s->e, weights, product, t, table, t->mismatch_energy));
    SNRQ_TRY(snrq_matrix_create(s->grid, t->columns, t->columns, &t->l));
    SNRQ_TRY(snrq_factor_cholesky(s->h, o->damp, t->l, &t->factor));
    if (!snrq_shifts_target(o)) return SNRQ_OK;
    SNRQ_TRY(snrq_factor_multiply(s->d, 1, weights, product));
    SNRQ_TRY(snrq_matrix_rows(product, t->range, t->mismatch));
    SNRQ_TRY(snrq_factor_solve(t->l, product));
    return snrq_matrix_rows(product, t->range, t->shift);
}

static snrq_status allocate(const snrq_options *o, const snrq_statistics *s, snrq_target *t,
                            double **table)
{
    size_t rows = (size_t)(t->range.end - t->range.begin), cells = rows * (size_t)t->columns;
    SNRQ_TRY(snrq_allocate(cells, sizeof(float), "weights", &t->weights));
    SNRQ_TRY(snrq_allocate(rows, sizeof(double), "row figures", &t->output));
    SNRQ_TRY(snrq_allocate(cells, sizeof(double), "products", table));
    if (s->e != NULL)
        SNRQ_TRY(snrq_allocate(rows, sizeof(double), "row figures", &t->mismatch_energy));
    if (!snrq_shifts_target(o)) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate(cells, sizeof(double), "mismatch products", &t->mismatch));
    return snrq_allocate(cells, sizeof(double), "target shifts", &t->shift);
}

snrq_status snrq_target_create(const snrq_context *context, const snrq_options *options,
                               snrq_statistics *statistics, const snrq_modules *modules,
                               snrq_range range, snrq_target *out)
{
    snrq_matrix *weights = NULL, *product = NULL;
    double *table = NULL;
    ordered_rows ordered = {
        .row = modules->row, .source = modules->source, .statistics = statistics};
    int64_t n = statistics->columns, m = modules->first[modules->count];
    *out = (snrq_target){.range = range, .columns = n};
    snrq_status status = snrq_allocate((size_t)n, sizeof(float), "weight row", &ordered.original);
    if (status == SNRQ_OK) status = allocate(options, statistics, out, &table);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = snrq_matrix_create(statistics->grid, n, m, &weights);
    if (status == SNRQ_OK) status = snrq_matrix_create(statistics->grid, n, m, &product);
    if (status == SNRQ_OK) {
        for (int64_t r = range.begin; r < range.end; r++)
            ordered_row(&ordered, r, out->weights + (r - range.begin) * n);
        status = snrq_agree(context, snrq_matrix_set_rows(weights, ordered_row, &ordered));
    }
    if (status == SNRQ_OK) status = compute(options, statistics, weights, product, table, out);
    snrq_matrix_destroy(&product);
    snrq_matrix_destroy(&weights);
    free(table);
    free(ordered.original);
    if (status != SNRQ_OK) snrq_target_free(out);
    return status;
}

void snrq_target_free(snrq_target *t)
{
    snrq_matrix_destroy(&t->l);
    free(t->weights);
    free(t->mismatch);
    free(t->shift);
    free(t->output);
    free(t->mismatch_energy);
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

snrq_status snrq_target_alpha_corr(const snrq_context *context, const snrq_target *t,
                                   int64_t rows_global, snrq_range module, double *alpha)
{
    int64_t rows = t->range.end - t->range.begin, n = t->columns;
    double reachable = 0.0, energy = 0.0, *row = NULL;
    snrq_status status = snrq_allocate((size_t)rows, sizeof *row, "row figures", &row);
    for (int64_t r = 0; status == SNRQ_OK && r < rows; r++)
        for (int64_t k = r * n; k < (r + 1) * n; k++) row[r] += t->mismatch[k] * t->shift[k];
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = snrq_sum_rows(context, t->range, row, rows_global, module, &reachable);
    if (status == SNRQ_OK)
        status = snrq_sum_rows(context, t->range, t->mismatch_energy, rows_global, module, &energy);
    double share = reachable / energy;
    *alpha = !(energy > 0.0) || !isfinite(share) || share < 0.0 ? 0.0 : share > 1.0 ? 1.0 : share;
    free(row);
    return status;
}

void snrq_target_row(const snrq_target *t, int64_t row, double alpha, float *out)
{
    for (int64_t k = 0; k < t->columns; k++) {
        int64_t at = row * t->columns + k;
        double shift = t->shift != NULL ? alpha * t->shift[at] : 0.0;
        out[k] = (float)((double)t->weights[at] + shift);
    }
}
