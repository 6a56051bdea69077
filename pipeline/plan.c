/* The plan of a run; see plan.h. */
#include "pipeline/plan.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/activation_file.h"
#include "io/json.h"
#include "mpi/algebra/blas.h"
#include "mpi/algebra/gram.h"
#include "mpi/algebra/kernels.h"
#include "mpi/log.h"
#include "mpi/memory_limit.h"
#include "mpi/placement.h"
#include "mpi/timers.h"
#include "pipeline/assess_cost.h"
#include "pipeline/export.h"
#include "pipeline/export/engines.h"
#include "pipeline/model/expert_stream.h"
#include "pipeline/rounding/rounding.h"
#include "pipeline/sensitivity_cost.h"
#include "pipeline/tuning_cost.h"
#include "pipeline/unit.h"

/* Does the unit's target take the residual stream's error along? */
static bool compensates(const snrq_rule *r, const snrq_family *f, int unit)
{
    return snrq_rule_compensates(r) && snrq_unit_writes_residual(f, unit);
}

/* Multiply-adds of a unit, by how ranks share them: tokens by sequences, rows by tiles of rows, the
 * factorization by columns. */
typedef struct unit_work {
    double forward, gram, factor, rows; /* forward: of one stream */
} unit_work;

static unit_work work_of_unit(const snrq_rules *rules, const snrq_family *f, int64_t layer, int u,
                              double all_tokens)
{
    const snrq_unit_shape *unit = &f->unit[u];
    const snrq_rule *r = snrq_rules_at(rules, layer, unit->first);
    double tokens = all_tokens * snrq_unit_share(f, u, rules->expert_tokens, all_tokens);
    double m = (double)unit->rows, n = (double)unit->columns;
    double beams = r->beam > 1 ? 1.5 + 0.25 * (double)r->beam : 1.0;
    double grams = snrq_rule_needs_e(r) ? 2.0 : snrq_rule_needs_d(r) ? 1.5 : 0.5;
    /* fp64 work counts double. */
    double products = (snrq_rule_shifts_target(r) ? 2.5 : 0.5) * m * n * n;
    double fit = (r->grid == SNRQ_QUANT_GRID_MINMAX ? 2.0 : 1000.0) * m * n;
    /* A round searches the rows that the one before has improved, about half of them. */
    double rounds = r->regrid == 0 ? 1.0 : 3.0 - pow(0.5, (double)r->regrid - 1.0);
    /* Where rows are coupled, all of them; and E H is formed each time, and brought to targets. */
    double coupled = 0.0;
    if (snrq_rule_couples_rows(r)) {
        rounds = 1.0 + fmax(1.0, (double)r->regrid);
        coupled = rounds * (0.5 * m * n * n + 2.0 * (double)SNRQ_TILE_ROWS * m * n);
    }
    double refine = r->refine > 0 || r->regrid > 0 ? 1.0 : 0.0, regrid = r->regrid > 0 ? 0.6 : 0.0;
    double residual = compensates(r, f, u) ? tokens * m * n : 0.0;
    if (r->keep) return (unit_work){.forward = tokens * m * n};
    return (unit_work){.forward = tokens * m * n,
                       .gram = grams * tokens * n * n + residual,
                       .factor = n * n * n / 3.0,
                       .rows = products + fit + coupled +
                               (beams / 2.0 + refine + regrid) * m * n * n * rounds};
}

static double sum_of(unit_work w)
{
    return 2.0 * w.forward + w.gram + w.factor + w.rows;
}

double snrq_plan_step_work(const snrq_rules *rules, const snrq_family *f, int64_t layer, int step,
                           const snrq_windows *w)
{
    double tokens = (double)w->count * (double)w->length, work = 0.0;
    for (int u = f->step[step].first; u < f->step[step].end; u++)
        work += sum_of(work_of_unit(rules, f, layer, u, tokens));
    return work;
}

double snrq_plan_block_work(const snrq_rules *rules, const snrq_family *f, int64_t layer,
                            const snrq_windows *w)
{
    double work = 0.0;
    for (int s = 0; s < f->steps; s++) work += snrq_plan_step_work(rules, f, layer, s, w);
    return work;
}

snrq_status snrq_plan_groups(const snrq_rules *rules, const snrq_model *m, const snrq_windows *w,
                             int groups, snrq_layer_groups *out)
{
    double *work = NULL;
    const int64_t layers = m->config.layers;
    SNRQ_TRY(snrq_allocate((size_t)layers, sizeof *work, "work of blocks", &work));
    for (int64_t layer = 0; layer < layers; layer++)
        work[layer] = snrq_plan_block_work(rules, snrq_model_family(m, layer), layer, w);
    snrq_status status = snrq_layer_groups_create(work, layers, groups, out);
    free(work);
    return status;
}

/* The largest part of `count` equal parts of the work that one of `ranks` ranks has. */
static double largest_share(int64_t count, int ranks)
{
    return (double)((count + ranks - 1) / ranks) / (double)count;
}

/* Work of the slowest of the `ranks` ranks of a group for a block. */
static double slowest_block(const snrq_rules *rules, const snrq_model *m, int64_t layer,
                            const snrq_windows *w, int ranks)
{
    const snrq_family *f = snrq_model_family(m, layer);
    double tokens = (double)w->count * (double)w->length, work = 0.0;
    for (int u = 0; u < f->units; u++) {
        unit_work all = work_of_unit(rules, f, layer, u, tokens);
        int64_t tiles = (f->unit[u].rows + SNRQ_TILE_ROWS - 1) / SNRQ_TILE_ROWS;
        int teams = snrq_unit_teams(f, u, ranks);
        work += (2.0 * all.forward + all.gram) * largest_share(w->count, ranks) +
                all.rows * largest_share(tiles, ranks / teams) / teams + all.factor / ranks;
    }
    return work;
}

/* Work of the slowest rank of a run in groups: the full-precision stream on its way to the first
 * block of the last group, by all ranks, then the blocks of the slowest group. */
static double slowest_rank(const snrq_rules *rules, const snrq_model *m, const snrq_windows *w,
                           int ranks, const snrq_layer_groups *g)
{
    double tokens = (double)w->count * (double)w->length, passed = 0.0, slowest = 0.0;
    for (int64_t layer = 0; layer < g->first[g->count - 1]; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int u = 0; u < f->units; u++)
            passed += tokens * f->unit[u].share * (double)(f->unit[u].rows * f->unit[u].columns) *
                      largest_share(w->count, ranks);
    }
    for (int k = 0; k < g->count; k++) {
        double blocks = 0.0;
        for (int64_t layer = g->first[k]; layer < g->first[k + 1]; layer++)
            blocks += slowest_block(rules, m, layer, w, ranks / g->count);
        slowest = fmax(slowest, blocks);
    }
    return passed + slowest;
}

/* More groups cost quality: they have to save this share of the time of fewer. */
static const double least_gain = 0.1;

snrq_status snrq_plan_best_groups(const snrq_rules *rules, const snrq_model *m,
                                  const snrq_windows *w, int ranks, int *best)
{
    double least = 0.0;
    *best = 1;
    for (int count = 1; count <= ranks && count <= m->config.layers; count++) {
        snrq_layer_groups g;
        SNRQ_TRY(snrq_plan_groups(rules, m, w, count, &g));
        double work = slowest_rank(rules, m, w, ranks, &g);
        snrq_layer_groups_free(&g);
        if (count > 1 && work > (1.0 - least_gain) * least) continue;
        least = work;
        *best = count;
    }
    return SNRQ_OK;
}

/* What is stored of a matrix that is quantized. */
static double stored_bytes(const snrq_rule *r, double rows, int64_t columns)
{
    const double scale = (double)snrq_dtype_size(r->scale_type);
    return rows * ceil((double)columns * (double)r->bits / 8.0) +
           rows * (double)snrq_rule_groups(r, columns) *
               (1.0 + scale * (snrq_rule_has_minima(r) ? 2.0 : 1.0));
}

/* The same of embeddings and head; *loaded: most that one of them takes in memory. */
static double table_bytes(const snrq_rules *rules, const snrq_model *m, double *loaded)
{
    const snrq_config *c = &m->config;
    const double rows = (double)c->vocabulary, weights = rows * (double)c->hidden;
    double stored = 0.0;
    *loaded = 0.0;
    for (int t = 0; t < (c->tied_embeddings ? 1 : SNRQ_TABLES); t++) {
        const snrq_rule *r = &rules->table[t];
        const double dense = weights * (double)snrq_dtype_size(c->dtype);
        stored += r->keep ? dense : stored_bytes(r, rows, c->hidden);
        *loaded = fmax(*loaded, r->keep ? dense : weights * sizeof(float));
    }
    return stored;
}

/* Bytes of weights: of the largest block, in full precision and as codes with scales and zeros in
 * memory; and of all blocks as they are stored. Matrices in FP8 are widened when they are read. */
static void block_bytes(const snrq_rules *rules, const snrq_model *m, double *full, double *codes,
                        double *stored)
{
    const size_t size = m->config.fp8_rows > 0 ? sizeof(float) : snrq_dtype_size(m->config.dtype);
    *full = *codes = *stored = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        double weights = 0.0, held = 0.0;
        for (int i = 0; i < f->modules; i++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, i);
            double rows = (double)f->module[i].rows, columns = (double)f->module[i].columns;
            double groups = (double)snrq_rule_groups(r, f->module[i].columns);
            weights += rows * columns;
            if (r->keep) {
                held += rows * columns * (double)size;
                *stored += rows * columns * (double)snrq_dtype_size(m->config.dtype);
                continue;
            }
            double minima = snrq_rule_has_minima(r) ? 1.0 : 0.0;
            held += rows * columns + rows * groups * (5.0 + 4.0 * minima);
            *stored += stored_bytes(r, rows, f->module[i].columns);
        }
        *full = fmax(*full, weights * (double)size);
        *codes = fmax(*codes, held);
    }
}

/* A process with its libraries, before it has any data (measured). */
static const double process_bytes = 40e6;

/* Most memory of a rank for a unit: its Grams, or its targets and search, which its team shares. */
static double unit_bytes(int all_ranks, snrq_process_shape shape, const snrq_rule *rule,
                         const snrq_family *f, int u, double token_share, int64_t sequences,
                         int64_t length)
{
    const int teams = snrq_unit_teams(f, u, all_ranks), ranks = all_ranks / teams;
    const snrq_unit_shape *unit = &f->unit[u];
    if (rule->keep) return 0.0;
    double n = (double)unit->columns, tokens = (double)(sequences * length) * token_share;
    snrq_range mine = snrq_rounding_share(unit->rows, ranks, 0);
    double rows = (double)(mine.end - mine.begin), shifted = snrq_rule_needs_d(rule) ? 1.0 : 0.0;
    if (shape.rows == 0 || teams > 1)
        snrq_process_grid_shape(unit->columns, ranks, &shape.rows, &shape.columns);
    double share = 1.0 / (shape.rows * shape.columns);
    int64_t widest = unit->columns;
    double residual = 0.0;
    if (compensates(rule, f, u)) {
        residual = 8.0 * n * (double)unit->rows * share;
        widest = unit->rows > widest ? unit->rows : widest;
    }
    double gram = 8.0 * tokens * n + n * n * 8.0 * (1.0 + shifted) * share + residual +
                  (double)snrq_gram_bytes(unit->columns, widest, length, sequences);
    double factor = (double)snrq_factor_bytes(unit->columns);
    double target =
        rows * n * (9.0 + 8.0 * shifted) + fmax(factor, (double)snrq_row_bytes(unit->columns));
    double search = rows * n * (25.0 + 4.0 * shifted);
    double groups = rule->group_size > 0 ? ceil(n / (double)rule->group_size) : 1.0;
    if (rule->regrid > 0) search += rows * (fmin(2.0 * groups * (groups + 1.0), 4.0 * n) + 5.0 * n);
    if (snrq_rule_couples_rows(rule)) search += rows * (4.0 * n + 4.0 * (double)SNRQ_TILE_ROWS);
    double rounding = 8.0 * tokens * n + n * n * 8.0 * (2.0 + shifted) * share + residual +
                      (target > search ? target : search);
    return gram > rounding ? gram : rounding;
}

/* Numbers per token of all inputs of a step, as both streams have them on average; 0 beyond the
 * last one. Of experts, the full-precision stream has the tokens of both streams, whose routers
 * mostly agree. */
static double step_inputs(const snrq_rules *rules, const snrq_family *f, int step,
                          double all_tokens)
{
    double width = 0.0;
    if (step >= f->steps) return 0.0;
    if (f->step[step].kind != SNRQ_STEP_EXPERTS_OUT)
        return 2.0 * (double)snrq_step_width(f, step, true);
    for (int u = f->step[step].first; u < f->step[step].end; u++)
        width += (2.0 * snrq_unit_share(f, u, rules->expert_tokens, all_tokens) +
                  (f->unit[u].expert >= 0 ? 0.25 * f->unit[u].share : 0.0)) *
                 (double)f->unit[u].columns;
    return width;
}

/* Numbers that a batch needs on its way through a step: so many tokens, or as many of experts'. */
static double batch_numbers(const snrq_family *f, int step, double batch, double expert_batch)
{
    double most = 0.0;
    if (snrq_step_is_routed(f, step)) {
        for (int u = f->step[step].first; u < f->step[step].end; u++)
            most = fmax(most, 2.0 * (double)f->unit[u].columns + 3.0 * (double)f->unit[u].rows);
        return expert_batch * most;
    }
    return batch *
           ((double)snrq_step_width(f, step, true) + 2.0 * (double)snrq_step_width(f, step, false));
}

/* Largest step of a rank in a block: both streams with a step's inputs, the next ones and a batch
 * of outputs; Grams; targets and search. */
static double block_rank_bytes(int ranks, const snrq_options *o, const snrq_rules *rules,
                               const snrq_model *m, const snrq_windows *w, int64_t layer)
{
    const snrq_family *f = snrq_model_family(m, layer);
    const snrq_process_shape shape = {o->factor_rows, o->factor_columns};
    snrq_range mine = snrq_share(w->count, 1, ranks, 0);
    int64_t sequences = mine.end - mine.begin;
    double tokens = (double)(sequences * w->length), most = 0.0;
    const double all_tokens = (double)(w->count * w->length);
    double batch = (double)(snrq_stream_batch(sequences, w->length) * w->length);
    double expert_batch = fmin(tokens, fmax(SNRQ_EXPERT_BATCH, (double)w->length));
    for (int s = 0; s < f->steps; s++)
        most = fmax(most, 4.0 * tokens *
                                  (step_inputs(rules, f, s, all_tokens) +
                                   step_inputs(rules, f, s + 1, all_tokens)) +
                              4.0 * batch_numbers(f, s, batch, expert_batch));
    for (int u = 0; u < f->units; u++)
        most = fmax(most, unit_bytes(ranks, shape, snrq_rules_at(rules, layer, f->unit[u].first), f,
                                     u, snrq_unit_share(f, u, rules->expert_tokens, all_tokens),
                                     sequences, w->length));
    return most + 8.0 * tokens * (double)m->config.hidden;
}

static double rank_bytes(int ranks, const snrq_options *o, const snrq_rules *rules,
                         const snrq_model *m, const snrq_windows *w)
{
    double most = 0.0;
    const snrq_family *before = NULL; /* blocks of a kind and of one rule need the same */
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        if (rules->recipe == NULL && snrq_model_family(m, layer) == before) continue;
        before = snrq_model_family(m, layer);
        most = fmax(most, block_rank_bytes(ranks, o, rules, m, w, layer));
    }
    return process_bytes + most;
}

/* How many groups of so many ranks each a node has ranks of, at most. */
static int groups_of_node(const snrq_plan *p, int group_ranks)
{
    int node = p->ranks_per_node, most = node < p->groups ? node : p->groups;
    bool straddles = node % group_ranks != 0 && group_ranks % node != 0;
    int here = straddles ? node / group_ranks + 2 : (node + group_ranks - 1) / group_ranks;
    return here < most ? here : most;
}

static double weights_of(const snrq_model *m)
{
    double weights = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++)
            weights += (double)f->module[i].rows * (double)f->module[i].columns;
    }
    return weights;
}

/* What a backward pass goes through: that of the run, or one of the command with its windows. */
static snrq_windows pass_windows(const snrq_options *o, const snrq_windows *w)
{
    return snrq_options_make_sensitivity(o) ? snrq_sensitivity_windows(w) : snrq_windows_of_text(w);
}

/* Memory of a run that is laid out so. */
static void lay_out(const snrq_options *o, const snrq_model *m, const snrq_rules *rules,
                    const snrq_windows *w, snrq_plan *out)
{
    const snrq_windows texts = pass_windows(o, w);
    const int group_ranks = out->ranks > out->groups ? out->ranks / out->groups : 1;
    double full, codes, stored, table;
    const double tables = table_bytes(rules, m, &table);
    block_bytes(rules, m, &full, &codes, &stored);
    out->rank_bytes = rank_bytes(group_ranks, o, rules, m, w);
    out->sensitivity_bytes = snrq_sensitivity_rank_bytes(m, &texts, out->ranks, o->pass_memory);
    if (snrq_options_make_sensitivity(o))
        out->rank_bytes = fmax(out->rank_bytes, process_bytes + out->sensitivity_bytes);
    out->shared_bytes = fmax((full + codes) * groups_of_node(out, group_ranks), table);
    if (rules->tune > 0) {
        out->rank_bytes =
            fmax(out->rank_bytes, process_bytes + snrq_tuning_rank_bytes(rules, m, w, out->ranks));
        out->shared_bytes = fmax(out->shared_bytes, snrq_tuning_node_bytes(rules, m) + full);
    }
    out->node_bytes = out->rank_bytes * out->ranks_per_node + out->shared_bytes;
    out->output_bytes = stored + tables;
    if (snrq_options_make_sensitivity(o)) out->output_bytes += snrq_sensitivity_file_bytes(m);
    out->block_bytes = full;
    out->bits_per_weight = 8.0 * stored / weights_of(m);
}

/* The cost of a run that is laid out so, with the backward pass that it makes. */
static snrq_status cost_of(const snrq_options *o, const snrq_model *m, const snrq_rules *rules,
                           const snrq_windows *w, const snrq_machine *machine,
                           const snrq_layout_of_run *layout, snrq_cost *out)
{
    const snrq_windows texts = pass_windows(o, w);
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
        if (o->layer_groups == 0) SNRQ_TRY(snrq_plan_best_groups(rules, m, w, ranks, &groups));
        if (o->layer_groups > 0) groups = (int)o->layer_groups;
        if (groups > ranks) continue;
        const snrq_layout_of_run layout = {ranks, p->nodes, cores / here, groups};
        snrq_plan memory = {
            .ranks = ranks, .nodes = p->nodes, .ranks_per_node = here, .groups = groups};
        snrq_cost cost;
        lay_out(o, m, rules, w, &memory);
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

/* Seconds and traffic, by a machine that was measured before, or by this one. */
static snrq_status find_cost(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                             const snrq_rules *rules, const snrq_windows *w, double limit,
                             snrq_plan *p)
{
    const int threads = omp_get_max_threads();
    const snrq_windows texts = pass_windows(o, w);
    if (o->machine != NULL)
        SNRQ_TRY(snrq_agree(c, snrq_machine_read(o->machine, &p->machine)));
    else
        SNRQ_TRY(snrq_machine_measure(c, snrq_rules_first(rules, m), snrq_model_max_columns(m),
                                      &p->machine));
    if (o->network != NULL) SNRQ_TRY(snrq_machine_network(o->network, &p->machine));
    p->cost_threads = threads;
    const snrq_layout_of_run layout = {p->ranks, p->nodes, threads, p->groups};
    const snrq_layout_of_run alone = {1, 1, threads, 1};
    SNRQ_TRY(cost_of(o, m, rules, w, &p->machine, &layout, &p->cost));
    SNRQ_TRY(cost_of(o, m, rules, w, &p->machine, &alone, &p->alone));
    p->sensitivity_seconds =
        snrq_sensitivity_seconds(&p->machine, m, &texts, &layout, o->pass_memory);
    p->assess_seconds = snrq_assess_seconds(&p->cost, rules, m, w);
    p->assess_bytes = p->rank_bytes + snrq_assess_rank_bytes(m, w, p->ranks);
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
    lay_out(o, m, rules, w, out);
    out->reads_ahead = limit == 0.0 || out->node_bytes + out->block_bytes <= limit;
    if (o->keep_activations)
        out->activation_bytes = groups->count * (double)snrq_activation_file_bytes(
                                                    w->count, w->length, m->config.hidden);
    if (o->dry_run) SNRQ_TRY(find_cost(c, o, m, rules, w, limit, out));
    return snrq_plan_best_groups(rules, m, w, out->ranks, &out->best_groups);
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

/* What would become of the output directory. */
static void print_output(const snrq_context *c, const snrq_options *o, const snrq_plan *p,
                         int64_t layers)
{
    const snrq_plan_output *out = &p->output;
    if (!out->known) return;
    if (out->complete)
        snrq_note(c, "OUT          %s is complete already: there would be nothing to do",
                  o->output);
    else if (!out->started)
        snrq_note(c, "OUT          %s would be made, or is empty: the run would start", o->output);
    else if (out->committed == 0)
        snrq_note(c, "OUT          %s holds a run without a block: it would go on at the first",
                  o->output);
    else
        snrq_note(c, "OUT          %s holds a run: it would resume after block %lld of %lld",
                  o->output, (long long)out->committed, (long long)layers);
}

static json_t *output_json(const snrq_plan_output *out)
{
    if (!out->known) return NULL;
    const char *state = out->complete ? "complete" : out->started ? "unfinished" : "new";
    return json_pack("{s:s, s:I}", "state", state, "committed", (json_int_t)out->committed);
}

snrq_status snrq_plan_exports(const snrq_model *m, const snrq_rule *r, json_t **rows,
                              int64_t *better)
{
    snrq_export_facts planned = snrq_export_facts_planned(m, r->bits, r->group_size, r->symmetric,
                                                          r->permuted_groups, r->scale_type);
    planned.format = r->format;
    *better = r->format != NULL ? 0 : snrq_export_better_group(m, &planned);
    return snrq_export_forecast(m, &planned, rows);
}

/* What a rule makes impossible, the mixture cannot be exported to. */
static snrq_status add_forecast(const snrq_model *m, const snrq_rule *r, json_t *rows)
{
    json_t *own = NULL, *row;
    int64_t better;
    size_t i;
    SNRQ_TRY(snrq_plan_exports(m, r, &own, &better));
    json_array_foreach(own, i, row) if (!json_is_true(json_object_get(row, "possible")))
        json_array_set(rows, i, row);
    json_decref(own);
    return SNRQ_OK;
}

/* Does a module before this one have the same rule? */
static bool is_repeated(const snrq_rules *rules, const snrq_model *m, int64_t layer, int module)
{
    const snrq_rule *r = snrq_rules_at(rules, layer, module);
    if (module > 0 && snrq_rule_equals(r, snrq_rules_at(rules, layer, module - 1))) return true;
    return layer > 0 && module < snrq_model_family(m, layer - 1)->modules &&
           snrq_rule_equals(r, snrq_rules_at(rules, layer - 1, module));
}

static snrq_status forecast_exports(const snrq_model *m, const snrq_rules *rules, json_t **rows,
                                    int64_t *better)
{
    SNRQ_TRY(snrq_plan_exports(m, snrq_rules_first(rules, m), rows, better));
    if (!snrq_rules_differ(rules, m)) return SNRQ_OK;
    *better = 0;
    for (int64_t layer = 0; layer < rules->layers; layer++)
        for (int i = 0; i < snrq_model_family(m, layer)->modules; i++)
            if (!snrq_rules_at(rules, layer, i)->keep && !is_repeated(rules, m, layer, i))
                SNRQ_TRY(add_forecast(m, snrq_rules_at(rules, layer, i), *rows));
    return SNRQ_OK;
}

/* Experts of a block that an engine fuses: vLLM all of their modules, llama.cpp those of a name. */
static snrq_status check_experts(const snrq_model *m, const snrq_rules *rules, int64_t engine,
                                 int64_t layer)
{
    const snrq_family *f = snrq_model_family(m, layer);
    const bool all = engine == SNRQ_ENGINE_VLLM || engine == SNRQ_ENGINE_VLLM_CPU;
    int first = -1;
    for (int u = 0; u < f->units; u++) {
        if (f->unit[u].expert < 0 || (!all && engine != SNRQ_ENGINE_LLAMA_CPP)) continue;
        if (first < 0 || (!all && f->unit[u].step != f->unit[first].step)) first = u;
        const int a = f->unit[first].first, b = f->unit[u].first;
        if (snrq_rule_equals(snrq_rules_at(rules, layer, a), snrq_rules_at(rules, layer, b)))
            continue;
        return snrq_fail(SNRQ_USAGE,
                         "--for %s: block %lld: it fuses %s and %s, which have different settings",
                         snrq_engine_name((snrq_engine)engine), (long long)layer, f->module[a].name,
                         f->module[b].name);
    }
    return SNRQ_OK;
}

snrq_status snrq_plan_check_engine(const snrq_model *m, const snrq_rules *rules, int64_t engine)
{
    for (int64_t layer = 0; engine >= 0 && layer < rules->layers; layer++) {
        SNRQ_TRY(check_experts(m, rules, engine, layer));
        for (int i = 0; i < snrq_model_family(m, layer)->modules; i++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, i);
            if (r->keep || is_repeated(rules, m, layer, i)) continue;
            const snrq_export_facts planned = snrq_export_facts_planned(
                m, r->bits, r->group_size, r->symmetric, r->permuted_groups, r->scale_type);
            SNRQ_TRY(snrq_export_check_planned(m, &planned, engine));
        }
    }
    return SNRQ_OK;
}

static void print_exports(const snrq_context *c, const json_t *rows, int64_t better)
{
    size_t i;
    const json_t *row;
    json_array_foreach((json_t *)rows, i, row)
    {
        const char *why = json_string_value(json_object_get(row, "why"));
        const char *answer = json_is_true(json_object_get(row, "possible")) ? "yes" : "no: ";
        snrq_note(c, "export to    %-18s  %s%s%s",
                  json_string_value(json_object_get(row, "format")), answer,
                  why[0] != '\0' && answer[0] == 'y' ? ", " : "", why);
    }
    if (better > 0)
        snrq_note(c, "export to    more formats are possible with --group-size %lld",
                  (long long)better);
}

/* Share of P times as fast that P ranks are. */
static double efficiency_of(const snrq_plan *p)
{
    return p->alone.total / (p->cost.total * p->ranks);
}

static void print_cost(const snrq_context *c, const snrq_options *o, const snrq_plan *p,
                       const snrq_windows *w)
{
    const snrq_layout_of_run layout = {p->ranks, p->nodes, p->cost_threads, p->groups};
    char time[32], best[32], before[32], limit[160];
    snrq_clock_text(p->seconds, time, sizeof time);
    snrq_note(c, "time         about %s on %d rank%s, by the speed of %s", time, p->ranks,
              p->ranks == 1 ? "" : "s", o->machine != NULL ? o->machine : "this machine");
    if (!o->plan) return;
    snrq_note(c, "\n%-10s %10s %7s %14s %10s", "phase", "seconds", "share", "MB per rank",
              "messages");
    for (int k = 0; k < SNRQ_PHASES; k++)
        snrq_note(c, "%-10s %10.1f %5.1f %% %14.1f %10.0f", snrq_phase_name(k), p->cost.seconds[k],
                  100.0 * p->cost.seconds[k] / p->cost.total, 1e-6 * p->cost.bytes[k],
                  p->cost.messages[k]);
    snrq_cost_limit(&p->cost, w, &layout, limit, sizeof limit);
    snrq_note(c, "\nefficiency   %.0f %% of %d times one rank's speed", 100.0 * efficiency_of(p),
              p->ranks);
    snrq_note(c, "limit        %s", limit);
    snrq_clock_text(p->sensitivity_seconds, before, sizeof before);
    snrq_note(c, "sensitivity  about %s, %.0f MB per rank, for %s of these windows", before,
              p->sensitivity_bytes / 1e6,
              snrq_options_make_sensitivity(o) ? "the backward pass" : "`snrq sensitivity`");
    snrq_clock_text(p->assess_seconds, before, sizeof before);
    snrq_note(c, "assess       about %s, %.0f MB per rank, for `snrq assess --no-uniform`", before,
              p->assess_bytes / 1e6);
    snrq_note(c, "network      %.1f us, %.2f GB/s%s", 1e6 * p->machine.latency,
              1e-9 * p->machine.bandwidth,
              p->machine.network_measured ? ""
                                          : ", not measured between nodes (--network, --machine)");
    if (p->best.ranks == 0) {
        snrq_note(c, "best         no layout of %d node%s fits into the memory of this one",
                  p->nodes, p->nodes == 1 ? "" : "s");
        return;
    }
    snrq_clock_text(p->best_seconds, best, sizeof best);
    snrq_note(c,
              "best         %d rank%s of %d thread%s per node, %d layer group%s: %s, %.0f MB per "
              "node",
              p->best.ranks / p->nodes, p->best.ranks == p->nodes ? "" : "s", p->best.threads,
              p->best.threads == 1 ? "" : "s", p->best.groups, p->best.groups == 1 ? "" : "s", best,
              p->best_node_bytes / 1e6);
}

static json_t *cost_json(const snrq_plan *p, const snrq_windows *w)
{
    const snrq_layout_of_run layout = {p->ranks, p->nodes, p->cost_threads, p->groups};
    char limit[160];
    json_t *phases = json_object();
    if (!p->costed) return NULL;
    for (int k = 0; k < SNRQ_PHASES; k++)
        json_object_set_new(phases, snrq_phase_name(k),
                            json_pack("{s:f, s:f, s:f}", "seconds", p->cost.seconds[k],
                                      "bytes_per_rank", p->cost.bytes[k], "messages",
                                      p->cost.messages[k]));
    snrq_cost_limit(&p->cost, w, &layout, limit, sizeof limit);
    json_t *best =
        p->best.ranks > 0
            ? json_pack("{s:i, s:i, s:i, s:f, s:f}", "ranks_per_node", p->best.ranks / p->nodes,
                        "threads", p->best.threads, "layer_groups", p->best.groups, "seconds",
                        p->best_seconds, "node_bytes", p->best_node_bytes)
            : NULL;
    return json_pack("{s:o, s:f, s:s, s:{s:f, s:f}, s:{s:f, s:f}, s:o*, s:o}", "phases", phases,
                     "efficiency", efficiency_of(p), "limit", limit, "sensitivity", "seconds",
                     p->sensitivity_seconds, "rank_bytes", p->sensitivity_bytes, "assess",
                     "seconds", p->assess_seconds, "rank_bytes", p->assess_bytes, "best", best,
                     "machine", snrq_machine_json(&p->machine));
}

static snrq_status print_json(const snrq_plan *p, const snrq_windows *w, json_t *exports,
                              int64_t better)
{
    json_t *object = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o*, s:o*, s:O, s:I}",
        "ranks", p->ranks, "nodes", p->nodes, "ranks_per_node", p->ranks_per_node, "layer_groups",
        p->groups, "best_layer_groups", p->best_groups, "rank_bytes", p->rank_bytes, "shared_bytes",
        p->shared_bytes, "node_bytes", p->node_bytes, "output_bytes", p->output_bytes,
        "activation_bytes", p->activation_bytes, "seconds", p->seconds, "bits_per_weight",
        p->bits_per_weight, "cost", cost_json(p, w), "output", output_json(&p->output), "exports",
        exports, "better_group_size", (json_int_t)better);
    return snrq_json_print(object);
}

/* "[q,k,v] [o] [gate,up] [down]" */
static void step_names(const snrq_family *f, char *out, size_t size)
{
    out[0] = '\0';
    for (int s = 0; s < f->steps; s++) {
        size_t length = strlen(out);
        snprintf(out + length, size - length, "%s[%s]", s > 0 ? " " : "", f->step[s].name);
    }
}

/* columns: the most that a module has. */
static void print_rule(const snrq_context *c, const snrq_rule *r, int64_t columns)
{
    char groups[64] = "per channel", strength[48] = "", alpha[32], beam[32] = "", passes[64] = "";
    snrq_rule_alpha_text(r, alpha, sizeof alpha);
    if (r->method == SNRQ_KSNRQ) snprintf(beam, sizeof beam, ", beam %d", r->beam);
    if (snrq_method_has_strength(r->method))
        snprintf(strength, sizeof strength, ", alpha %s", alpha);
    if (r->method != SNRQ_RTN)
        snprintf(passes, sizeof passes, ", refine %d, regrid %d%s", r->refine, r->regrid,
                 snrq_rule_couples_rows(r) ? ", row feedback" : "");
    if (snrq_rule_groups(r, columns) > 1)
        snprintf(groups, sizeof groups, "groups of %lld %s columns", (long long)r->group_size,
                 r->permuted_groups ? "permuted" : "original");
    const char *kind = r->format != NULL ? r->format->name
                       : r->symmetric    ? "symmetric"
                                         : "asymmetric";
    snrq_note(c, "method       %s%s, %d bits %s, %s%s, grid %s%s", snrq_method_name(r->method),
              beam, r->bits, kind, groups, strength, snrq_quant_grid_name(r->grid), passes);
}

/* Modules that get another format than --format says. */
static void print_narrow(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                         const snrq_rules *rules)
{
    const snrq_weight_format *asked =
        o->weight_format >= 0 ? &snrq_weight_formats[o->weight_format] : NULL;
    int64_t count = 0, all = 0;
    for (int64_t layer = 0; layer < rules->layers && asked != NULL; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++, all++)
            count += snrq_rules_at(rules, layer, i)->format ==
                         snrq_weight_format_for(asked, f->module[i].columns) &&
                     f->module[i].columns % asked->super_block != 0;
    }
    if (count > 0)
        snrq_note(
            c,
            "format       %lld of %lld modules become %s: their inputs are no multiple of the "
            "%lld that a block of %s has",
            (long long)count, (long long)all, asked->narrow, (long long)asked->super_block,
            asked->name);
}

snrq_status snrq_plan_print(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                            const snrq_rules *rules, const snrq_windows *w, const snrq_plan *p)
{
    const snrq_config *k = &m->config;
    char steps[128];
    const snrq_family *last = snrq_model_family(m, k->layers - 1);
    step_names(last, steps, sizeof steps);
    snrq_note(c,
              "model        %s: %s, %lld blocks of %lld modules %s, hidden %lld, "
              "intermediate %lld",
              m->path, k->architecture, (long long)k->layers, (long long)last->modules, steps,
              (long long)k->hidden, (long long)k->intermediate);
    char distinct[64] = "", first[64] = "", held_out[64] = "";
    int64_t fitted = w->count - w->held_out - w->first_tokens;
    if (w->distinct < fitted * w->length)
        snprintf(distinct, sizeof distinct, ", which cover %lld of the text",
                 (long long)w->distinct);
    if (w->held_out > 0)
        snprintf(held_out, sizeof held_out, "; %lld more, held out, only tell of errors",
                 (long long)w->held_out);
    if (w->first_tokens > 0)
        snprintf(first, sizeof first, "; %lld tokens more, each the first of a text",
                 (long long)(w->first_tokens * w->length));
    snrq_note(c, "calibration  %lld windows of %lld tokens%s%s%s", (long long)fitted,
              (long long)w->length, distinct, first, held_out);
    print_rule(c, snrq_rules_first(rules, m), snrq_model_max_columns(m));
    print_narrow(c, o, m, rules);
    if (rules->recipe != NULL)
        snrq_note(c,
                  "recipe       %s: the first module's rule is above; %.3f bits per weight in "
                  "all, scales and zeros counted",
                  o->recipe != NULL       ? o->recipe
                  : o->assessment != NULL ? o->assessment
                                          : "of the preset",
                  p->bits_per_weight);
    if (rules->budget.bits_per_weight > 0.0)
        snrq_note(c,
                  "budget       %.4f bits per weight; predicted divergence from the model: KL %.4g "
                  "nats per token",
                  rules->budget.bits_per_weight, rules->budget.kl);
    if (p->groups > 1 || p->best_groups > 1)
        snrq_note(c, "groups       %d group%s of ranks, each with blocks of its own%s", p->groups,
                  p->groups == 1 ? "" : "s",
                  p->best_groups > p->groups
                      ? "; more would be faster, and cost some quality (--layer-groups auto)"
                      : "");
    snrq_note(c,
              "memory       about %.0f MB per rank, and %.0f MB per node for weights: %.0f MB per "
              "node of %d rank%s",
              p->rank_bytes / 1e6, p->shared_bytes / 1e6, p->node_bytes / 1e6, p->ranks_per_node,
              p->ranks_per_node == 1 ? "" : "s");
    snrq_note(c, "output       %.1f MB in %lld files", p->output_bytes / 1e6,
              (long long)k->layers + (snrq_options_make_sensitivity(o) ? 2 : 1));
    if (p->activation_bytes > 0)
        snrq_note(c,
                  "activations  %.1f MB are kept until the run is complete, twice that while a "
                  "block's are written",
                  p->activation_bytes / 1e6);
    if (p->costed) print_cost(c, o, p, w);
    print_output(c, o, p, k->layers);
    json_t *exports = NULL;
    int64_t better = 0;
    snrq_status status = forecast_exports(m, rules, &exports, &better);
    if (status == SNRQ_OK) print_exports(c, exports, better);
    if (status == SNRQ_OK && o->json && c->rank == 0) status = print_json(p, w, exports, better);
    json_decref(exports);
    return snrq_agree(c, status);
}
