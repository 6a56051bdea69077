/* Memory and time of an assessment; see assess_cost.h. */
#include "pipeline/assess_cost.h"

#include <math.h>

#include "pipeline/assess/choices.h"
#include "pipeline/assess_uniform.h"
#include "pipeline/recipe.h"

enum { STREAMS = 2, ROUNDINGS = 2 };

snrq_status snrq_assess_work_of(const snrq_options *o, snrq_assess_work *out)
{
    snrq_choices c;
    SNRQ_TRY(snrq_choices_parse(o->widths_text, o->group_sizes_text, o->group_size, &c));
    SNRQ_TRY(snrq_choices_add_formats(o->formats_text, &c));
    *out = (snrq_assess_work){.judged = o->judged_windows,
                              .choices = snrq_choices_count(&c),
                              .modules = o->alone_modules != 0};
    for (int w = 0; w < c.widths && !o->no_uniform; w++) {
        if (c.bits[w] > SNRQ_WIDEST_UNIFORM) continue;
        out->uniform++;
        out->walks |= w == c.usual;
    }
    return SNRQ_OK;
}

double snrq_assess_rank_bytes(const snrq_assess_work *work, const snrq_model *m,
                              const snrq_windows *w, int ranks)
{
    const double window = (double)(w->length * m->config.hidden) * sizeof(float);
    const double judged = ceil((double)work->judged / ranks);
    const double fitted = ceil((double)w->count / ranks);
    double steps = 0.0;
    for (int64_t l = 0; l < m->config.layers; l++)
        steps = fmax(steps, snrq_model_family(m, l)->steps);
    /* before, after and the start; a variant for each step and for the block */
    return window * (judged * (3.0 + steps + 1.0 + work->walks) + fitted * (1.0 + work->walks));
}

/* The block, its steps, and with --alone modules what of them is no whole step. */
static double variants_of(const snrq_assess_work *work, const snrq_family *f)
{
    double count = f->steps + 1.0;
    for (int s = 0; s < f->steps && work->modules; s++) {
        const int patterns = snrq_recipe_patterns(f, s);
        count += patterns > 1 ? patterns : 0;
    }
    return count;
}

/* Blocks that all variants of all blocks go through. */
static double passes_of(const snrq_assess_work *work, const snrq_model *m)
{
    double passes = 0.0;
    for (int64_t l = 0; l < m->config.layers; l++)
        passes += variants_of(work, snrq_model_family(m, l)) * (double)(m->config.layers - l);
    return passes;
}

double snrq_assess_seconds(const snrq_assess_work *work, const snrq_cost *q,
                           const snrq_rules *rules, const snrq_model *m, const snrq_windows *w)
{
    const snrq_rule *rule = snrq_rules_first(rules, m);
    const double layers = (double)m->config.layers;
    const double searches = (double)rule->beam * (1.0 + rule->regrid);
    const double forward = q->seconds[SNRQ_PHASE_FORWARD];
    const double pass = forward / ((double)(STREAMS * w->count) * layers);
    const double choice =
        ROUNDINGS * q->seconds[SNRQ_PHASE_FACTOR] + q->seconds[SNRQ_PHASE_SEARCH] / searches;
    const double walk = forward + q->seconds[SNRQ_PHASE_GRAM] + q->seconds[SNRQ_PHASE_FACTOR] +
                        STREAMS * layers * (double)work->judged * pass;
    /* No backward pass belongs to it. */
    return (2.0 + work->uniform) * (q->total - q->seconds[SNRQ_PHASE_BACKWARD]) +
           work->choices * choice + (double)work->judged * pass * passes_of(work, m) +
           (work->walks ? walk : 0.0);
}
