/* Several widths from one H; see assess_widths.h. */
#include "pipeline/assess_widths.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An input whose root mean square is so many times that of the middle one is an outlier. */
static const double outlier = 6.0;

bool snrq_widths_parse(const char *text, snrq_widths *out)
{
    *out = (snrq_widths){0};
    for (const char *at = text; out->count < SNRQ_MOST_WIDTHS; at += 2) {
        int last = out->count > 0 ? out->bits[out->count - 1] : 1;
        if (at[0] < '2' || at[0] > '8' || at[0] - '0' <= last) return false;
        out->bits[out->count++] = at[0] - '0';
        if (at[1] == '\0') return true;
        if (at[1] != ',') return false;
    }
    return false;
}

/* What was found of a module at a width. */
typedef struct figures {
    snrq_rounded_module own, nearest;
} figures;

/* To nearest, with scales from the smallest and largest weights. */
static snrq_rule nearest_rule(const snrq_rule *rule)
{
    snrq_rule r = *rule;
    r.method = SNRQ_RTN;
    r.grid = SNRQ_QUANT_GRID_MINMAX;
    r.beam = 1;
    r.refine = r.regrid = 0;
    return r;
}

static snrq_status round_once(const snrq_assess_unit *u, const snrq_rule *rule,
                              snrq_statistics *statistics, const snrq_stack *stack,
                              const snrq_loaded_block *publish, snrq_rounded_module *out)
{
    const snrq_team all = snrq_team_of_all(u->context);
    snrq_rounding rounding = {0};
    snrq_status status = snrq_rounding_create(u->context, rule, statistics, stack, &rounding);
    if (status == SNRQ_OK) status = snrq_rounding_shift(&rounding);
    if (status == SNRQ_OK) status = snrq_rounding_fit(&rounding);
    if (status == SNRQ_OK) status = snrq_rounding_search(&rounding);
    if (status == SNRQ_OK) status = snrq_rounding_measure(&rounding);
    if (status == SNRQ_OK && publish != NULL)
        status = snrq_unit_publish(u->context, &all, &rounding, publish, u->unit);
    for (int m = 0; status == SNRQ_OK && m < stack->count; m++) out[m] = rounding.modules[m];
    snrq_rounding_free(&rounding);
    return status;
}

/* found [widths, modules of the unit] */
static snrq_status round_all(const snrq_assess_unit *u, snrq_statistics *statistics,
                             const snrq_stack *stack, figures *found)
{
    const size_t local = (size_t)(statistics->h->local_rows * statistics->h->local_columns);
    const int count = stack->count;
    double *h = NULL; /* before it is damped */
    snrq_rounded_module *one = NULL;
    snrq_status status = snrq_allocate(local, sizeof *h, "a second H", &h);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)count, sizeof *one, "modules", &one);
    status = snrq_agree(u->context, status);
    if (status == SNRQ_OK && local > 0) memcpy(h, statistics->h->local, local * sizeof *h);
    for (int i = 0; status == SNRQ_OK && i < 2 * u->widths->count; i++) {
        const int w = i / 2;
        const bool nearest = i % 2 == 1;
        snrq_rule rule = nearest ? nearest_rule(u->rule) : *u->rule;
        rule.bits = u->widths->bits[w];
        if (local > 0) memcpy(statistics->h->local, h, local * sizeof *h);
        status = round_once(u, &rule, statistics, stack, nearest ? NULL : &u->quantized[w], one);
        for (int m = 0; status == SNRQ_OK && m < count; m++)
            *(nearest ? &found[w * count + m].nearest : &found[w * count + m].own) = one[m];
    }
    free(one);
    free(h);
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

static json_t *describe_module(const snrq_assess_unit *u, const snrq_stack *stack, int m,
                               const figures *found, float *row)
{
    const int module = u->full->block.family->unit[u->unit].first + m;
    const snrq_weight *weight = &u->full->block.module[module];
    json_t *widths = json_array();
    for (int w = 0; w < u->widths->count; w++) {
        const figures *f = &found[w * stack->count + m];
        json_array_append_new(widths, json_pack("{s:i, s:f, s:f, s:f, s:f}", "bits",
                                                u->widths->bits[w], "objective", f->own.objective,
                                                "output_error", f->own.output_error,
                                                "nearest_objective", f->nearest.objective,
                                                "nearest_output_error", f->nearest.output_error));
    }
    return json_pack("{s:s, s:I, s:I, s:o, s:o}", "name", stack->names[m], "rows",
                     (json_int_t)weight->rows, "columns", (json_int_t)weight->columns, "weights",
                     describe_weights(weight, row), "widths", widths);
}

static snrq_status assess(const snrq_assess_unit *u, snrq_statistics *statistics,
                          const snrq_stack *stack, json_t **modules, json_t **inputs)
{
    const int64_t columns = statistics->columns;
    double *diagonal = NULL;
    float *row = NULL;
    figures *found = NULL;
    snrq_status status = snrq_allocate((size_t)columns, sizeof *diagonal, "diagonal", &diagonal);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)columns, sizeof *row, "a row", &row);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)(u->widths->count * stack->count), sizeof *found, "figures",
                               &found);
    status = snrq_agree(u->context, status);
    if (status == SNRQ_OK) status = snrq_matrix_diagonal(statistics->h, diagonal);
    if (status == SNRQ_OK) status = round_all(u, statistics, stack, found);
    if (status == SNRQ_OK) {
        *inputs = describe_inputs(statistics, diagonal);
        *modules = json_array();
        for (int m = 0; m < stack->count; m++)
            json_array_append_new(*modules, describe_module(u, stack, m, found, row));
    }
    free(found);
    free(row);
    free(diagonal);
    return status;
}

snrq_status snrq_assess_widths(const snrq_assess_unit *u, snrq_statistics *statistics,
                               json_t **modules, json_t **inputs)
{
    const int count = u->full->block.family->modules;
    double *none = NULL; /* strengths of alpha chained */
    snrq_unit_stack rows = {0};
    *modules = *inputs = NULL;
    snrq_status status = snrq_allocate((size_t)count, sizeof *none, "strengths", &none);
    if (status == SNRQ_OK)
        status = snrq_unit_stack_create(&u->full->block, u->layer, u->unit, none, &rows);
    status = snrq_agree(u->context, status);
    if (status == SNRQ_OK) status = assess(u, statistics, &rows.stack, modules, inputs);
    snrq_unit_stack_free(&rows);
    free(none);
    return status;
}
