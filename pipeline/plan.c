/* The plan of a run: what it costs, laid out so and in other ways; see plan.h. */
#include "pipeline/plan.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "io/checkpoint/activation_file.h"
#include "mpi/algebra/kernels.h"
#include "mpi/log.h"
#include "mpi/memory_limit.h"
#include "mpi/placement.h"
#include "pipeline/assess_cost.h"
#include "pipeline/plan_memory.h"
#include "pipeline/sensitivity_cost.h"
#include "pipeline/work.h"

/* The cost of a run that is laid out so, with the backward pass that it makes. */
static snrq_status cost_of(const snrq_options *o, const snrq_model *m, const snrq_rules *rules,
                           const snrq_windows *w, const snrq_machine *machine,
                           const snrq_layout_of_run *layout, snrq_cost *out)
{
    const snrq_windows texts = snrq_plan_pass_windows(o, w);
    const int phase = SNRQ_PHASE_BACKWARD;
    SNRQ_TRY(snrq_cost_make(machine, rules, m, w, layout, out));
    if (!snrq_options_make_sensitivity(o)) return SNRQ_OK;
    out->messages[phase] =
        snrq_sensitivity_traffic(m, &texts, layout, o->pass_memory, &out->bytes[phase]);
    out->seconds[phase] = snrq_sensitivity_seconds(machine, m, &texts, layout, o->pass_memory);
    out->total += out->seconds[phase];
    return SNRQ_OK;
}

/* Tries the layouts of as many nodes: ranks of a node that divide its cores, and layer groups. */
static snrq_status find_best(const snrq_options *o, const snrq_model *m, const snrq_rules *rules,
                             const snrq_windows *w, double limit, snrq_plan *p)
{
    const int cores = p->ranks_per_node * p->cost_threads;
    for (int here = 1; here <= cores; here++) {
        int ranks = here * p->nodes, groups = 1;
        if (cores % here != 0) continue;
        if (o->layer_groups == 0) SNRQ_TRY(snrq_work_best_groups(rules, m, w, ranks, &groups));
        if (o->layer_groups > 0) groups = (int)o->layer_groups;
        if (groups > ranks) continue;
        const snrq_layout_of_run layout = {ranks, p->nodes, cores / here, groups};
        snrq_plan memory = {
            .ranks = ranks, .nodes = p->nodes, .ranks_per_node = here, .groups = groups};
        snrq_cost cost;
        snrq_plan_lay_out(o, m, rules, w, &memory);
        if (limit > 0.0 && memory.node_bytes > limit) continue;
        SNRQ_TRY(cost_of(o, m, rules, w, &p->machine, &layout, &cost));
        /* Fewer ranks where it makes no difference. */
        if (p->best.ranks > 0 && cost.total > 0.98 * p->best_seconds) continue;
        p->best = layout;
        p->best_seconds = cost.total;
        p->best_node_bytes = memory.node_bytes;
    }
    return SNRQ_OK;
}

/* A bit for each format of a module. */
static unsigned formats_of(const snrq_rules *rules, const snrq_model *m)
{
    unsigned found = 0;
    for (int64_t layer = 0; layer < m->config.layers; layer++)
        for (int i = 0; i < snrq_model_family(m, layer)->modules; i++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, i);
            if (!r->keep && r->format != NULL) found |= 1u << (r->format - snrq_weight_formats);
        }
    return found;
}

/* Seconds and traffic, by a machine that was measured before, or by this one. */
static snrq_status find_cost(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                             const snrq_rules *rules, const snrq_windows *w, double limit,
                             snrq_plan *p)
{
    const int threads = omp_get_max_threads();
    const snrq_windows texts = snrq_plan_pass_windows(o, w);
    if (o->machine != NULL)
        SNRQ_TRY(snrq_agree(c, snrq_machine_read(o->machine, &p->machine)));
    else
        SNRQ_TRY(snrq_machine_measure(c, snrq_rules_first(rules, m), formats_of(rules, m),
                                      snrq_model_max_columns(m), &p->machine));
    if (o->network != NULL) SNRQ_TRY(snrq_machine_network(o->network, &p->machine));
    p->cost_threads = threads;
    const snrq_layout_of_run layout = {p->ranks, p->nodes, threads, p->groups};
    const snrq_layout_of_run alone = {1, 1, threads, 1};
    SNRQ_TRY(cost_of(o, m, rules, w, &p->machine, &layout, &p->cost));
    SNRQ_TRY(cost_of(o, m, rules, w, &p->machine, &alone, &p->alone));
    p->sensitivity_seconds =
        snrq_sensitivity_seconds(&p->machine, m, &texts, &layout, o->pass_memory);
    snrq_assess_work work;
    SNRQ_TRY(snrq_assess_work_of(o, &work));
    p->assess_seconds = snrq_assess_seconds(&work, &p->cost, rules, m, w);
    p->assess_bytes = p->rank_bytes + snrq_assess_rank_bytes(&work, m, w, p->ranks);
    p->costed = true;
    p->seconds = p->cost.total;
    return o->plan ? find_best(o, m, rules, w, limit, p) : SNRQ_OK;
}

snrq_status snrq_plan_make(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                           const snrq_rules *rules, const snrq_windows *w,
                           const snrq_layer_groups *groups, snrq_plan *out)
{
    const char *source;
    double limit = snrq_memory_limit("", &source);
    *out = (snrq_plan){.groups = groups->count,
                       .ranks = o->plan_ranks > 0 ? (int)o->plan_ranks : c->size,
                       .nodes = o->plan_nodes > 0 ? (int)o->plan_nodes : c->nodes};
    if (out->nodes > out->ranks) out->nodes = out->ranks;
    out->ranks_per_node = o->plan_ranks > 0 || o->plan_nodes > 0
                              ? (out->ranks + out->nodes - 1) / out->nodes
                              : c->node_size;
    snrq_plan_lay_out(o, m, rules, w, out);
    out->reads_ahead = limit == 0.0 || out->node_bytes + out->block_bytes <= limit;
    if (o->keep_activations)
        out->activation_bytes = groups->count * (double)snrq_activation_file_bytes(
                                                    w->count, w->length, m->config.hidden);
    if (o->dry_run) SNRQ_TRY(find_cost(c, o, m, rules, w, limit, out));
    return snrq_work_best_groups(rules, m, w, out->ranks, &out->best_groups);
}

snrq_status snrq_plan_check(const snrq_context *c, const snrq_options *o, const snrq_plan *p)
{
    snrq_placement found;
    SNRQ_TRY(snrq_check_launch(c));
    if (!o->ignore_memory) {
        SNRQ_TRY(snrq_check_memory(c, p->node_bytes));
        SNRQ_TRY(snrq_check_shared_memory(c, p->shared_bytes));
    }
    SNRQ_TRY(snrq_placement_find(c, omp_get_max_threads(), &found));
    snrq_note(c,
              "placement    %d rank%s on %d node%s, %lld thread%s per rank on %lld core%s, "
              "%s instructions",
              c->size, c->size == 1 ? "" : "s", c->nodes, c->nodes == 1 ? "" : "s",
              (long long)found.threads, found.threads == 1 ? "" : "s", (long long)found.cores,
              found.cores == 1 ? "" : "s", snrq_kernels_name());
    if (found.threads > found.cores)
        snrq_note(
            c,
            "warning: a rank runs %lld threads on the %lld core%s it is bound to: it will be slow; "
            "--bind-to none (mpirun) or --cpus-per-task (Slurm) gives it more cores, --threads "
            "fewer "
            "threads",
            (long long)found.threads, (long long)found.cores, found.cores == 1 ? "" : "s");
    else if (found.node_threads > found.node_cores)
        snrq_note(
            c,
            "warning: ranks of a node run %lld threads on %lld core%s together: fewer ranks or "
            "--threads would be faster, or another binding",
            (long long)found.node_threads, (long long)found.node_cores,
            found.node_cores == 1 ? "" : "s");
    return SNRQ_OK;
}
