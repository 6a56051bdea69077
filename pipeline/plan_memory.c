/* Memory of a planned run; see plan_memory.h. */
#include "pipeline/plan_memory.h"

#include <math.h>

#include "mpi/algebra/blas.h"
#include "mpi/algebra/gram.h"
#include "pipeline/model/expert_stream.h"
#include "pipeline/rounding/rounding.h"
#include "pipeline/sensitivity_cost.h"
#include "pipeline/tuning_cost.h"
#include "pipeline/unit.h"
#include "pipeline/weight_sizes.h"

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
    if (snrq_unit_makes_up(rule, f, u)) {
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

snrq_windows snrq_plan_pass_windows(const snrq_options *o, const snrq_windows *w)
{
    return snrq_options_make_sensitivity(o) ? snrq_sensitivity_windows(o, w)
                                            : snrq_windows_of_text(w);
}

void snrq_plan_lay_out(const snrq_options *o, const snrq_model *m, const snrq_rules *rules,
                       const snrq_windows *w, snrq_plan *out)
{
    const snrq_windows texts = snrq_plan_pass_windows(o, w);
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
    if (snrq_options_make_sensitivity(o))
        out->output_bytes += snrq_sensitivity_file_bytes(m, texts.count * texts.length);
    out->block_bytes = full;
    out->bits_per_weight = 8.0 * stored / snrq_module_weights(m);
}
