/* Memory and time of an assessment; see assess_cost.h. */
#include "pipeline/assess_cost.h"

#include <math.h>

enum { STREAMS = 2, ROUNDINGS = 2 };

double snrq_assess_rank_bytes(const snrq_model *m, const snrq_windows *w, int ranks)
{
    const double window = (double)(w->length * m->config.hidden) * sizeof(float);
    const double judged = ceil((double)SNRQ_PLANNED_JUDGED / ranks);
    double steps = 0.0;
    for (int64_t l = 0; l < m->config.layers; l++)
        steps = fmax(steps, snrq_model_family(m, l)->steps);
    /* before, after and the start; a variant for each step and for the block */
    return window * (judged * (3.0 + steps + 1.0) + ceil((double)w->count / ranks));
}

/* Blocks that all variants of all blocks go through. */
static double passes_of(const snrq_model *m)
{
    double passes = 0.0;
    for (int64_t l = 0; l < m->config.layers; l++)
        passes += (double)(snrq_model_family(m, l)->steps + 1) * (double)(m->config.layers - l);
    return passes;
}

double snrq_assess_seconds(const snrq_cost *q, const snrq_rules *rules, const snrq_model *m,
                           const snrq_windows *w)
{
    const snrq_rule *rule = snrq_rules_first(rules, m);
    const double searches = (double)rule->beam * (1.0 + rule->regrid);
    const double pass =
        q->seconds[SNRQ_PHASE_FORWARD] / ((double)(STREAMS * w->count) * (double)m->config.layers);
    const double choice =
        ROUNDINGS * q->seconds[SNRQ_PHASE_FACTOR] + q->seconds[SNRQ_PHASE_SEARCH] / searches;
    /* No backward pass belongs to it. */
    return 2.0 * (q->total - q->seconds[SNRQ_PHASE_BACKWARD]) + SNRQ_PLANNED_CHOICES * choice +
           SNRQ_PLANNED_JUDGED * pass * passes_of(m);
}
