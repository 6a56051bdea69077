/* Rounding modules that share an input; see rounding.h. */
#include "pipeline/rounding/rounding.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/rounding/regrid.h"

const char *snrq_phase_name(int phase)
{
    static const char *const names[] = {"read", "forward", "gram", "factor",
                                        "grid", "search",  "write"};
    _Static_assert(sizeof names / sizeof names[0] == SNRQ_PHASES, "a name for every phase");
    return phase < SNRQ_PHASES ? names[phase] : "rest";
}

bool snrq_regrids(const snrq_options *o)
{
    return o->method == SNRQ_LDLQ || o->method == SNRQ_SNRQ || o->method == SNRQ_KSNRQ;
}

snrq_range snrq_rounding_share(int64_t rows, int size, int rank)
{
    return snrq_share(rows, SNRQ_TILE_ROWS, size, rank);
}

/* Everything a rounding needs between its steps. */
typedef struct work {
    const snrq_context *context;
    const snrq_options *options;
    snrq_statistics *statistics;
    const snrq_modules *modules;
    snrq_target target;
    snrq_rounded *out;
    double *d2;     /* [columns] weights of the columns in the objective, L_jj^2 */
    double *figure; /* [local rows] scratch */
} work;

static int64_t rows_global(const work *w)
{
    return w->modules->first[w->modules->count];
}

static snrq_range rows_of_module(const work *w, int module)
{
    return (snrq_range){w->modules->first[module], w->modules->first[module + 1]};
}

static int module_of_row(const work *w, int64_t row)
{
    int m = 0;
    while (row >= w->modules->first[m + 1]) m++;
    return m;
}

static double alpha_of_row(const work *w, int64_t local)
{
    return w->out->modules[module_of_row(w, w->out->mine.begin + local)].alpha;
}

static snrq_status choose_alpha(work *w, int module)
{
    const snrq_options *o = w->options;
    double *alpha = &w->out->modules[module].alpha;
    *alpha = 0.0;
    if (!snrq_uses_mismatch(o))
        return SNRQ_OK; /* gptaq's, too: it works in the recursion, not on the target */
    switch (o->alpha_mode) {
    case SNRQ_ALPHA_FIXED:
        *alpha = o->alpha_value;
        return SNRQ_OK;
    case SNRQ_ALPHA_SAMPLED:
        *alpha = 1.0; /* the strengths are inside D */
        return SNRQ_OK;
    case SNRQ_ALPHA_CHAINED:
        *alpha = w->modules->alpha_before[module];
        return SNRQ_OK;
    case SNRQ_ALPHA_CORR:
        return snrq_target_alpha_corr(w->context, &w->target, rows_global(w),
                                      rows_of_module(w, module), alpha);
    }
    return snrq_fail(SNRQ_INTERNAL, "no alpha mode %d", (int)o->alpha_mode);
}

/* d_j^2 for all columns, on every rank. */
static snrq_status column_weights(work *w)
{
    SNRQ_TRY(snrq_matrix_diagonal(w->target.l, w->d2));
    for (int64_t k = 0; k < w->statistics->columns; k++) w->d2[k] *= w->d2[k];
    return SNRQ_OK;
}

static snrq_grid_rule grid_rule(const snrq_options *o)
{
    return (snrq_grid_rule){(int)o->bits, !o->asymmetric, (snrq_grid_kind)o->grid,
                            (snrq_dtype)o->scale_type};
}

/* A target that is no number would become an arbitrary code. */
static snrq_status check_target(const work *w, int64_t r)
{
    const float *target = w->out->rows.target + r * w->out->rows.columns;
    for (int64_t k = 0; k < w->out->rows.columns; k++)
        if (!isfinite(target[k]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "the rounding target of column %d is %g: are H and D finite?",
                             (int)w->statistics->order[k], (double)target[k]);
    return SNRQ_OK;
}

/* Targets and grids of this rank's rows. */
static snrq_status fit_rows(work *w)
{
    snrq_grid_rule rule = grid_rule(w->options);
    int64_t count = w->out->mine.end - w->out->mine.begin, n = w->out->rows.columns, first = count;
    snrq_status worst = SNRQ_OK;
    char message[512] = "";
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t r = 0; r < count; r++) {
        snrq_target_row(&w->target, r, alpha_of_row(w, r), w->out->rows.target + r * n);
        snrq_status status = check_target(w, r);
        if (status == SNRQ_OK)
            status = snrq_quant_grid_fit(&rule, &w->out->groups, w->out->rows.target + r * n, w->d2,
                                         w->out->rows.scales + r * w->out->groups.count,
                                         w->out->rows.zeros + r * w->out->groups.count);
        if (status != SNRQ_OK) {
            int64_t row = w->out->mine.begin + r;
            int module = module_of_row(w, row);
#pragma omp critical
            if (r < first) { /* the same message for any number of threads */
                first = r;
                worst = status;
                snprintf(message, sizeof message, "%s: row %lld: %s", w->modules->names[module],
                         (long long)(row - w->modules->first[module]), snrq_error_message());
            }
        }
    }
    return worst == SNRQ_OK ? SNRQ_OK : snrq_fail(worst, "%s", message);
}

/* GPTQ's grids are fitted on the way where groups are runs of columns in decision order; gptaq adds
 * the mismatch. */
static snrq_status search_gptq(const work *w, snrq_rows *rows)
{
    snrq_grid_rule rule = grid_rule(w->options);
    bool fixed = w->options->alpha_mode == SNRQ_ALPHA_FIXED;
    snrq_gptq gptq = {.refit = rows->groups->runs && rows->groups->count > 1 ? &rule : NULL,
                      .alpha = fixed ? w->options->alpha_value : 1.0};
    if (w->options->method == SNRQ_GPTAQ && w->statistics->d != NULL) {
        SNRQ_TRY(snrq_factor_solve_right(w->target.l, w->statistics->d));
        gptq.mismatch = w->statistics->d;
    }
    return snrq_search_gptq(w->target.l, &gptq, rows);
}

/* Search and refinement of one set of rows. */
static snrq_status search_and_refine(const work *w, snrq_rows *rows)
{
    const snrq_options *o = w->options;
    int beam = o->method == SNRQ_KSNRQ ? (int)o->beam : 1;
    if (o->method == SNRQ_RTN) return snrq_search(w->target.l, SNRQ_ROUND_NEAREST, 1, rows);
    if (o->method == SNRQ_GPTQ || o->method == SNRQ_GPTAQ)
        SNRQ_TRY(search_gptq(w, rows));
    else
        SNRQ_TRY(snrq_search(w->target.l, SNRQ_ROUND_FEEDBACK, beam, rows));
    return snrq_refine(w->statistics->h, o->refine, rows);
}

/* Takes over the rows of `trial` that are cheaper. Returns how many. */
static int64_t keep_better(snrq_rows *rows, const snrq_rows *trial)
{
    size_t n = (size_t)rows->columns, g = (size_t)rows->groups->count;
    int64_t better = 0;
    for (int64_t r = 0; r < rows->rows; r++) {
        if (!(trial->costs[r] < rows->costs[r])) continue;
        memcpy(rows->codes + (size_t)r * n, trial->codes + (size_t)r * n, n);
        memcpy(rows->scales + (size_t)r * g, trial->scales + (size_t)r * g,
               g * sizeof *rows->scales);
        rows->costs[r] = trial->costs[r];
        better++;
    }
    return better;
}

/* Alternates between the best scales for the codes and a search with these scales; a row only ever
 * gets better. */
static snrq_status regrid_rows(work *w)
{
    snrq_rows *rows = &w->out->rows, trial = {0};
    size_t cells = (size_t)(rows->rows * rows->columns),
           groups = (size_t)(rows->rows * rows->groups->count);
    snrq_status status =
        snrq_agree(w->context, snrq_rows_create(rows->rows, rows->bits, rows->groups, &trial));
    if (status == SNRQ_OK) {
        memcpy(trial.target, rows->target, cells * sizeof *trial.target);
        memcpy(trial.zeros, rows->zeros, groups);
    }
    int64_t better = 1;
    for (int64_t round = 0; status == SNRQ_OK && round < w->options->regrid && better > 0;
         round++) {
        status = snrq_regrid(w->target.l, (snrq_dtype)w->options->scale_type, rows, trial.scales);
        if (status == SNRQ_OK) status = search_and_refine(w, &trial);
        if (status != SNRQ_OK) break;
        better = keep_better(rows, &trial);
        status = snrq_sum_int64(w->context, &better, 1);
    }
    snrq_rows_free(&trial);
    return status;
}

static snrq_status round_rows(work *w)
{
    SNRQ_TRY(search_and_refine(w, &w->out->rows));
    return w->options->regrid > 0 && snrq_regrids(w->options) ? regrid_rows(w) : SNRQ_OK;
}

/* Figures of one row; see the formulas where they are used. */
typedef struct row_figures {
    double error;      /* (Q - W) H (Q - W)^T, undamped */
    double clipped;    /* weights whose target lies outside the grid by more than half a step */
    double next_above; /* <Q - W, W D> */
    double next_below; /* <W D H^-1, W D> */
} row_figures;

static row_figures measure_row(const work *w, int64_t r)
{
    const snrq_target *t = &w->target;
    int64_t n = w->out->rows.columns;
    int top = (1 << w->out->rows.bits) - 1;
    double a = alpha_of_row(w, r);
    double change = 0.0, cross = 0.0, squared = 0.0;
    row_figures f = {0};
    for (int64_t k = 0; k < n; k++) {
        int64_t at = r * n + k, g = r * w->out->groups.count + w->out->groups.of_position[k];
        double q = (double)snrq_rows_value(&w->out->rows, r, k), weight = (double)t->weights[at];
        double target = (double)w->out->rows.target[at];
        double code = target / (double)w->out->rows.scales[g] + (double)w->out->rows.zeros[g];
        f.clipped += code < -0.5 || code > (double)top + 0.5;
        change += (q - weight) * (q - weight);
        if (t->mismatch == NULL) continue;
        cross += (q - target) * t->mismatch[at];
        squared += t->shift[at] * t->mismatch[at];
        f.next_above += (q - weight) * t->mismatch[at];
    }
    /* Q - W = (Q - R) + a W D H^-1, and H (W D H^-1)^T = (W D)^T; lambda |Q - W|^2 is what damping
     * added. */
    f.error =
        w->out->rows.costs[r] + 2.0 * a * cross + a * a * squared - t->factor.damping * change;
    f.next_below = squared;
    return f;
}

/* Sum over the rows of a module of one figure per local row. */
static snrq_status sum_module(const work *w, int module, const double *values, double *sum)
{
    return snrq_sum_rows(w->context, w->out->mine, values, rows_global(w),
                         rows_of_module(w, module), sum);
}

static double ratio(double above, double below)
{
    return below > 0.0 && above > 0.0 ? above / below : 0.0;
}

static snrq_status measure_module(work *w, int module, const row_figures *figures)
{
    const snrq_options *o = w->options;
    snrq_rounded_module *out = &w->out->modules[module];
    snrq_range rows = rows_of_module(w, module);
    int64_t count = w->out->mine.end - w->out->mine.begin;
    double output = 0, error = 0, clipped = 0, above = 0, below = 0;
    SNRQ_TRY(sum_module(w, module, w->out->rows.costs, &out->objective));
    SNRQ_TRY(sum_module(w, module, w->target.output, &output));
    for (int64_t r = 0; r < count; r++) w->figure[r] = figures[r].error;
    SNRQ_TRY(sum_module(w, module, w->figure, &error));
    for (int64_t r = 0; r < count; r++) w->figure[r] = figures[r].clipped;
    SNRQ_TRY(sum_module(w, module, w->figure, &clipped));
    for (int64_t r = 0; r < count; r++) w->figure[r] = figures[r].next_above;
    SNRQ_TRY(sum_module(w, module, w->figure, &above));
    for (int64_t r = 0; r < count; r++) w->figure[r] = figures[r].next_below;
    SNRQ_TRY(sum_module(w, module, w->figure, &below));

    bool chained = snrq_shifts_target(o) && o->alpha_mode == SNRQ_ALPHA_CHAINED;
    double next = below > 0.0 ? above / below : 0.0;
    out->alpha_next = !chained ? NAN : next < 0.0 ? 0.0 : next > 1.0 ? 1.0 : next;
    out->output_error = sqrt(ratio(error, output));
    out->clipped = clipped / (double)((rows.end - rows.begin) * w->out->rows.columns);
    return SNRQ_OK;
}

static snrq_status measure_modules(work *w)
{
    int64_t count = w->out->mine.end - w->out->mine.begin;
    row_figures *figures = NULL;
    SNRQ_TRY(snrq_agree(w->context,
                        snrq_allocate((size_t)count, sizeof *figures, "row figures", &figures)));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < count; r++) figures[r] = measure_row(w, r);
    snrq_status status = SNRQ_OK;
    for (int m = 0; status == SNRQ_OK && m < w->modules->count; m++)
        status = measure_module(w, m, figures);
    free(figures);
    return status;
}

static snrq_status prepare(work *w)
{
    const snrq_options *o = w->options;
    size_t count = (size_t)(w->out->mine.end - w->out->mine.begin),
           n = (size_t)w->statistics->columns;
    SNRQ_TRY(snrq_groups_create(w->statistics->order, w->statistics->columns, o->group_size,
                                o->permuted_groups != 0, &w->out->groups));
    SNRQ_TRY(snrq_rows_create((int64_t)count, (int)o->bits, &w->out->groups, &w->out->rows));
    SNRQ_TRY(snrq_allocate((size_t)w->modules->count, sizeof *w->out->modules, "modules",
                           &w->out->modules));
    SNRQ_TRY(snrq_allocate(n, sizeof *w->d2, "column weights", &w->d2));
    return snrq_allocate(count, sizeof *w->figure, "row figures", &w->figure);
}

static snrq_status round_modules(work *w, snrq_timers *timers, snrq_statistics *statistics)
{
    const snrq_context *c = w->context;
    snrq_timers_enter(timers, SNRQ_PHASE_FACTOR);
    SNRQ_TRY(snrq_target_create(c, w->options, statistics, w->modules, w->out->mine, &w->target));
    w->out->factor = w->target.factor;
    for (int m = 0; m < w->modules->count; m++) SNRQ_TRY(choose_alpha(w, m));
    snrq_timers_enter(timers, SNRQ_PHASE_GRID);
    SNRQ_TRY(column_weights(w));
    SNRQ_TRY(snrq_agree(c, fit_rows(w)));
    SNRQ_TRY(snrq_trouble_find(c, w->options, statistics, w->modules, &w->target, &w->out->rows,
                               &w->out->troubles));
    if (w->options->strict)
        SNRQ_TRY(snrq_trouble_refuse(&w->out->troubles, (snrq_dtype)w->options->scale_type));
    snrq_timers_enter(timers, SNRQ_PHASE_SEARCH);
    SNRQ_TRY(round_rows(w));
    return measure_modules(w);
}

snrq_status snrq_round_modules(const snrq_context *context, const snrq_options *options,
                               snrq_timers *timers, snrq_statistics *statistics,
                               const snrq_modules *modules, snrq_rounded *out)
{
    work w = {.context = context,
              .options = options,
              .statistics = statistics,
              .modules = modules,
              .out = out};
    *out =
        (snrq_rounded){.mine = snrq_rounding_share(rows_global(&w), context->size, context->rank)};
    snrq_status status = snrq_agree(context, prepare(&w));
    if (status == SNRQ_OK) status = round_modules(&w, timers, statistics);
    snrq_target_free(&w.target);
    free(w.d2);
    free(w.figure);
    if (status != SNRQ_OK) snrq_rounded_free(out);
    return status;
}

void snrq_rounded_free(snrq_rounded *r)
{
    snrq_rows_free(&r->rows);
    snrq_groups_free(&r->groups);
    free(r->modules);
    r->modules = NULL;
}
