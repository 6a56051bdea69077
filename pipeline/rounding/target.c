/* Targets; see target.h. */
#include "pipeline/rounding/target.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Rows of W in decision order, dead inputs zero. */
static snrq_status order_rows(const snrq_stack *stack, const snrq_statistics *s,
                              snrq_target_parts *t)
{
    int64_t n = t->columns, threads = omp_get_max_threads();
    float *original = NULL;
    SNRQ_TRY(snrq_allocate((size_t)(threads * n), sizeof *original, "weight rows", &original));
#pragma omp parallel for schedule(static)
    for (int64_t r = t->range.begin; r < t->range.end; r++) {
        float *from = original + omp_get_thread_num() * n, *to = t->w + (r - t->range.begin) * n;
        stack->row(stack->source, r, from);
        for (int64_t k = 0; k < n; k++) to[k] = s->dead[k] ? 0.0f : from[s->order[k]];
    }
    free(original);
    return SNRQ_OK;
}

static void scale(int64_t count, double *values, double factor)
{
    for (int64_t k = 0; k < count; k++) values[k] *= factor;
}

/* A power of 4 near the mean of the diagonal of H. */
static double choose_unit(int64_t n, const double *diagonal)
{
    double mean = 0.0;
    int exponent = 0;
    for (int64_t k = 0; k < n; k++) mean += diagonal[k] / (double)n;
    if (isfinite(mean) && mean > 0.0) frexp(mean, &exponent);
    return ldexp(1.0, exponent / 2 * 2);
}

/* Adds share C to this rank's rows of W D, both in units of `unit`. */
static snrq_status add_residual(const snrq_statistics *s, double share, snrq_target_parts *t)
{
    const snrq_context *context = s->process_grid->context;
    int64_t n = t->columns;
    double *panel = NULL;
    snrq_status status = snrq_agree(
        context, snrq_allocate((size_t)n * SNRQ_PANEL, sizeof *panel, "panel of C", &panel));
    for (int64_t begin = 0; status == SNRQ_OK && begin < s->c->columns; begin += SNRQ_PANEL) {
        int64_t left = s->c->columns - begin, width = left < SNRQ_PANEL ? left : SNRQ_PANEL;
        status = snrq_matrix_broadcast_panel(s->c, begin, width, 0, panel);
        for (int64_t r = begin; status == SNRQ_OK && r < begin + width; r++) {
            if (r < t->range.begin || r >= t->range.end) continue;
            float *wd = t->wd + (r - t->range.begin) * n;
            const double *c = panel + (r - begin) * n;
            for (int64_t k = 0; k < n; k++) wd[k] = (float)((double)wd[k] + share / t->unit * c[k]);
        }
    }
    free(panel);
    return status;
}

/* H <- the damped H, and its factor. added: what the diagonal was, then what was added to it. */
static snrq_status factorize(const snrq_rule *rule, snrq_statistics *s, snrq_target_parts *t)
{
    double *after = NULL;
    SNRQ_TRY(snrq_matrix_create(s->process_grid, t->columns, t->columns, &t->l));
    SNRQ_TRY(snrq_agree(s->process_grid->context,
                        snrq_allocate((size_t)t->columns, sizeof *after, "diagonal of H", &after)));
    snrq_matrix_scale_diagonal(s->h, 1.0 + s->strengths.shrink);
    snrq_status status =
        snrq_factor_cholesky(s->h, rule->damp + s->strengths.level, t->l, &t->factor);
    if (status == SNRQ_OK) status = snrq_matrix_diagonal(s->h, after);
    for (int64_t k = 0; k < t->columns; k++) t->added[k] = after[k] - t->added[k];
    free(after);
    return status;
}

/* W D (with C), W D H^-1 and what of W D can be reached. */
static snrq_status shift_rows(const snrq_statistics *s, snrq_target_parts *t)
{
    int64_t rows = t->range.end - t->range.begin;
    SNRQ_TRY(snrq_row_multiply(s->d, 1.0 / t->unit, rows, t->w, t->wd));
    if (s->c != NULL) SNRQ_TRY(add_residual(s, s->strengths.compensation / s->strengths.alpha, t));
    memcpy(t->wdh, t->wd, (size_t)(rows * t->columns) * sizeof *t->wdh);
    SNRQ_TRY(snrq_row_solve(t->l, 1.0 / sqrt(t->unit), rows, t->wdh, t->reached));
    scale(rows, t->reached, t->unit);
    return SNRQ_OK;
}

static snrq_status compute(const snrq_rule *rule, snrq_statistics *s, snrq_target_parts *t)
{
    int64_t rows = t->range.end - t->range.begin;
    SNRQ_TRY(snrq_matrix_diagonal(s->h, t->added));
    t->unit = choose_unit(t->columns, t->added);
    SNRQ_TRY(snrq_row_forms(s->h, 1.0 / t->unit, rows, t->w, t->whw));
    scale(rows, t->whw, t->unit);
    if (s->e != NULL) {
        SNRQ_TRY(snrq_row_forms(s->e, 1.0 / t->unit, rows, t->w, t->wew));
        scale(rows, t->wew, t->unit);
    }
    SNRQ_TRY(factorize(rule, s, t));
    return snrq_rule_shifts_target(rule) ? shift_rows(s, t) : SNRQ_OK;
}

static snrq_status allocate(const snrq_rule *rule, const snrq_statistics *s, snrq_target_parts *t)
{
    size_t rows = (size_t)(t->range.end - t->range.begin), cells = rows * (size_t)t->columns;
    SNRQ_TRY(snrq_allocate_scratch(cells, sizeof *t->w, "weights", &t->w));
    SNRQ_TRY(snrq_allocate(rows, sizeof *t->whw, "row figures", &t->whw));
    SNRQ_TRY(snrq_allocate((size_t)t->columns, sizeof *t->added, "diagonal of H", &t->added));
    if (s->e != NULL) SNRQ_TRY(snrq_allocate(rows, sizeof *t->wew, "row figures", &t->wew));
    if (!snrq_rule_shifts_target(rule)) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate(rows, sizeof *t->reached, "row figures", &t->reached));
    SNRQ_TRY(snrq_allocate_scratch(cells, sizeof *t->wd, "W D", &t->wd));
    return snrq_allocate_scratch(cells, sizeof *t->wdh, "W D H^-1", &t->wdh);
}

snrq_status snrq_target_create(const snrq_context *context, const snrq_rule *rule,
                               snrq_statistics *statistics, const snrq_stack *stack,
                               snrq_range range, snrq_target_parts *out)
{
    *out = (snrq_target_parts){.range = range, .columns = statistics->columns};
    snrq_status status = allocate(rule, statistics, out);
    if (status == SNRQ_OK) status = order_rows(stack, statistics, out);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK) status = compute(rule, statistics, out);
    if (status != SNRQ_OK) snrq_target_free(out);
    return status;
}

void snrq_target_free_shifts(snrq_target_parts *t)
{
    free(t->wdh);
    t->wdh = NULL;
}

void snrq_target_free(snrq_target_parts *t)
{
    snrq_matrix_destroy(&t->l);
    free(t->w);
    free(t->wd);
    free(t->wdh);
    free(t->reached);
    free(t->whw);
    free(t->wew);
    free(t->added);
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
    double reachable = 0.0, energy = 0.0;
    SNRQ_TRY(snrq_sum_rows(context, t->range, t->reached, rows_global, module, &reachable));
    SNRQ_TRY(snrq_sum_rows(context, t->range, t->wew, rows_global, module, &energy));
    double share = reachable / energy;
    *alpha = !(energy > 0.0) || !isfinite(share) || share < 0.0 ? 0.0 : share > 1.0 ? 1.0 : share;
    return SNRQ_OK;
}

void snrq_target_row(const snrq_target_parts *t, int64_t row, double alpha, float *out)
{
    for (int64_t k = 0; k < t->columns; k++) {
        int64_t at = row * t->columns + k;
        double shift = t->wdh != NULL ? alpha * (double)t->wdh[at] : 0.0;
        out[k] = (float)((double)t->w[at] + shift);
    }
}
