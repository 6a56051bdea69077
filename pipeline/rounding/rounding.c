/* Rounding modules that share an input; see rounding.h. */
#include "pipeline/rounding/rounding.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/rounding/format_grid.h"
#include "pipeline/rounding/shared_scales.h"

snrq_range snrq_rounding_share(int64_t rows, int size, int rank)
{
    return snrq_share(rows, SNRQ_TILE_ROWS, size, rank);
}

static int64_t rows_global(const snrq_rounding *w)
{
    return w->stack->first[w->stack->count];
}

static snrq_range rows_of_module(const snrq_rounding *w, int module)
{
    return (snrq_range){w->stack->first[module], w->stack->first[module + 1]};
}

static int module_of_row(const snrq_rounding *w, int64_t row)
{
    int m = 0;
    while (row >= w->stack->first[m + 1]) m++;
    return m;
}

static double alpha_of_row(const snrq_rounding *w, int64_t local)
{
    return w->modules[module_of_row(w, w->mine.begin + local)].alpha;
}

static snrq_status choose_alpha(snrq_rounding *w, int module)
{
    const snrq_rule *rule = w->rule;
    double *alpha = &w->modules[module].alpha;
    *alpha = 0.0;
    if (!snrq_rule_needs_d(rule))
        return SNRQ_OK; /* gptaq's, too: it works in the recursion, not on the target */
    switch (rule->alpha_mode) {
    case SNRQ_ALPHA_FIXED:
    case SNRQ_ALPHA_AUTO:
        *alpha = w->statistics->strengths.alpha;
        return SNRQ_OK;
    case SNRQ_ALPHA_SAMPLED:
        *alpha = 1.0; /* the strengths are inside D */
        return SNRQ_OK;
    case SNRQ_ALPHA_CHAINED:
        *alpha = w->stack->alpha_before[module];
        return SNRQ_OK;
    case SNRQ_ALPHA_CORR:
        return snrq_target_alpha_corr(w->context, &w->target, rows_global(w),
                                      rows_of_module(w, module), alpha);
    }
    return snrq_fail(SNRQ_INTERNAL, "no alpha mode %d", (int)rule->alpha_mode);
}

/* d_j^2 for all columns, on every rank. */
static snrq_status column_weights(snrq_rounding *w)
{
    SNRQ_TRY(snrq_matrix_diagonal(w->target.l, w->d2));
    for (int64_t k = 0; k < w->statistics->columns; k++) w->d2[k] *= w->d2[k];
    return SNRQ_OK;
}

/* A target that is no number would become an arbitrary code. */
static snrq_status check_target(const snrq_rounding *w, int64_t r)
{
    const float *target = w->rows.target + r * w->rows.columns;
    for (int64_t k = 0; k < w->rows.columns; k++)
        if (!isfinite(target[k]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "the rounding target of column %d is %g: are H and D finite?",
                             (int)w->statistics->order[k], (double)target[k]);
    return SNRQ_OK;
}

/* What is done to each row; minima [groups] is scratch of a thread. */
typedef snrq_status row_step(snrq_rounding *w, int64_t r, float *minima);

static snrq_status aim_row(snrq_rounding *w, int64_t r, float *minima)
{
    (void)minima;
    snrq_target_row(&w->target, r, alpha_of_row(w, r), w->rows.target + r * w->rows.columns);
    return check_target(w, r);
}

/* Scales of a row, and zeros or minima. */
static snrq_status fit_row(snrq_rounding *w, int64_t r, float *minima)
{
    const snrq_weight_format *f = w->rule->format;
    const float *target = w->rows.target + r * w->rows.columns;
    float *scales = w->rows.scales + r * w->groups.count;
    uint8_t *zeros = w->rows.zeros + r * w->groups.count;
    if (f == NULL) return snrq_quant_grid_fit(w->rule, &w->groups, target, w->d2, scales, zeros);
    memset(zeros, snrq_weight_format_zero(f), (size_t)w->groups.count);
    if (f->shared_rows > 0) return SNRQ_OK;
    SNRQ_TRY(snrq_format_grid_fit(w->rule, &w->groups, target, w->d2, w->rows.tensor_scale, scales,
                                  minima));
    if (f->minimum.present) snrq_rows_set_minima(&w->rows, r, minima);
    return SNRQ_OK;
}

/* This rank's rows. */
static snrq_status each_row(snrq_rounding *w, row_step *step)
{
    int64_t count = w->mine.end - w->mine.begin, first = count;
    snrq_status worst = SNRQ_OK;
    char message[512] = "";
    float *minima = NULL;
    SNRQ_TRY(snrq_allocate((size_t)(omp_get_max_threads() * w->groups.count), sizeof *minima,
                           "minima", &minima));
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t r = 0; r < count; r++) {
        snrq_status status = step(w, r, minima + omp_get_thread_num() * w->groups.count);
        if (status != SNRQ_OK) {
            int64_t row = w->mine.begin + r;
            int module = module_of_row(w, row);
#pragma omp critical
            if (r < first) { /* the same message for any number of threads */
                first = r;
                worst = status;
                snprintf(message, sizeof message, "%s: row %lld: %s", w->stack->names[module],
                         (long long)(row - w->stack->first[module]), snrq_error_message());
            }
        }
    }
    free(minima);
    return worst == SNRQ_OK ? SNRQ_OK : snrq_fail(worst, "%s", message);
}

/* Figures of one row; see the formulas where they are used. */
typedef struct row_figures {
    double error;      /* (Q - W) H (Q - W)^T, undamped */
    double clipped;    /* weights whose target lies outside the grid by more than half a step */
    double next_above; /* <Q - W, W D> */
    double next_below; /* <W D H^-1, W D> */
} row_figures;

/* Is a level outside of the grid by more than half of the last step? */
static bool is_clipped(const snrq_rows *r, int zero, double level)
{
    double low = (double)snrq_rows_level(r, zero, 0), after = (double)snrq_rows_level(r, zero, 1);
    double high = (double)snrq_rows_level(r, zero, r->top);
    double before = (double)snrq_rows_level(r, zero, r->top - 1);
    return level < low - 0.5 * (after - low) || level > high + 0.5 * (high - before);
}

static row_figures measure_row(const snrq_rounding *w, int64_t r)
{
    const snrq_target_parts *t = &w->target;
    int64_t n = w->rows.columns;
    double a = alpha_of_row(w, r);
    double change = 0.0, cross = 0.0, squared = t->reached != NULL ? t->reached[r] : 0.0;
    row_figures f = {0};
    for (int64_t k = 0; k < n; k++) {
        int64_t at = r * n + k, g = r * w->groups.count + w->groups.of_position[k];
        double minimum = (double)snrq_rows_minimum(&w->rows, r, k);
        double q = (double)snrq_rows_value(&w->rows, r, k) - minimum, weight = (double)t->w[at];
        double shifted = (double)w->rows.target[at], target = shifted - minimum;
        double level = shifted / (double)w->rows.scales[g];
        f.clipped += is_clipped(&w->rows, w->rows.zeros[g], level);
        change += t->added[k] * (q - weight) * (q - weight);
        if (t->wd == NULL) continue;
        double wd = t->unit * (double)t->wd[at];
        cross += (q - target) * wd;
        f.next_above += (q - weight) * wd;
    }
    /* Q - W = (Q - R) + a W D H^-1, and H (W D H^-1)^T = (W D)^T; change is what damping added. */
    f.error = w->rows.costs[r] + 2.0 * a * cross + a * a * squared - change;
    f.next_below = squared;
    return f;
}

/* Sum over the rows of a module of one figure per local row. */
static snrq_status sum_module(const snrq_rounding *w, int module, const double *values, double *sum)
{
    return snrq_sum_rows(w->context, w->mine, values, rows_global(w), rows_of_module(w, module),
                         sum);
}

/* Gives back what only the steps need. The report of the factorization stays. */
static void release_steps(snrq_rounding *w)
{
    snrq_factor_report factor = w->target.factor;
    snrq_target_free(&w->target);
    snrq_kept_panels_free(&w->panels);
    w->target.factor = factor;
    free(w->d2);
    w->d2 = NULL;
}

static double ratio(double above, double below)
{
    return below > 0.0 && above > 0.0 ? above / below : 0.0;
}

/* scratch [local rows] */
static snrq_status measure_module(snrq_rounding *w, int module, const row_figures *figures,
                                  double *scratch)
{
    const snrq_rule *rule = w->rule;
    snrq_rounded_module *out = &w->modules[module];
    snrq_range rows = rows_of_module(w, module);
    int64_t count = w->mine.end - w->mine.begin;
    double output = 0, error = 0, clipped = 0, above = 0, below = 0;
    SNRQ_TRY(sum_module(w, module, w->rows.costs, &out->objective));
    SNRQ_TRY(sum_module(w, module, w->target.whw, &output));
    out->weighted = NAN;
    if (w->weighted != NULL) SNRQ_TRY(sum_module(w, module, w->weighted, &out->weighted));
    for (int64_t r = 0; r < count; r++) scratch[r] = figures[r].error;
    SNRQ_TRY(sum_module(w, module, scratch, &error));
    for (int64_t r = 0; r < count; r++) scratch[r] = figures[r].clipped;
    SNRQ_TRY(sum_module(w, module, scratch, &clipped));
    for (int64_t r = 0; r < count; r++) scratch[r] = figures[r].next_above;
    SNRQ_TRY(sum_module(w, module, scratch, &above));
    for (int64_t r = 0; r < count; r++) scratch[r] = figures[r].next_below;
    SNRQ_TRY(sum_module(w, module, scratch, &below));

    bool chained = snrq_rule_shifts_target(rule) && rule->alpha_mode == SNRQ_ALPHA_CHAINED;
    double next = below > 0.0 ? above / below : 0.0;
    out->alpha_next = !chained ? NAN : next < 0.0 ? 0.0 : next > 1.0 ? 1.0 : next;
    out->output_error = sqrt(ratio(error, output));
    out->clipped = clipped / (double)((rows.end - rows.begin) * w->rows.columns);
    return SNRQ_OK;
}

snrq_status snrq_rounding_measure(snrq_rounding *w)
{
    int64_t count = w->mine.end - w->mine.begin;
    row_figures *figures = NULL;
    double *scratch = NULL;
    snrq_status status = snrq_allocate((size_t)count, sizeof *figures, "row figures", &figures);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)count, sizeof *scratch, "row figures", &scratch);
    status = snrq_agree(w->context, status);
    if (status == SNRQ_OK) {
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < count; r++) figures[r] = measure_row(w, r);
    }
    for (int m = 0; status == SNRQ_OK && m < w->stack->count; m++)
        status = measure_module(w, m, figures, scratch);
    free(scratch);
    free(figures);
    release_steps(w);
    return status;
}

static snrq_status allocate(snrq_rounding *w)
{
    const snrq_rule *rule = w->rule;
    const snrq_statistics *s = w->statistics;
    SNRQ_TRY(snrq_groups_create(s->order, s->columns, rule->group_size, rule->permuted_groups,
                                &w->groups));
    SNRQ_TRY(snrq_rows_create(w->mine.end - w->mine.begin, rule->bits, &w->groups, &w->rows));
    snrq_rows_set_format(&w->rows, rule->format);
    if (snrq_rule_has_minima(rule)) SNRQ_TRY(snrq_rows_add_minima(&w->rows));
    SNRQ_TRY(snrq_allocate((size_t)w->stack->count, sizeof *w->modules, "modules", &w->modules));
    return snrq_allocate((size_t)s->columns, sizeof *w->d2, "column weights", &w->d2);
}

snrq_status snrq_rounding_create(const snrq_context *context, const snrq_rule *rule,
                                 snrq_statistics *statistics, const snrq_stack *stack,
                                 snrq_rounding *out)
{
    *out =
        (snrq_rounding){.context = context, .rule = rule, .statistics = statistics, .stack = stack};
    out->mine = snrq_rounding_share(rows_global(out), context->size, context->rank);
    return snrq_agree(context, allocate(out));
}

snrq_status snrq_rounding_shift(snrq_rounding *w)
{
    SNRQ_TRY(snrq_target_create(w->context, w->rule, w->statistics, w->stack, w->mine, &w->target));
    for (int m = 0; m < w->stack->count; m++) SNRQ_TRY(choose_alpha(w, m));
    return SNRQ_OK;
}

snrq_status snrq_rounding_fit(snrq_rounding *w)
{
    SNRQ_TRY(column_weights(w));
    SNRQ_TRY(snrq_agree(w->context, each_row(w, aim_row)));
    SNRQ_TRY(snrq_shared_scales_choose(w));
    SNRQ_TRY(snrq_agree(w->context, each_row(w, fit_row)));
    snrq_target_free_shifts(&w->target);
    return snrq_trouble_find(w->context, w->rule, w->statistics, w->stack, &w->target, &w->rows,
                             &w->troubles);
}

void snrq_rounding_free(snrq_rounding *w)
{
    release_steps(w);
    snrq_trouble_free(&w->troubles);
    snrq_rows_free(&w->rows);
    snrq_groups_free(&w->groups);
    free(w->weighted);
    w->weighted = NULL;
    free(w->modules);
    w->modules = NULL;
}
