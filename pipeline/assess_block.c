/* Steps of a block alone, and all of it; see assess_block.h. */
#include "pipeline/assess_block.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"
#include "pipeline/assess_mismatch.h"
#include "pipeline/assess_unit.h"
#include "pipeline/model/expert_stream.h"
#include "pipeline/phase.h"
#include "pipeline/recipe.h"
#include "pipeline/unit.h"

typedef struct block_work {
    snrq_assessment *assessment;
    int64_t layer;
    const snrq_loaded_block *full;
    snrq_loaded_block alone, whole; /* codes of steps that are rounded alone; of all together */
    snrq_coverage coverage;
    float *entry;     /* h of the fitted windows, as they enter the block */
    json_t *steps;    /* a list with what was found of each */
    json_t *mismatch; /* of the rounded model, or NULL */
} block_work;

/* ---- steps ---- */

static void describe_inputs_of(const snrq_assessment *a, const snrq_activations *h,
                               const snrq_activations *hf, bool writes, snrq_unit_input *input)
{
    input->sequences_global = a->fitted.count;
    input->distinct_global = a->fitted.distinct;
    input->alphas = a->alphas;
    input->h = writes ? h : NULL;
    input->hf = writes ? hf : NULL;
    input->residual_scale = a->model->config.residual_scale;
}

/* H and the others of what a unit reads. */
static snrq_status gather(const block_work *b, const snrq_rule *rule, int unit,
                          snrq_statistics *out)
{
    const snrq_assessment *a = b->assessment;
    const snrq_family *f = b->full->block.family;
    const int step = f->unit[unit].step;
    const snrq_process_shape shape = {a->options->factor_rows, a->options->factor_columns};
    const snrq_team all = snrq_team_of_all(a->context);
    const snrq_activations h = snrq_stream_residual(&a->twin);
    const snrq_activations hf = snrq_stream_residual(&a->full);
    snrq_unit_tokens read = {0};
    snrq_unit_input input = {.x = &read.x, .xf = &read.xf};
    describe_inputs_of(a, &h, &hf, snrq_unit_writes_residual(f, unit), &input);
    SNRQ_TRY(snrq_watch_check(a->context, a->watch));
    snrq_watch_enter(a->watch, SNRQ_PHASE_GRAM);
    snrq_status status = snrq_agree(a->context, snrq_streams_tokens(&a->twin, &a->full, f, step,
                                                                    unit - f->step[step].first,
                                                                    rule->weighted_tokens, &read));
    if (status == SNRQ_OK)
        status = snrq_statistics_gather(a->context, &all, rule, shape, &input, out);
    snrq_unit_tokens_free(&read);
    snrq_watch_enter(a->watch, SNRQ_PHASE_SEARCH);
    return status;
}

static snrq_assess_unit unit_of(const block_work *b, const snrq_loaded_block *quantized, int unit)
{
    return (snrq_assess_unit){b->assessment->context, b->full, quantized, b->layer, unit};
}

/* Of a unit whose step is rounded alone. */
static snrq_status assess_unit(const block_work *b, int unit, json_t *found)
{
    const snrq_assessment *a = b->assessment;
    const snrq_assess_unit of = unit_of(b, &b->alone, unit);
    snrq_statistics statistics = {0};
    json_t *modules = NULL, *inputs = NULL;
    snrq_status status = gather(b, &a->alone, unit, &statistics);
    if (status == SNRQ_OK)
        status = snrq_assess_choices(&of, &a->choices, &a->alone, &statistics, &modules, &inputs);
    snrq_statistics_free(&statistics);
    json_array_append_new(found, json_pack("{s:o?, s:o?}", "inputs", inputs, "modules", modules));
    return status;
}

/* Of a unit behind those of the block that are rounded already: as `quantize` does it. */
static snrq_status round_unit(const block_work *b, int unit)
{
    const snrq_assess_unit of = unit_of(b, &b->whole, unit);
    snrq_statistics statistics = {0};
    snrq_status status = gather(b, &b->assessment->rule, unit, &statistics);
    if (status == SNRQ_OK) status = snrq_assess_round(&of, &b->assessment->rule, &statistics);
    snrq_statistics_free(&statistics);
    return status;
}

/* quantized: what the twin stream goes through */
static snrq_status route(block_work *b, int step, const snrq_block *quantized)
{
    snrq_assessment *a = b->assessment;
    const snrq_family *f = b->full->block.family;
    const int64_t least = snrq_unit_least_tokens(f, step, a->options->expert_tokens);
    if (f->step[step].kind != SNRQ_STEP_EXPERTS_ACTIVATION) return SNRQ_OK;
    snrq_watch_enter(a->watch, SNRQ_PHASE_FORWARD);
    return snrq_streams_route(a->context, a->fitted.count, least, &a->twin, quantized, &a->full,
                              &b->full->block, &b->coverage);
}

static snrq_status advance(block_work *b, int step, const snrq_block *quantized)
{
    snrq_assessment *a = b->assessment;
    const int64_t count = a->fitted.count;
    int first, end;
    double *measures = NULL;
    snrq_step_modules(b->full->block.family, step, &first, &end);
    snrq_watch_enter(a->watch, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_allocate(SNRQ_MEASURES * (size_t)(end - first) * (size_t)count,
                                       sizeof *measures, "measures", &measures);
    if (status == SNRQ_OK)
        status = snrq_streams_advance(&a->twin, quantized, &a->full, &b->full->block, step, count,
                                      measures);
    free(measures);
    return snrq_agree(a->context, status);
}

/* Both streams from the beginning of the block. */
static snrq_status begin(const block_work *b)
{
    snrq_assessment *a = b->assessment;
    memcpy(a->full.h, b->entry, snrq_stream_bytes(&a->full));
    memcpy(a->twin.h, b->entry, snrq_stream_bytes(&a->twin));
    snrq_status status = snrq_stream_begin(&a->full, &b->full->block);
    if (status == SNRQ_OK) status = snrq_stream_begin(&a->twin, &b->full->block);
    return snrq_agree(a->context, status);
}

/* Each step from H of the full-precision input. */
static snrq_status round_alone(block_work *b)
{
    const snrq_family *f = b->full->block.family;
    snrq_status status = begin(b);
    for (int s = 0; status == SNRQ_OK && s < f->steps; s++) {
        json_t *units = json_array();
        status = route(b, s, &b->full->block);
        for (int u = f->step[s].first; status == SNRQ_OK && u < f->step[s].end; u++)
            status = assess_unit(b, u, units);
        if (status == SNRQ_OK) status = advance(b, s, &b->full->block);
        json_array_append_new(b->steps,
                              json_pack("{s:s, s:o}", "name", f->step[s].name, "units", units));
    }
    return status;
}

/* Each step behind those that are rounded already. */
static snrq_status round_whole(block_work *b)
{
    const snrq_family *f = b->full->block.family;
    snrq_status status = begin(b);
    for (int s = 0; status == SNRQ_OK && s < f->steps; s++) {
        status = route(b, s, &b->whole.block);
        for (int u = f->step[s].first; status == SNRQ_OK && u < f->step[s].end; u++)
            status = round_unit(b, u);
        if (status == SNRQ_OK) status = advance(b, s, &b->whole.block);
    }
    return status;
}

/* ---- divergences ---- */

/* A module, or all experts' of a name, and what was found of it. */
typedef struct place_of_module {
    int step;
    json_t *found; /* borrowed */
} place_of_module;

/* That of a step, as it was measured. Borrowed. */
static json_t *divergence_of(const block_work *b, const json_t *step)
{
    const snrq_choices *c = &b->assessment->choices;
    const json_t *list = json_object_get(step, "divergence");
    return json_object_get(json_array_get(list, (size_t)(c->usual * c->sizes)), "kl");
}

/* The mean over a step's modules of how its error grows with a choice, from the usual one. */
static double growth_of(const json_t *step, size_t choice, size_t usual)
{
    const json_t *unit, *module;
    size_t u, m, count = 0;
    double sum = 0.0;
    json_array_foreach(json_object_get(step, "units"), u, unit)
        json_array_foreach(json_object_get(unit, "modules"), m, module)
    {
        const json_t *list = json_object_get(module, "choices");
        const char key[] = "objective";
        double from = json_number_value(json_object_get(json_array_get(list, usual), key));
        double to = json_number_value(json_object_get(json_array_get(list, choice), key));
        if (!(from > 0.0)) continue; /* its inputs are dead */
        sum += to / from;
        count++;
    }
    return count > 0 ? sum / (double)count : 1.0;
}

/* kl: measured with the usual choice */
static void add_divergences(const snrq_choices *c, double kl, json_t *step)
{
    const int usual = c->usual * c->sizes;
    json_t *list = json_array();
    for (int i = 0; i < snrq_choices_count(c); i++) {
        json_t *row = snrq_choice_describe(c, i);
        const double grown = i == usual ? kl : kl * growth_of(step, (size_t)i, (size_t)usual);
        json_object_set_new(row, "kl", json_real(grown));
        json_array_append_new(list, row);
    }
    json_object_set_new(step, "divergence", list);
}

/* The block with one step rounded, or with those of its modules that a recipe names so. modules
 * [modules of the block] */
static snrq_block with_rounded(const block_work *b, int step, const char *pattern,
                               snrq_weight *modules)
{
    snrq_block mixed = b->full->block;
    char own[SNRQ_MODULE_NAME + 2];
    int first, end;
    memcpy(modules, mixed.module, (size_t)mixed.family->modules * sizeof *modules);
    snrq_step_modules(mixed.family, step, &first, &end);
    for (int m = first; m < end; m++) {
        snrq_recipe_pattern(mixed.family, m, own);
        if (pattern == NULL || strcmp(own, pattern) == 0) modules[m] = b->alone.block.module[m];
    }
    mixed.module = modules;
    return mixed;
}

/* variant [steps + 1], kl [steps + 1], modules [steps, modules] */
static snrq_status measure(const block_work *b, snrq_block *variant, double *kl,
                           snrq_weight *modules)
{
    const snrq_divergence of = snrq_assessment_divergence(b->assessment);
    const snrq_family *f = b->full->block.family;
    snrq_watch_enter(b->assessment->watch, SNRQ_PHASE_FORWARD);
    for (int s = 0; s < f->steps; s++)
        variant[s] = with_rounded(b, s, NULL, modules + (size_t)s * (size_t)f->modules);
    variant[f->steps] = b->whole.block;
    return snrq_divergence_measure(&of, b->layer, variant, f->steps + 1, kl);
}

/* "modules" of a step: a list with the name of each, and no divergence yet. */
static json_t *list_modules(const snrq_family *f, int step)
{
    json_t *list = json_array(), *last;
    int first, end;
    snrq_step_modules(f, step, &first, &end);
    for (int m = first; m < end; m++) {
        char name[SNRQ_MODULE_NAME + 2];
        bool known = false;
        size_t i;
        snrq_recipe_pattern(f, m, name);
        json_array_foreach(list, i, last) known |=
            strcmp(json_string_value(json_object_get(last, "name")), name) == 0;
        if (!known) json_array_append_new(list, json_pack("{s:s}", "name", name));
    }
    return list;
}

/* Fills in "kl" of `count` of the places, which a step's modules take in turn. variant [count], kl
 * [count], modules [count, modules] */
static snrq_status measure_some(const block_work *b, const place_of_module *place, int count,
                                snrq_block *variant, double *kl, snrq_weight *modules)
{
    const snrq_divergence of = snrq_assessment_divergence(b->assessment);
    const size_t size = (size_t)b->full->block.family->modules;
    for (int i = 0; i < count; i++)
        variant[i] = with_rounded(b, place[i].step,
                                  json_string_value(json_object_get(place[i].found, "name")),
                                  modules + (size_t)i * size);
    SNRQ_TRY(snrq_divergence_measure(&of, b->layer, variant, count, kl));
    for (int i = 0; i < count; i++) json_object_set_new(place[i].found, "kl", json_real(kl[i]));
    return SNRQ_OK;
}

/* Each module alone, as many at a time as there are variants; where a step has one, it is the step.
 * The arguments: as measure() has them, kl being that of the steps before. */
static snrq_status measure_modules(block_work *b, snrq_block *variant, double *kl,
                                   snrq_weight *modules)
{
    const snrq_family *f = b->full->block.family;
    const int most = f->steps;
    place_of_module *place = NULL;
    int count = 0;
    json_t *module;
    size_t m;
    snrq_status status = snrq_agree(b->assessment->context,
                                    snrq_allocate((size_t)most, sizeof *place, "modules", &place));
    for (int s = 0; status == SNRQ_OK && s < f->steps; s++) {
        json_t *list = list_modules(f, s), *step = json_array_get(b->steps, (size_t)s);
        json_object_set_new(step, "modules", list);
        if (json_array_size(list) == 1)
            json_object_set(json_array_get(list, 0), "kl", divergence_of(b, step));
        else
            json_array_foreach(list, m, module)
            {
                if (status != SNRQ_OK) break;
                place[count++] = (place_of_module){s, module};
                if (count < most) continue;
                status = measure_some(b, place, count, variant, kl, modules);
                count = 0;
            }
    }
    if (status == SNRQ_OK && count > 0)
        status = measure_some(b, place, count, variant, kl, modules);
    free(place);
    return status;
}

/* Adds the divergences to what was found of the steps. */
static snrq_status judge(block_work *b, double *whole)
{
    const snrq_family *f = b->full->block.family;
    const size_t steps = (size_t)f->steps;
    snrq_block *variant = NULL;
    snrq_weight *modules = NULL;
    double *kl = NULL;
    snrq_status status = snrq_allocate(steps + 1, sizeof *variant, "blocks", &variant);
    if (status == SNRQ_OK)
        status = snrq_allocate(steps * (size_t)f->modules, sizeof *modules, "modules", &modules);
    if (status == SNRQ_OK) status = snrq_allocate(steps + 1, sizeof *kl, "divergences", &kl);
    status = snrq_agree(b->assessment->context, status);
    if (status == SNRQ_OK) status = measure(b, variant, kl, modules);
    for (size_t s = 0; status == SNRQ_OK && s < steps; s++)
        add_divergences(&b->assessment->choices, kl[s], json_array_get(b->steps, s));
    if (status == SNRQ_OK) *whole = kl[steps];
    if (status == SNRQ_OK && b->assessment->options->alone_modules != 0)
        status = measure_modules(b, variant, kl, modules);
    free(kl);
    free(modules);
    free(variant);
    return status;
}

/* ---- all of a block ---- */

static snrq_status create_quantized(block_work *b)
{
    const snrq_assessment *a = b->assessment;
    const snrq_family *f = b->full->block.family;
    snrq_part_groups *groups = NULL;
    snrq_status status = snrq_allocate((size_t)f->parts, sizeof *groups, "groups", &groups);
    for (int p = 0; status == SNRQ_OK && p < f->parts; p++)
        groups[p].count = snrq_rule_groups(&a->rule, f->part[p].columns);
    if (status == SNRQ_OK)
        status = snrq_allocate(snrq_stream_bytes(&a->full) + 1, 1, "hidden states", &b->entry);
    status = snrq_agree(a->context, status);
    if (status == SNRQ_OK)
        status = snrq_quantized_block_create(a->context, a->model, b->layer, groups, &a->ropes,
                                             &b->alone);
    if (status == SNRQ_OK)
        status = snrq_quantized_block_create(a->context, a->model, b->layer, groups, &a->ropes,
                                             &b->whole);
    free(groups);
    return status;
}

static snrq_status assess(block_work *b, double *kl)
{
    snrq_assessment *a = b->assessment;
    SNRQ_TRY(create_quantized(b));
    memcpy(b->entry, a->full.h, snrq_stream_bytes(&a->full));
    SNRQ_TRY(round_alone(b));
    SNRQ_TRY(round_whole(b));
    SNRQ_TRY(judge(b, kl));
    snrq_loaded_block_free(&b->alone);
    snrq_loaded_block_free(&b->whole);
    memcpy(a->full.h, b->entry, snrq_stream_bytes(&a->full));
    SNRQ_TRY(snrq_assess_mismatch(a, b->layer, b->full, b->steps, &b->mismatch));
    memcpy(a->twin.h, a->full.h, snrq_stream_bytes(&a->full));
    return SNRQ_OK;
}

snrq_status snrq_assess_block(snrq_assessment *a, int64_t layer, const snrq_loaded_block *full,
                              json_t **out)
{
    block_work b = {.assessment = a, .layer = layer, .full = full, .steps = json_array()};
    double kl = 0.0;
    snrq_status status = assess(&b, &kl);
    *out = json_pack("{s:I, s:f, s:o*, s:O}", "block", (json_int_t)layer, "kl", kl, "mismatch",
                     b.mismatch, "steps", b.steps);
    snrq_loaded_block_free(&b.alone);
    snrq_loaded_block_free(&b.whole);
    snrq_coverage_free(&b.coverage);
    free(b.entry);
    json_decref(b.steps);
    return status;
}
