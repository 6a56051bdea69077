/* The cost model; see cost.h. */
#include "pipeline/cost.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pipeline/plan.h"
#include "pipeline/rounding/rounding.h"
#include "pipeline/traffic.h"
#include "pipeline/tuning_cost.h"
#include "pipeline/unit.h"
#include "pipeline/work.h"

/* A machine whose files were not measured. */
static const double assumed_file_rate = 500e6;
/* What an agreement sends. */
static const double agreement_bytes = 8.0;
/* Tokens of a sequence that are one fp32 sum (mpi/algebra/gram.c). */
static const double piece_tokens = 2048.0;

/* Times of a search of single rows that one of coupled rows takes (docs/method.md). */
static const double coupled_search = 1.4;

/* What one group of ranks works with. */
typedef struct group {
    const snrq_machine *machine;
    const snrq_rules *rules;
    const snrq_model *model;
    const snrq_windows *windows;
    int ranks, nodes;
    double scale;             /* seconds of a rate, for the threads that a rank has */
    double tokens, sequences; /* of the slowest rank */
} group;

static double rows_of_rank(int64_t rows, int ranks)
{
    snrq_range mine = snrq_rounding_share(rows, ranks, 0);
    return (double)(mine.end - mine.begin);
}

static void take(const group *g, int phase, double bytes, double messages, double seconds,
                 snrq_cost *c)
{
    c->bytes[phase] += bytes;
    c->messages[phase] += messages;
    c->seconds[phase] += seconds + messages * g->machine->latency;
}

/* What is sent costs its bytes over the bandwidth, though a part of it is on its way while ranks
 * compute. A broadcast takes as long as its bytes need to reach a rank, whoever sends them. */
static void send(const group *g, int phase, const snrq_traffic *t, snrq_cost *c)
{
    const double p = g->ranks, nodes = g->nodes, b = g->machine->bandwidth;
    const double steps = ceil(log2(p)), share = (p - 1.0) / p;
    const double hops = ceil(log2(nodes)), others = (nodes - 1.0) / nodes;
    if (g->ranks == 1) return;
    take(g, phase, 2.0 * share * t->summed, 2.0 * steps * t->sums, 2.0 * share * t->summed / b, c);
    take(g, phase, share * agreement_bytes * t->agreements, steps * t->agreements, 0.0, c);
    take(g, phase, share * t->sent, steps * t->broadcasts, t->sent / b, c);
    /* By one rank of a node: the mean is told. */
    take(g, phase, others * t->exchanged * nodes / p, hops * t->exchanges,
         others * t->exchanged / b, c);
}

static void compute(const group *g, int phase, snrq_rate rate, double amount, snrq_cost *c)
{
    c->seconds[phase] += g->scale * g->machine->seconds[rate] * amount;
}

static void gram_of_unit(const group *g, const snrq_rule *r, const snrq_unit_shape *unit,
                         double share, bool makes_up, snrq_cost *c)
{
    const double n = (double)unit->columns, m = (double)unit->rows;
    const double passes = snrq_rule_needs_e(r) ? 2.0 : snrq_rule_needs_d(r) ? 1.5 : 0.5;
    const double length = (double)g->windows->length * share;
    const double pieces = g->sequences * ceil(length / piece_tokens);
    double numbers = passes * n * n;
    if (makes_up) numbers += m * n;
    compute(g, SNRQ_PHASE_GRAM, SNRQ_RATE_GRAM_TOKENS, g->tokens * share * numbers, c);
    compute(g, SNRQ_PHASE_GRAM, SNRQ_RATE_GRAM_PIECES, pieces * numbers, c);
}

/* Fits of scales: of a unit's modules, each by its format. */
static void fit_unit(const group *g, const snrq_family *f, int64_t layer,
                     const snrq_unit_shape *unit, snrq_cost *c)
{
    const double mine = rows_of_rank(unit->rows, g->ranks), n = (double)unit->columns;
    double rate = 0.0;
    for (int m = unit->first; m < unit->end; m++) {
        const snrq_weight_format *format = snrq_rules_at(g->rules, layer, m)->format;
        const double fits = format != NULL ? g->machine->fits[format - snrq_weight_formats] : 0.0;
        rate += (double)f->module[m].rows / (double)unit->rows *
                (fits > 0.0 ? fits : g->machine->seconds[SNRQ_RATE_GRID]);
    }
    c->seconds[SNRQ_PHASE_GRID] += g->scale * rate * mine * n;
}

static void round_unit(const group *g, const snrq_rule *r, const snrq_unit_shape *unit,
                       snrq_cost *c)
{
    const double searches = snrq_rule_couples_rows(r) ? coupled_search : 1.0;
    const double n = (double)unit->columns, mine = rows_of_rank(unit->rows, g->ranks);
    const double square = n * n;
    compute(g, SNRQ_PHASE_FACTOR, SNRQ_RATE_FACTOR_CUBE, n * square / g->ranks, c);
    compute(g, SNRQ_PHASE_FACTOR, SNRQ_RATE_FACTOR_ROWS, mine * square, c);
    compute(g, SNRQ_PHASE_SEARCH, SNRQ_RATE_SEARCH_ROWS, searches * mine * square, c);
    compute(g, SNRQ_PHASE_SEARCH, SNRQ_RATE_SEARCH_CELLS, searches * mine * n, c);
}

/* Products of both streams, or of the full-precision one alone. */
static void forward_unit(const group *g, const snrq_unit_shape *unit, bool both, double tokens,
                         snrq_cost *c)
{
    double products = tokens * (double)unit->rows * (double)unit->columns;
    compute(g, SNRQ_PHASE_FORWARD, SNRQ_RATE_FORWARD_DENSE, products, c);
    if (both) compute(g, SNRQ_PHASE_FORWARD, SNRQ_RATE_FORWARD_CODES, products, c);
}

static void attend(const group *g, bool both, double tokens, snrq_cost *c)
{
    const snrq_config *k = &g->model->config;
    double seen = 0.5 * (double)g->windows->length, streams = both ? 2.0 : 1.0;
    compute(g, SNRQ_PHASE_FORWARD, SNRQ_RATE_ATTENTION,
            streams * tokens * seen * (double)k->heads * (double)(k->head_dim + k->value_dim), c);
}

static void send_all(const group *g, const snrq_traffic *traffic, snrq_cost *c)
{
    for (int phase = 0; phase < SNRQ_PHASES; phase++) send(g, phase, &traffic[phase], c);
}

/* cost += a share of the part. */
static void add_share(snrq_cost *sum, const snrq_cost *part, double share)
{
    for (int p = 0; p < SNRQ_PHASES; p++) {
        sum->seconds[p] += share * part->seconds[p];
        sum->bytes[p] += share * part->bytes[p];
        sum->messages[p] += share * part->messages[p];
    }
}

/* A rank works on one of as many units as there are teams. */
static void cost_of_unit(const group *g, const snrq_family *f, int64_t layer, int u, snrq_cost *c)
{
    const snrq_unit_shape *unit = &f->unit[u];
    const snrq_rule *r = snrq_rules_at(g->rules, layer, unit->first);
    const bool makes_up = snrq_unit_makes_up(r, f, u);
    const int teams = snrq_unit_teams(f, u, g->ranks);
    const double all_tokens = (double)(g->windows->count * g->windows->length);
    const double share = snrq_unit_share(f, u, g->rules->expert_tokens, all_tokens);
    snrq_traffic all[SNRQ_PHASES] = {{0}}, within[SNRQ_PHASES] = {{0}};
    snrq_cost of_team = {.total = 0.0};
    group team = *g;
    team.ranks = g->ranks / teams;
    team.nodes = g->nodes > teams ? g->nodes / teams : 1;
    forward_unit(g, unit, true, g->tokens * share, c);
    if (r->keep) return;
    gram_of_unit(g, r, unit, share, makes_up, c);
    snrq_traffic_of_unit(r, unit, makes_up ? unit->rows : 0, g->ranks, teams, all, within);
    send_all(g, all, c);
    round_unit(&team, r, unit, &of_team);
    fit_unit(&team, f, layer, unit, &of_team);
    send_all(&team, within, &of_team);
    add_share(c, &of_team, 1.0 / teams);
}

static void cost_of_block(const group *g, int64_t layer, snrq_cost *c)
{
    const snrq_family *f = snrq_model_family(g->model, layer);
    snrq_traffic traffic[SNRQ_PHASES] = {{0}};
    for (int u = 0; u < f->units; u++) cost_of_unit(g, f, layer, u, c);
    attend(g, true, g->tokens, c);
    snrq_traffic_of_block(traffic);
    send_all(g, traffic, c);
}

static void add(snrq_cost *sum, const snrq_cost *part)
{
    add_share(sum, part, 1.0);
    sum->total = 0.0;
    for (int p = 0; p < SNRQ_PHASES; p++) sum->total += sum->seconds[p];
}

/* Weights of blocks [begin, end), and what is stored of them. */
static void files_of_blocks(const group *g, snrq_range blocks, int nodes, snrq_cost *c)
{
    const double read = g->machine->read > 0.0 ? g->machine->read : assumed_file_rate;
    const double write = g->machine->write > 0.0 ? g->machine->write : assumed_file_rate;
    const double size = (double)snrq_dtype_size(g->model->config.dtype);
    for (int64_t layer = blocks.begin; layer < blocks.end; layer++) {
        const snrq_family *f = snrq_model_family(g->model, layer);
        double weights = 0.0, stored = 0.0;
        for (int i = 0; i < f->modules; i++) {
            const snrq_rule *r = snrq_rules_at(g->rules, layer, i);
            double count = (double)f->module[i].rows * (double)f->module[i].columns;
            weights += count;
            stored += count * (r->keep ? size : (double)r->bits / 8.0);
        }
        /* Read ahead while the block before is worked on. */
        c->seconds[SNRQ_PHASE_READ] += (layer == blocks.begin ? 1.0 : 0.1) * weights * size / read;
        c->seconds[SNRQ_PHASE_WRITE] += 2.0 * stored / write / nodes + 0.05;
    }
}

static double share_of(double whole, int ranks, int64_t sequences)
{
    return whole * ceil((double)sequences / ranks) / (double)sequences;
}

/* Blocks [begin, end) of a layer group. */
static void cost_of_group(const group *g, snrq_range blocks, int nodes, snrq_cost *out)
{
    *out = (snrq_cost){.total = 0.0};
    for (int64_t layer = blocks.begin; layer < blocks.end; layer++) cost_of_block(g, layer, out);
    snrq_cost files = {.total = 0.0};
    files_of_blocks(g, blocks, nodes, &files);
    add(out, &files);
}

/* The full-precision stream on its way to the last group, by all ranks. */
static void pass_stream(const group *g, int64_t blocks, int groups, double tokens, snrq_cost *c)
{
    for (int64_t layer = 0; layer < blocks; layer++) {
        const snrq_family *f = snrq_model_family(g->model, layer);
        for (int u = 0; u < f->units; u++)
            forward_unit(g, &f->unit[u], false, tokens * f->unit[u].share, c);
        attend(g, false, tokens, c);
    }
    /* Each group gets all of it. */
    double bytes = groups * tokens * (double)g->model->config.hidden * sizeof(float);
    if (groups > 1) take(g, SNRQ_PHASE_FORWARD, bytes, groups, bytes / g->machine->bandwidth, c);
}

/* Tuning, by all ranks; the sequences of a step may not be shared out evenly. */
static void tune(const group *all, snrq_cost *c)
{
    const int64_t epochs = all->rules->tune;
    const double shares = fmin((double)all->ranks, SNRQ_TUNING_BATCH);
    const double part = ceil(SNRQ_TUNING_BATCH / shares) / SNRQ_TUNING_BATCH;
    snrq_tuning_work work;
    if (epochs == 0) return;
    snrq_tuning_work_make(all->rules, all->model, all->windows, &work);
    const snrq_traffic sums = {.summed = (double)epochs * work.summed,
                               .sums = (double)epochs * work.steps *
                                       (double)(all->model->config.layers + 1),
                               .agreements = (double)epochs * work.steps * 2.0};
    compute(all, SNRQ_PHASE_TUNE, SNRQ_RATE_FORWARD_CODES, part * (double)epochs * work.products,
            c);
    compute(all, SNRQ_PHASE_TUNE, SNRQ_RATE_FORWARD_DENSE, work.full / all->ranks, c);
    compute(all, SNRQ_PHASE_TUNE, SNRQ_RATE_ATTENTION, part * (double)epochs * work.attention, c);
    send(all, SNRQ_PHASE_TUNE, &sums, c);
}

snrq_status snrq_cost_make(const snrq_machine *machine, const snrq_rules *rules,
                           const snrq_model *model, const snrq_windows *w,
                           const snrq_layout_of_run *l, snrq_cost *out)
{
    const double all = (double)w->count * (double)w->length;
    const int ranks = l->ranks > l->groups ? l->ranks / l->groups : 1;
    const int nodes = l->nodes > l->groups ? l->nodes / l->groups : 1;
    group g = {machine,
               rules,
               model,
               w,
               ranks,
               nodes,
               (double)machine->threads / l->threads,
               share_of(all, ranks, w->count),
               ceil((double)w->count / ranks)};
    snrq_layer_groups groups;
    *out = (snrq_cost){.total = 0.0};
    SNRQ_TRY(snrq_work_groups(rules, model, w, l->groups, &groups));
    for (int k = 0; k < groups.count; k++) {
        snrq_cost one;
        cost_of_group(&g, (snrq_range){groups.first[k], groups.first[k + 1]}, nodes, &one);
        if (one.total > out->total) *out = one;
    }
    snrq_cost passed = {.total = 0.0};
    pass_stream(&g, groups.first[groups.count - 1], groups.count, share_of(all, l->ranks, w->count),
                &passed);
    g.ranks = l->ranks;
    g.nodes = l->nodes;
    tune(&g, &passed);
    add(out, &passed);
    snrq_layer_groups_free(&groups);
    return SNRQ_OK;
}

void snrq_cost_limit(const snrq_cost *cost, const snrq_windows *windows,
                     const snrq_layout_of_run *l, char *out, size_t size)
{
    double sent = 0.0;
    int most = 0;
    for (int p = 0; p < SNRQ_PHASES; p++) {
        sent += cost->bytes[p];
        if (cost->seconds[p] > cost->seconds[most]) most = p;
    }
    const char *why = "";
    if (l->ranks / l->groups > windows->count)
        why = "; a group has more ranks than sequences: some have no forward work";
    else if (sent == 0.0)
        why = "; more ranks share it";
    snprintf(out, size, "%s has %.0f %% of the time%s", snrq_phase_name(most),
             100.0 * cost->seconds[most] / cost->total, why);
}
