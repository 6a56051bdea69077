/* A unit rounded once and with every choice; see assess_unit.h. */
#include "pipeline/assess_unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/rounding/alpha_trial.h"

/* An input whose root mean square is so many times that of the middle one is an outlier. */
static const double outlier = 6.0;

/* What was found of a module with a choice. */
typedef struct figures {
    snrq_rounded_module greedy, nearest;
} figures;

/* Column by column, with nothing that improves it later. */
static snrq_rule greedy_rule(const snrq_rule *rule)
{
    snrq_rule r = *rule;
    r.beam = 1;
    r.refine = r.regrid = 0;
    return r;
}

/* To nearest, with scales from the smallest and largest weights. */
static snrq_rule nearest_rule(const snrq_rule *rule)
{
    snrq_rule r = greedy_rule(rule);
    r.method = SNRQ_RTN;
    r.grid = SNRQ_QUANT_GRID_MINMAX;
    return r;
}

/* All modules of the unit have one rule. */
static int part_of(const snrq_assess_unit *u)
{
    const snrq_family *f = u->full->block.family;
    return f->module[f->unit[u->unit].first].part;
}

static snrq_status round_once(const snrq_assess_unit *u, const snrq_rule *rule,
                              snrq_statistics *statistics, const snrq_stack *stack, bool publish,
                              snrq_rounded_module *out)
{
    const snrq_team all = snrq_team_of_all(u->context);
    snrq_rounding rounding = {0};
    snrq_status status = snrq_rounding_create(u->context, rule, statistics, stack, &rounding);
    if (status == SNRQ_OK) status = snrq_rounding_shift(&rounding);
    if (status == SNRQ_OK) status = snrq_rounding_fit(&rounding);
    if (status == SNRQ_OK) status = snrq_rounding_search(&rounding);
    if (status == SNRQ_OK) status = snrq_rounding_measure(&rounding);
    if (status == SNRQ_OK && publish)
        status = snrq_part_publish(u->context, &all, &rounding, u->quantized, part_of(u));
    for (int m = 0; status == SNRQ_OK && out != NULL && m < stack->count; m++)
        out[m] = rounding.modules[m];
    snrq_rounding_free(&rounding);
    return status;
}

/* H before it is damped, which every rounding does. */
typedef struct kept_h {
    double *values;
    size_t bytes;
} kept_h;

static snrq_status round_again(const snrq_assess_unit *u, const snrq_rule *rule, const kept_h *h,
                               snrq_statistics *statistics, const snrq_stack *stack, bool publish,
                               snrq_rounded_module *out)
{
    if (h->bytes > 0) memcpy(statistics->h->local, h->values, h->bytes);
    return round_once(u, rule, statistics, stack, publish, out);
}

/* found [choices, modules of the unit], own [modules] */
static snrq_status round_all(const snrq_assess_unit *u, const snrq_choices *choices,
                             const snrq_rule *rule, snrq_statistics *statistics,
                             const snrq_stack *stack, figures *found, snrq_rounded_module *own)
{
    const snrq_matrix *local = statistics->h;
    const size_t numbers = (size_t)(local->local_rows * local->local_columns);
    kept_h h = {.bytes = numbers * sizeof *h.values};
    snrq_rounded_module *one = NULL;
    snrq_status status = snrq_allocate(numbers, sizeof *h.values, "a second H", &h.values);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)stack->count, sizeof *one, "modules", &one);
    status = snrq_agree(u->context, status);
    if (status == SNRQ_OK && numbers > 0) memcpy(h.values, local->local, h.bytes);
    if (status == SNRQ_OK) status = round_again(u, rule, &h, statistics, stack, true, own);
    for (int i = 0; status == SNRQ_OK && i < snrq_choices_count(choices); i++) {
        snrq_rule greedy = greedy_rule(rule), nearest = nearest_rule(rule);
        snrq_choice_set(choices, i, statistics->columns, &greedy);
        snrq_choice_set(choices, i, statistics->columns, &nearest);
        status = round_again(u, &greedy, &h, statistics, stack, false, one);
        for (int m = 0; status == SNRQ_OK && m < stack->count; m++)
            found[i * stack->count + m].greedy = one[m];
        if (status == SNRQ_OK) status = round_again(u, &nearest, &h, statistics, stack, false, one);
        for (int m = 0; status == SNRQ_OK && m < stack->count; m++)
            found[i * stack->count + m].nearest = one[m];
    }
    free(one);
    free(h.values);
    return status;
}

/* Smallest, largest and kurtosis of the weights of a module, [rows, columns]. */
static json_t *describe_weights(const snrq_weight *w, float *row)
{
    double least = INFINITY, most = -INFINITY, second = 0.0, fourth = 0.0;
    for (int64_t r = 0; r < w->rows; r++) {
        snrq_weight_widen(w, r, 1, row);
        for (int64_t c = 0; c < w->columns; c++) {
            double square = (double)row[c] * (double)row[c];
            least = fmin(least, (double)row[c]);
            most = fmax(most, (double)row[c]);
            second += square;
            fourth += square * square;
        }
    }
    double count = (double)w->rows * (double)w->columns;
    double kurtosis = second > 0.0 ? fourth * count / (second * second) : 0.0;
    return json_pack("{s:f, s:f, s:f, s:f}", "least", least, "largest", most, "rms",
                     sqrt(second / count), "kurtosis", kurtosis);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What diag(H) says about the input: inputs that are never used, that are hardly used, and those
 * that are far larger than most. values [columns] is used up. */
static json_t *describe_inputs(const snrq_statistics *s, double *values)
{
    int64_t n = s->columns, rare = 0, outliers = 0;
    for (int64_t k = 0; k < n; k++) values[k] = s->dead[k] ? 0.0 : sqrt(values[k]);
    qsort(values, (size_t)n, sizeof *values, by_value);
    double middle = values[n / 2];
    for (int64_t k = 0; k < n; k++) {
        outliers += values[k] > outlier * middle;
        rare += values[k] < middle / outlier;
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f}", "columns", (json_int_t)n, "tokens",
                     (json_int_t)s->tokens, "dead", (json_int_t)s->dead_inputs, "rarely_used",
                     (json_int_t)(rare - s->dead_inputs), "outliers", (json_int_t)outliers,
                     "largest_to_middle", middle > 0.0 ? values[n - 1] / middle : 0.0);
}

/* What was found of a unit. */
typedef struct unit_figures {
    figures *found;           /* [choices, modules] */
    snrq_rounded_module *own; /* [modules] */
    double *diagonal;         /* [columns] of H */
    float *row;               /* [columns] scratch */
} unit_figures;

static json_t *describe_module(const snrq_assess_unit *u, const snrq_choices *choices,
                               const snrq_stack *stack, int m, const unit_figures *f)
{
    const int module = u->full->block.family->unit[u->unit].first + m;
    const snrq_weight *weight = &u->full->block.module[module];
    json_t *list = json_array();
    for (int i = 0; i < snrq_choices_count(choices); i++) {
        const figures *one = &f->found[i * stack->count + m];
        json_t *row = snrq_choice_describe(choices, i);
        json_object_set_new(row, "objective", json_real(one->greedy.objective));
        json_object_set_new(row, "output_error", json_real(one->greedy.output_error));
        json_object_set_new(row, "nearest_objective", json_real(one->nearest.objective));
        json_object_set_new(row, "nearest_output_error", json_real(one->nearest.output_error));
        json_array_append_new(list, row);
    }
    return json_pack("{s:s, s:I, s:I, s:o, s:f, s:f, s:o}", "name", stack->names[m], "rows",
                     (json_int_t)weight->rows, "columns", (json_int_t)weight->columns, "weights",
                     describe_weights(weight, f->row), "objective", f->own[m].objective,
                     "output_error", f->own[m].output_error, "choices", list);
}

static snrq_status assess(const snrq_assess_unit *u, const snrq_choices *choices,
                          const snrq_rule *rule, snrq_statistics *statistics,
                          const snrq_stack *stack, json_t **modules, json_t **inputs)
{
    const size_t columns = (size_t)statistics->columns, count = (size_t)stack->count;
    unit_figures f = {0};
    snrq_status status = snrq_allocate(columns, sizeof *f.diagonal, "diagonal", &f.diagonal);
    if (status == SNRQ_OK) status = snrq_allocate(columns, sizeof *f.row, "a row", &f.row);
    if (status == SNRQ_OK) status = snrq_allocate(count, sizeof *f.own, "figures", &f.own);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)snrq_choices_count(choices) * count, sizeof *f.found,
                               "figures", &f.found);
    status = snrq_agree(u->context, status);
    if (status == SNRQ_OK) status = snrq_matrix_diagonal(statistics->h, f.diagonal);
    if (status == SNRQ_OK) status = round_all(u, choices, rule, statistics, stack, f.found, f.own);
    if (status == SNRQ_OK) {
        *inputs = describe_inputs(statistics, f.diagonal);
        *modules = json_array();
        for (int m = 0; m < stack->count; m++)
            json_array_append_new(*modules, describe_module(u, choices, stack, m, &f));
    }
    free(f.found);
    free(f.own);
    free(f.row);
    free(f.diagonal);
    return status;
}

/* strengths [modules of the block]: none of a block before */
static snrq_status stack_rows(const snrq_assess_unit *u, double **strengths, snrq_part_stack *rows)
{
    const int count = u->full->block.family->modules;
    snrq_status status = snrq_allocate((size_t)count, sizeof **strengths, "strengths", strengths);
    if (status == SNRQ_OK)
        status = snrq_part_stack_create(&u->full->block, u->layer, part_of(u), *strengths, rows);
    return snrq_agree(u->context, status);
}

snrq_status snrq_assess_round(const snrq_assess_unit *u, const snrq_rule *rule,
                              snrq_statistics *statistics)
{
    double *none = NULL;
    snrq_part_stack rows = {0};
    snrq_status status = stack_rows(u, &none, &rows);
    if (status == SNRQ_OK) status = round_once(u, rule, statistics, &rows.stack, true, NULL);
    snrq_part_stack_free(&rows);
    free(none);
    return status;
}

static snrq_status try_alphas(const snrq_assess_unit *u, const snrq_rule *rule,
                              snrq_statistics *fitted, const snrq_statistics *other,
                              const snrq_stack *stack, json_t *list)
{
    snrq_alpha_trial *trials = NULL;
    snrq_status status = snrq_agree(
        u->context, snrq_allocate((size_t)stack->count, sizeof *trials, "strengths", &trials));
    if (status == SNRQ_OK)
        status = snrq_alpha_trial_make(u->context, rule, fitted, other, stack, trials);
    for (int m = 0; status == SNRQ_OK && m < stack->count; m++) {
        const snrq_alpha_trial *t = &trials[m];
        json_array_append_new(list,
                              json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "corr", t->corr,
                                        "held_out", t->held_out, "energy", t->energy, "reachable",
                                        t->reachable, "product", t->product, "shift", t->shift));
    }
    free(trials);
    return status;
}

snrq_status snrq_assess_alphas(const snrq_assess_unit *u, const snrq_rule *rule,
                               snrq_statistics *fitted, const snrq_statistics *other, json_t **list)
{
    double *none = NULL;
    snrq_part_stack rows = {0};
    *list = json_array();
    snrq_status status = stack_rows(u, &none, &rows);
    if (status == SNRQ_OK) status = try_alphas(u, rule, fitted, other, &rows.stack, *list);
    snrq_part_stack_free(&rows);
    free(none);
    return status;
}

snrq_status snrq_assess_choices(const snrq_assess_unit *u, const snrq_choices *choices,
                                const snrq_rule *rule, snrq_statistics *statistics,
                                json_t **modules, json_t **inputs)
{
    double *none = NULL;
    snrq_part_stack rows = {0};
    *modules = *inputs = NULL;
    snrq_status status = stack_rows(u, &none, &rows);
    if (status == SNRQ_OK)
        status = assess(u, choices, rule, statistics, &rows.stack, modules, inputs);
    snrq_part_stack_free(&rows);
    free(none);
    return status;
}
