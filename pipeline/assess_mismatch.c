/* The rounded model beside the full-precision one; see assess_mismatch.h. */
#include "pipeline/assess_mismatch.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"
#include "pipeline/assess_unit.h"
#include "pipeline/mismatch.h"
#include "pipeline/model/expert_stream.h"
#include "pipeline/unit.h"

/* The same windows through both models. */
typedef struct pair {
    const snrq_windows *windows;
    snrq_stream *full, *rounded;
    int64_t least; /* tokens that an expert should have */
} pair;

/* A block on its way. */
typedef struct walk {
    snrq_assessment *assessment;
    int64_t layer;
    const snrq_loaded_block *full;
    snrq_loaded_block rounded;
    pair fitted, judged;
} walk;

/* ---- streams ---- */

static snrq_status create(const snrq_stream *like, const snrq_windows *windows, snrq_stream *out)
{
    SNRQ_TRY(snrq_stream_create(like->range, windows, like->hidden, out));
    memcpy(out->h, like->h, snrq_stream_bytes(like));
    return SNRQ_OK;
}

snrq_status snrq_assess_mismatch_create(snrq_assessment *a)
{
    if (a->rounded_path == NULL) return SNRQ_OK;
    SNRQ_TRY(create(&a->full, &a->fitted, &a->rounded));
    return create(&a->before, &a->judged, &a->judged_rounded);
}

snrq_status snrq_assess_mismatch_skip(snrq_assessment *a, int64_t layer)
{
    snrq_loaded_block block = {0};
    if (a->rounded_path == NULL) return SNRQ_OK;
    snrq_status status =
        snrq_quantized_block_load(a->context, a->model, a->rounded_path, layer, &a->ropes, &block);
    if (status == SNRQ_OK) {
        status = snrq_stream_forward(&a->rounded, &block.block);
        if (status == SNRQ_OK) status = snrq_stream_forward(&a->judged_rounded, &block.block);
        status = snrq_agree(a->context, status);
    }
    snrq_loaded_block_free(&block);
    return status;
}

/* Of the residual stream: ||hf - h|| / ||hf||. */
static snrq_status measure(const walk *w, const pair *p, double *error)
{
    const snrq_activations h = snrq_stream_residual(p->rounded);
    const snrq_activations hf = snrq_stream_residual(p->full);
    snrq_mismatch found;
    SNRQ_TRY(snrq_mismatch_measure(w->assessment->context, &h, &hf, p->full->range,
                                   p->windows->count, &found));
    *error = found.input_norm > 0.0 ? found.norm / found.input_norm : 0.0;
    return SNRQ_OK;
}

static snrq_status route(const walk *w, const pair *p, int step)
{
    snrq_coverage coverage = {0};
    if (w->full->block.family->step[step].kind != SNRQ_STEP_EXPERTS_ACTIVATION) return SNRQ_OK;
    snrq_status status =
        snrq_streams_route(w->assessment->context, p->windows->count, p->least, p->rounded,
                           &w->rounded.block, p->full, &w->full->block, &coverage);
    snrq_coverage_free(&coverage);
    return status;
}

static snrq_status advance(const walk *w, const pair *p, int step)
{
    const int64_t count = p->windows->count;
    int first, end;
    double *measures = NULL;
    snrq_step_modules(w->full->block.family, step, &first, &end);
    snrq_status status = snrq_allocate(SNRQ_MEASURES * (size_t)(end - first) * (size_t)count,
                                       sizeof *measures, "measures", &measures);
    if (status == SNRQ_OK)
        status = snrq_streams_advance(p->rounded, &w->rounded.block, p->full, &w->full->block, step,
                                      count, measures);
    free(measures);
    return snrq_agree(w->assessment->context, status);
}

/* ---- strengths ---- */

/* What the strengths are found with: the options' damping and order, and the shift alone. */
static snrq_rule shifting_rule(const snrq_assessment *a, snrq_alpha_mode mode)
{
    snrq_rule r = a->rule;
    r.alpha_mode = mode;
    r.alpha_value = 1.0;
    r.compensate = 0.0;
    return r;
}

/* like: in whose order, or NULL */
static snrq_status gather(const walk *w, const pair *p, int unit, const snrq_rule *rule,
                          const snrq_statistics *like, snrq_statistics *out)
{
    const snrq_assessment *a = w->assessment;
    const snrq_family *f = w->full->block.family;
    const int step = f->unit[unit].step;
    const snrq_process_shape shape = {a->options->factor_rows, a->options->factor_columns};
    const snrq_team all = snrq_team_of_all(a->context);
    snrq_unit_tokens read = {0};
    const snrq_unit_input input = {.x = &read.x,
                                   .xf = &read.xf,
                                   .sequences_global = p->windows->count,
                                   .distinct_global = p->windows->distinct};
    snrq_status status = snrq_agree(a->context, snrq_streams_tokens(p->rounded, p->full, f, step,
                                                                    unit - f->step[step].first,
                                                                    rule->weighted_tokens, &read));
    if (status == SNRQ_OK)
        status = snrq_statistics_gather_like(a->context, &all, rule, shape, &input, like, out);
    snrq_unit_tokens_free(&read);
    return status;
}

/* unit_found: what was found of it, whose modules get "alpha" */
static snrq_status weigh_unit(const walk *w, int unit, const json_t *unit_found)
{
    const snrq_assess_unit of = {w->assessment->context, w->full, &w->rounded, w->layer, unit};
    const snrq_rule fit = shifting_rule(w->assessment, SNRQ_ALPHA_CORR);
    const snrq_rule judge = shifting_rule(w->assessment, SNRQ_ALPHA_FIXED);
    snrq_statistics fitted = {0}, other = {0};
    json_t *list = NULL, *module;
    size_t m;
    if (!snrq_rule_shifts_target(&fit)) return SNRQ_OK;
    snrq_status status = gather(w, &w->fitted, unit, &fit, NULL, &fitted);
    if (status == SNRQ_OK) status = gather(w, &w->judged, unit, &judge, &fitted, &other);
    if (status == SNRQ_OK) status = snrq_assess_alphas(&of, &fit, &fitted, &other, &list);
    if (status == SNRQ_OK)
        json_array_foreach(json_object_get(unit_found, "modules"), m, module)
            json_object_set(module, "alpha", json_array_get(list, m));
    json_decref(list);
    snrq_statistics_free(&other);
    snrq_statistics_free(&fitted);
    return status;
}

/* ---- a block ---- */

static snrq_status begin(const walk *w, const pair *p)
{
    snrq_status status = snrq_stream_begin(p->full, &w->full->block);
    if (status == SNRQ_OK) status = snrq_stream_begin(p->rounded, &w->rounded.block);
    return snrq_agree(w->assessment->context, status);
}

static snrq_status pass_step(const walk *w, int step, const json_t *step_found)
{
    const snrq_step *s = &w->full->block.family->step[step];
    const json_t *units = json_object_get(step_found, "units");
    snrq_status status = route(w, &w->fitted, step);
    if (status == SNRQ_OK) status = route(w, &w->judged, step);
    for (int u = s->first; status == SNRQ_OK && u < s->end; u++)
        status = weigh_unit(w, u, json_array_get(units, (size_t)(u - s->first)));
    if (status == SNRQ_OK) status = advance(w, &w->fitted, step);
    if (status == SNRQ_OK) status = advance(w, &w->judged, step);
    return status;
}

static snrq_status pass_block(walk *w, const json_t *steps, json_t **found)
{
    double input = 0.0, output = 0.0;
    snrq_assessment *a = w->assessment;
    SNRQ_TRY(snrq_quantized_block_load(a->context, a->model, a->rounded_path, w->layer, &a->ropes,
                                       &w->rounded));
    SNRQ_TRY(measure(w, &w->judged, &input));
    SNRQ_TRY(begin(w, &w->fitted));
    SNRQ_TRY(begin(w, &w->judged));
    for (int s = 0; s < w->full->block.family->steps; s++)
        SNRQ_TRY(pass_step(w, s, json_array_get(steps, (size_t)s)));
    SNRQ_TRY(measure(w, &w->judged, &output));
    *found = json_pack("{s:f, s:f}", "input", input, "output", output);
    return SNRQ_OK;
}

snrq_status snrq_assess_mismatch(snrq_assessment *a, int64_t layer, const snrq_loaded_block *full,
                                 json_t *steps, json_t **found)
{
    walk w = {.assessment = a,
              .layer = layer,
              .full = full,
              .fitted = {&a->fitted, &a->full, &a->rounded, 0},
              .judged = {&a->judged, &a->before, &a->judged_rounded, 0}};
    *found = NULL;
    if (a->rounded_path == NULL) {
        snrq_status status = snrq_stream_forward(&a->full, &full->block);
        if (status == SNRQ_OK) status = snrq_stream_forward(&a->before, &full->block);
        return snrq_agree(a->context, status);
    }
    const snrq_family *f = full->block.family;
    for (int s = 0; s < f->steps; s++)
        if (f->step[s].kind == SNRQ_STEP_EXPERTS_ACTIVATION)
            w.fitted.least = snrq_unit_least_tokens(f, s, a->options->expert_tokens);
    snrq_status status = pass_block(&w, steps, found);
    snrq_loaded_block_free(&w.rounded);
    return status;
}

/* ---- all of them ---- */

/* Sums over all modules, of which each counts by its output. */
typedef struct alpha_sums {
    int64_t modules;
    double energy, reachable, product, shift;
} alpha_sums;

static void add_module(const json_t *module, alpha_sums *sums)
{
    const json_t *alpha = json_object_get(module, "alpha");
    if (alpha == NULL) return;
    sums->modules++;
    sums->energy += json_number_value(json_object_get(alpha, "energy"));
    sums->reachable += json_number_value(json_object_get(alpha, "reachable"));
    sums->product += json_number_value(json_object_get(alpha, "product"));
    sums->shift += json_number_value(json_object_get(alpha, "shift"));
}

static double share_of(double part, double whole)
{
    return !(whole > 0.0) || !(part > 0.0) ? 0.0 : part > whole ? 1.0 : part / whole;
}

json_t *snrq_assess_alpha(const snrq_assessment *a, const json_t *blocks)
{
    const json_t *block, *step, *unit, *module;
    size_t b, s, u, m;
    alpha_sums sums = {0};
    snrq_rule rule = shifting_rule(a, SNRQ_ALPHA_AUTO);
    json_array_foreach((json_t *)blocks, b, block)
        json_array_foreach(json_object_get(block, "steps"), s, step)
            json_array_foreach(json_object_get(step, "units"), u, unit)
                json_array_foreach(json_object_get(unit, "modules"), m, module)
                    add_module(module, &sums);
    if (sums.modules == 0) return NULL;
    const double held_out = share_of(sums.product, sums.shift);
    const double by_tokens = snrq_strengths_choose(&rule, 1, a->fitted.distinct).alpha;
    return json_pack("{s:f, s:f, s:f, s:f}", "corr", share_of(sums.reachable, sums.energy),
                     "held_out", held_out, "auto", by_tokens, "suggested",
                     held_out < by_tokens ? held_out : by_tokens);
}
