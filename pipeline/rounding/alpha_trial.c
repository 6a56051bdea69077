/* Strengths by fitted and by other tokens; see alpha_trial.h. */
#include "pipeline/rounding/alpha_trial.h"

#include <math.h>
#include <stdlib.h>

#include "pipeline/rounding/rounding.h"

/* Of each row of this rank. */
typedef struct row_sums {
    double *product, *shift; /* [rows] */
} row_sums;

static double clamped(double numerator, double denominator)
{
    const double a = numerator / denominator;
    return !(denominator > 0.0) || !(a > 0.0) ? 0.0 : a > 1.0 ? 1.0 : a;
}

/* Takes W D' in place of W D. */
static snrq_status sum_rows(const snrq_statistics *other, snrq_target_parts *t, row_sums *sums)
{
    const int64_t rows = t->range.end - t->range.begin, n = t->columns;
    SNRQ_TRY(snrq_row_multiply(other->d, 1.0 / t->unit, rows, t->w, t->wd));
    SNRQ_TRY(snrq_row_forms(other->h, 1.0 / t->unit, rows, t->wdh, sums->shift));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0.0;
        for (int64_t k = 0; k < n; k++) sum += (double)t->wd[r * n + k] * (double)t->wdh[r * n + k];
        sums->product[r] = sum * t->unit;
        sums->shift[r] *= t->unit;
    }
    return SNRQ_OK;
}

static snrq_status describe(const snrq_context *c, const snrq_target_parts *t, const row_sums *sums,
                            int64_t rows, snrq_range module, snrq_alpha_trial *out)
{
    double output = 0.0;
    *out = (snrq_alpha_trial){0};
    SNRQ_TRY(snrq_sum_rows(c, t->range, t->whw, rows, module, &output));
    SNRQ_TRY(snrq_sum_rows(c, t->range, t->wew, rows, module, &out->energy));
    SNRQ_TRY(snrq_sum_rows(c, t->range, t->reached, rows, module, &out->reachable));
    SNRQ_TRY(snrq_sum_rows(c, t->range, sums->product, rows, module, &out->product));
    SNRQ_TRY(snrq_sum_rows(c, t->range, sums->shift, rows, module, &out->shift));
    double *const shares[] = {&out->energy, &out->reachable, &out->product, &out->shift};
    for (size_t k = 0; k < sizeof shares / sizeof *shares; k++)
        *shares[k] = output > 0.0 && isfinite(*shares[k]) ? *shares[k] / output : 0.0;
    out->corr = clamped(out->reachable, out->energy);
    out->held_out = clamped(out->product, out->shift);
    return SNRQ_OK;
}

static snrq_status try_target(const snrq_context *c, const snrq_statistics *other,
                              const snrq_stack *stack, snrq_target_parts *t, snrq_alpha_trial *out)
{
    const size_t rows = (size_t)(t->range.end - t->range.begin);
    row_sums sums = {NULL, NULL};
    snrq_status status = snrq_allocate(rows, sizeof *sums.product, "row figures", &sums.product);
    if (status == SNRQ_OK)
        status = snrq_allocate(rows, sizeof *sums.shift, "row figures", &sums.shift);
    status = snrq_agree(c, status);
    if (status == SNRQ_OK) status = sum_rows(other, t, &sums);
    for (int m = 0; status == SNRQ_OK && m < stack->count; m++)
        status = describe(c, t, &sums, stack->first[stack->count],
                          (snrq_range){stack->first[m], stack->first[m + 1]}, &out[m]);
    free(sums.product);
    free(sums.shift);
    return status;
}

snrq_status snrq_alpha_trial_make(const snrq_context *c, const snrq_rule *rule,
                                  snrq_statistics *fitted, const snrq_statistics *other,
                                  const snrq_stack *stack, snrq_alpha_trial *out)
{
    const snrq_range mine = snrq_rounding_share(stack->first[stack->count], c->size, c->rank);
    snrq_target_parts parts;
    SNRQ_TRY(snrq_target_create(c, rule, fitted, stack, mine, &parts));
    snrq_status status = try_target(c, other, stack, &parts, out);
    snrq_target_free(&parts);
    return status;
}
