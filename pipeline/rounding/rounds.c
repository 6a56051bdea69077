/* The search of a rounding: rounds of searches, each with better scales; see rounding.h. Rows that
 * matter to each other are in coupled_rows.c. */
#include "pipeline/rounding/rounds.h"

#include <stdlib.h>

#include "pipeline/rounding/coupled_rows.h"
#include "pipeline/rounding/regrid.h"
#include "pipeline/rounding/trial.h"

/* GPTQ's grids are fitted on the way where groups are runs of columns in decision order; gptaq adds
 * the mismatch. */
static snrq_status search_gptq(const snrq_rounding *w, snrq_rows *rows)
{
    const snrq_rule *rule = w->rule;
    bool fixed = rule->alpha_mode == SNRQ_ALPHA_FIXED;
    snrq_gptq gptq = {.refit = rows->groups->runs && rows->groups->count > 1 ? rule : NULL,
                      .alpha = fixed ? rule->alpha_value : 1.0};
    if (rule->method == SNRQ_GPTAQ && w->statistics->d != NULL) {
        SNRQ_TRY(snrq_factor_solve_right(w->target.l, w->statistics->d));
        gptq.a = w->statistics->d;
    }
    return snrq_search_gptq(w->target.l, &gptq, rows);
}

/* What shifted the targets has done its work: its memory holds the panels of L for the searches to
 * come, where it is enough for them. */
static snrq_status keep_panels(snrq_rounding *w)
{
    const snrq_process_grid *grid = w->target.l->grid;
    int64_t n = w->statistics->columns;
    if (w->rule->method == SNRQ_GPTAQ || w->statistics->d == NULL || w->statistics->reused)
        return SNRQ_OK;
    snrq_matrix_destroy(&w->statistics->d);
    size_t freed = (size_t)(n * n) / (size_t)(grid->rows * grid->columns) * sizeof(double);
    if (w->rule->regrid == 0 || snrq_kept_panels_bytes(n) > freed) return SNRQ_OK;
    return snrq_agree(w->context, snrq_kept_panels_create(n, &w->panels));
}

static snrq_status search_beams(snrq_rounding *w, snrq_rows *rows)
{
    int beam = w->rule->beam;
    if (w->panels.u == NULL) return snrq_search(w->target.l, SNRQ_ROUND_FEEDBACK, beam, rows);
    return snrq_search_kept(w->target.l, &w->panels, SNRQ_ROUND_FEEDBACK, beam, rows);
}

snrq_status snrq_rounding_round(snrq_rounding *w, snrq_rows *rows, snrq_gradient *gradient)
{
    const snrq_rule *rule = w->rule;
    if (rule->method == SNRQ_RTN) return snrq_search(w->target.l, SNRQ_ROUND_NEAREST, 1, rows);
    if (rule->method == SNRQ_GPTQ || rule->method == SNRQ_GPTAQ)
        SNRQ_TRY(search_gptq(w, rows));
    else
        SNRQ_TRY(search_beams(w, rows));
    return snrq_refine(w->statistics->h, rule->refine, rows, gradient);
}

/* One more round for the rows of a trial: the best scales for their codes, and a search with these
 * scales. scales [rows of the trial, groups] is scratch, gradient that of the trial's rows, in and
 * out. *better: rows of all ranks that are. */
static snrq_status regrid_trial(snrq_rounding *w, snrq_regrid_kind kind, bool last, float *scales,
                                snrq_gradient *gradient, snrq_trial *trial, int64_t *better)
{
    SNRQ_TRY(snrq_regrid(w->statistics->h, w->rule, kind, &trial->rows, gradient, scales));
    snrq_gradient_free(gradient);
    snrq_trial_rescale(trial, kind == SNRQ_REGRID_MINIMA, scales);
    SNRQ_TRY(snrq_rounding_round(w, &trial->rows, last ? NULL : gradient));
    *better = snrq_trial_keep_better(trial, last ? NULL : gradient, &w->rows);
    return snrq_sum_int64(w->context, better, 1);
}

/* Alternates between the best scales (or minima) for the codes and a search with these scales; a
 * row only ever gets better. gradient: of the rows; it is released. */
static snrq_status regrid_rows(snrq_rounding *w, snrq_regrid_kind kind, snrq_gradient *gradient)
{
    size_t grids = (size_t)(w->rows.rows * w->groups.count);
    snrq_trial trial = {0};
    float *scales = NULL;
    snrq_status status = snrq_trial_create(&w->rows, &trial);
    if (status == SNRQ_OK) status = snrq_allocate(grids, sizeof *scales, "scales", &scales);
    status = snrq_agree(w->context, status);
    for (int64_t round = 1, better = 1; status == SNRQ_OK && round <= w->rule->regrid && better > 0;
         round++)
        status = regrid_trial(w, kind, round == w->rule->regrid, scales, gradient, &trial, &better);
    snrq_gradient_free(gradient);
    snrq_trial_free(&trial);
    free(scales);
    return status;
}

/* Rows that do not know of each other. */
static snrq_status search_single_rows(snrq_rounding *w)
{
    snrq_gradient gradient = {0};
    if (w->rule->regrid == 0) return snrq_rounding_round(w, &w->rows, NULL);
    SNRQ_TRY(snrq_rounding_round(w, &w->rows, &gradient));
    SNRQ_TRY(regrid_rows(w, SNRQ_REGRID_SCALES, &gradient));
    if (!snrq_rule_has_minima(w->rule)) return SNRQ_OK;
    SNRQ_TRY(snrq_refine(w->statistics->h, 0, &w->rows, &gradient));
    return regrid_rows(w, SNRQ_REGRID_MINIMA, &gradient);
}

snrq_status snrq_rounding_search(snrq_rounding *w)
{
    SNRQ_TRY(keep_panels(w));
    return snrq_rule_couples_rows(w->rule) ? snrq_coupled_rows_search(w) : search_single_rows(w);
}
