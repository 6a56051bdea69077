/* Multiply-adds of a run; see work.h. */
#include "pipeline/work.h"

#include <math.h>
#include <stdlib.h>

#include "pipeline/rounding/rounding.h"
#include "pipeline/unit.h"

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
    double ranges = r->either_sign ? 2000.0 : 1000.0;
    double fit = (r->grid == SNRQ_QUANT_GRID_MINMAX ? 2.0 : ranges) * m * n;
    /* A round searches the rows that the one before has improved, about half of them. */
    double rounds = r->regrid == 0 ? 1.0 : 3.0 - pow(0.5, (double)r->regrid - 1.0);
    /* Where rows are coupled, all of them; and E H is formed each time, and brought to targets. */
    double coupled = 0.0;
    if (snrq_rule_couples_rows(r)) {
        rounds = 1.0 + fmax(1.0, (double)r->regrid);
        coupled = rounds * (0.5 * m * n * n + 2.0 * (double)SNRQ_TILE_ROWS * m * n);
    }
    double refine = r->refine > 0 || r->regrid > 0 ? 1.0 : 0.0, regrid = r->regrid > 0 ? 0.6 : 0.0;
    double residual = snrq_unit_makes_up(r, f, u) ? tokens * m * n : 0.0;
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

double snrq_work_of_step(const snrq_rules *rules, const snrq_family *f, int64_t layer, int step,
                         const snrq_windows *w)
{
    double tokens = (double)w->count * (double)w->length, work = 0.0;
    for (int u = f->step[step].first; u < f->step[step].end; u++)
        work += sum_of(work_of_unit(rules, f, layer, u, tokens));
    return work;
}

double snrq_work_of_block(const snrq_rules *rules, const snrq_family *f, int64_t layer,
                          const snrq_windows *w)
{
    double work = 0.0;
    for (int s = 0; s < f->steps; s++) work += snrq_work_of_step(rules, f, layer, s, w);
    return work;
}

snrq_status snrq_work_groups(const snrq_rules *rules, const snrq_model *m, const snrq_windows *w,
                             int groups, snrq_layer_groups *out)
{
    double *work = NULL;
    const int64_t layers = m->config.layers;
    SNRQ_TRY(snrq_allocate((size_t)layers, sizeof *work, "work of blocks", &work));
    for (int64_t layer = 0; layer < layers; layer++)
        work[layer] = snrq_work_of_block(rules, snrq_model_family(m, layer), layer, w);
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

snrq_status snrq_work_best_groups(const snrq_rules *rules, const snrq_model *m,
                                  const snrq_windows *w, int ranks, int *best)
{
    double least = 0.0;
    *best = 1;
    for (int count = 1; count <= ranks && count <= m->config.layers; count++) {
        snrq_layer_groups g;
        SNRQ_TRY(snrq_work_groups(rules, m, w, count, &g));
        double work = slowest_rank(rules, m, w, ranks, &g);
        snrq_layer_groups_free(&g);
        if (count > 1 && work > (1.0 - least_gain) * least) continue;
        least = work;
        *best = count;
    }
    return SNRQ_OK;
}
