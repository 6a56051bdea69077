/* Memory and work of tuning; see tuning_cost.h. */
#include "pipeline/tuning_cost.h"

#include <math.h>

#include "pipeline/model/block_backward.h"
#include "pipeline/tuning_passes.h"

static const double passes_to_learn = 4.0, attentions = 5.0, head_products = 3.0;
static const double sum_bytes = sizeof(snrq_fixed), sent_bytes = 24.0 /* of a sum: three parts */;

double snrq_tuning_parameters(const snrq_rules *rules, const snrq_model *m)
{
    double count = (double)m->config.hidden;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int v = 0; v < SNRQ_ROUTER; v++) count += (double)f->vector[v].count;
        for (int i = 0; i < f->modules; i++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, i);
            if (r->keep) continue;
            count += (double)f->module[i].rows * (double)snrq_rule_groups(r, f->module[i].columns);
        }
    }
    return count;
}

/* Sequences of the first rank, which has the most. */
static int64_t most_of(snrq_range all, int ranks)
{
    return (all.end - all.begin + ranks - 1) / ranks;
}

double snrq_tuning_rank_bytes(const snrq_rules *rules, const snrq_model *m, const snrq_windows *w,
                              int ranks)
{
    const snrq_config *c = &m->config;
    const int64_t own =
        most_of(snrq_passes_fitted(w), ranks) + most_of(snrq_passes_held_out(w), ranks);
    const int64_t at_a_time = snrq_passes_at_a_time(m, own, w->length);
    const int64_t batch = snrq_stream_batch(own, w->length) * w->length;
    const double sequence = (double)(w->length * c->hidden) * sizeof(float);
    double room = 2.0 * snrq_label_head_bytes(c);
    for (int64_t layer = 0; layer < c->layers; layer++)
        room = fmax(room, (double)snrq_block_backward_bytes(c, snrq_model_family(m, layer), batch));
    return sum_bytes * snrq_tuning_parameters(rules, m) + (double)own * sequence +
           (double)((c->layers + 1) * at_a_time) * sequence + room;
}

double snrq_tuning_node_bytes(const snrq_rules *rules, const snrq_model *m)
{
    const snrq_config *c = &m->config;
    const double size = (double)snrq_dtype_size(c->dtype),
                 parameters = snrq_tuning_parameters(rules, m);
    double bytes = 2.0 * (double)(c->vocabulary * c->hidden) * size +
                   (SNRQ_TUNED_ARRAYS * sizeof(float) + 5.0) * parameters;
    for (int64_t layer = 0; layer < c->layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++)
            bytes += (double)f->module[i].rows * (double)f->module[i].columns *
                     (snrq_rules_at(rules, layer, i)->keep ? size : 1.0);
    }
    return bytes;
}

void snrq_tuning_work_make(const snrq_rules *rules, const snrq_model *m, const snrq_windows *w,
                           snrq_tuning_work *out)
{
    const snrq_config *c = &m->config;
    const int64_t sequences = snrq_passes_fitted(w).end;
    const double fitted = (double)(sequences * w->length);
    const double held_out = (double)(w->held_out * w->length), seen = 0.5 * (double)w->length;
    double weights = 0.0;
    for (int64_t layer = 0; layer < c->layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int u = 0; u < f->units; u++)
            weights += f->unit[u].share * (double)f->unit[u].rows * (double)f->unit[u].columns;
    }
    const double head = (double)(c->vocabulary * c->hidden);
    out->products = weights * (passes_to_learn * fitted + held_out) +
                    head * (head_products * fitted + 2.0 * held_out);
    out->attention = (attentions * fitted + held_out) * seen * (double)(c->layers * c->heads) *
                     (double)(c->head_dim + c->value_dim);
    out->steps = ceil((double)sequences / SNRQ_TUNING_BATCH);
    out->summed = out->steps * sent_bytes * snrq_tuning_parameters(rules, m);
    out->full = weights * (fitted + held_out);
}
