/* The method, block by block and step by step (docs/method.md; arXiv 2602.05902):
 *
 *     where it is asked for, one backward pass tells what outputs are worth (own_sensitivity.h)
 *     for each block:
 *         for each step [q,k,v], [o], [gate,up], [down]:
 *             before [gate,up] of a mixture: route, which tells what tokens each expert reads
 *             for each unit of the step, the modules that read one input (an expert's are a unit;
 *             teams of ranks work on experts at the same time, each on one):
 *                 gather H, D (E) of the input in both streams, C where the output is added to h;
 *                     where gradients are known, tokens count by them (token_weights.h)
 *                 factorize H, shift the targets, choose a
 *                 fit the quantization grids
 *                 search: round column by column, keep the K best roundings of each row
 *             take both streams through the step: X by rounded, Xf by original weights
 *         commit the block
 *
 * A run that finds committed blocks reads the activations that were kept after one of them, replays
 * the blocks that follow - the same arithmetic, hence the same activations - and goes on. Between
 * two steps a run can be stopped: what it did of that block is dropped.
 *
 * The ranks that share the rows and the sequences of a block are a group. Where there are several
 * (layer_groups.h), all ranks take the full-precision stream to the first block of each first; then
 * each group does all of the above with its blocks. What exists once for all groups is the job's
 * (job.h).
 */
#include "pipeline/quantize.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/job.h"
#include "pipeline/keeper.h"
#include "pipeline/model/expert_stream.h"
#include "pipeline/model/kept.h"
#include "pipeline/model/read_ahead.h"
#include "pipeline/own_sensitivity.h"
#include "pipeline/pass_stream.h"
#include "pipeline/tables.h"
#include "pipeline/token_weights.h"
#include "pipeline/tune.h"
#include "pipeline/unit.h"
#include "pipeline/work.h"

typedef struct group {
    snrq_job *job;               /* borrowed */
    const snrq_context *context; /* its ranks; borrowed */
    const snrq_model *model;     /* borrowed */
    snrq_range blocks;           /* that it quantizes, in order */
    int64_t next;                /* of these: the first that its streams have not passed */
    snrq_ropes ropes;
    snrq_stream quantized, full;
    snrq_keeper keeper;
    double *alphas;         /* [local sequences] of alpha sampled, or NULL */
    snrq_read_ahead *ahead; /* the next block, on its way from the disk, or NULL */
    snrq_teams teams;       /* of its ranks, for experts */
} group;

/* A block on its way. */
typedef struct block_work {
    int64_t layer;
    const snrq_family *family; /* of its parts; borrowed */
    snrq_loaded_block full, quantized;
    snrq_module_record *records;  /* [modules] */
    snrq_unit_measures *measures; /* [units] */
    double *alpha_before;         /* [modules] of alpha chained */
    snrq_coverage coverage;       /* of its experts */
} block_work;

/* A unit on its way. What is rounded is only on the ranks of its team. */
typedef struct unit_work {
    int unit;
    int part; /* of the unit, that is rounded now */
    snrq_team team;
    const snrq_rule *rule; /* of the part */
    snrq_statistics statistics;
    snrq_part_stack rows;
    snrq_rounding rounding;
} unit_work;

static void enter(group *g, int phase)
{
    snrq_timers_enter(&g->job->timers, phase);
}

/* Where the group can stop. */
static snrq_status safe_point(group *g)
{
    snrq_job_attend(g->job);
    return snrq_stop_check(g->context, &g->job->stop);
}

/* Adds what is measured between the two calls to a unit's measures. */
static void begin_measures(group *g, snrq_unit_measures *measures)
{
    enter(g, SNRQ_PHASE_GRAM);
    for (int p = 0; p < SNRQ_PHASES; p++) measures->seconds[p] -= g->job->timers.seconds[p];
}

static void end_measures(group *g, snrq_unit_measures *measures)
{
    enter(g, SNRQ_PHASE_FORWARD);
    for (int p = 0; p < SNRQ_PHASES; p++) measures->seconds[p] += g->job->timers.seconds[p];
    measures->peak_memory = snrq_peak_memory();
}

/* This rank's sequences but for those that are held out: the first ones. */
static snrq_range fitted_range(const group *g)
{
    int64_t fitted = g->job->windows.count - g->job->windows.held_out;
    snrq_range mine = g->quantized.range;
    if (mine.end > fitted) mine.end = fitted;
    if (mine.begin > fitted) mine.begin = fitted;
    return mine;
}

/* H, D and E of what a unit reads, in decision order, and its mismatch. roots [tokens of this rank]
 * or NULL: of the tokens' weights. */
static snrq_status gather_from(group *g, block_work *b, unit_work *w, const float *roots,
                               snrq_unit_tokens *read)
{
    int64_t fitted = g->job->windows.count - g->job->windows.held_out;
    snrq_range mine = fitted_range(g);
    snrq_activations h = snrq_stream_residual(&g->quantized);
    snrq_activations hf = snrq_stream_residual(&g->full);
    bool writes = snrq_unit_writes_residual(b->family, w->unit);
    read->x.sequences = read->xf.sequences = h.sequences = hf.sequences = mine.end - mine.begin;
    read->x.factor = read->xf.factor = h.factor = hf.factor = roots;
    const snrq_unit_input input = {&read->x,
                                   &read->xf,
                                   fitted,
                                   g->alphas,
                                   g->job->windows.distinct,
                                   writes ? &h : NULL,
                                   writes ? &hf : NULL,
                                   g->model->config.residual_scale};
    const snrq_process_shape shape = {g->job->options->factor_rows,
                                      g->job->options->factor_columns};
    SNRQ_TRY(snrq_statistics_gather(g->context, &w->team, w->rule, shape, &input, &w->statistics));
    return snrq_mismatch_measure(g->context, &read->x, &read->xf, mine, fitted,
                                 &b->measures[w->unit].mismatch);
}

static snrq_status gather(group *g, block_work *b, unit_work *w)
{
    const int step = b->family->unit[w->unit].step;
    snrq_unit_tokens read = {0};
    float *roots = NULL;
    char name[SNRQ_MODULES_NAME];
    snrq_status status =
        snrq_streams_tokens(&g->quantized, &g->full, b->family, step,
                            w->unit - b->family->step[step].first, w->rule->weighted_tokens, &read);
    if (status == SNRQ_OK && snrq_rule_weighs_tokens(w->rule))
        status = snrq_token_weights_read(&g->job->grams, b->family, b->layer, w->unit,
                                         &g->job->windows, g->quantized.range, &roots);
    status = snrq_agree(g->context, status);
    if (status == SNRQ_OK) status = gather_from(g, b, w, roots, &read);
    snrq_unit_tokens_free(&read);
    free(roots);
    if (status == SNRQ_OK) return SNRQ_OK;
    const snrq_unit_shape *u = &b->family->unit[w->unit];
    snrq_modules_name(b->family, b->layer, u->first, u->end, name, sizeof name);
    return snrq_fail(status, "the input of %s: %s", name, snrq_error_message());
}

/* Rounds the modules of a part, from their weights and statistics to codes. Collective over its
 * team. */
static snrq_status round_part(group *g, unit_work *w)
{
    snrq_rounding *rounding = &w->rounding;
    enter(g, SNRQ_PHASE_FACTOR);
    SNRQ_TRY(snrq_rounding_shift(rounding));
    enter(g, SNRQ_PHASE_GRID);
    SNRQ_TRY(snrq_rounding_fit(rounding));
    if (g->job->options->strict)
        SNRQ_TRY(snrq_trouble_refuse(&rounding->troubles, w->rule->scale_type));
    enter(g, SNRQ_PHASE_SEARCH);
    SNRQ_TRY(snrq_rounding_search(rounding));
    return snrq_rounding_measure(rounding);
}

/* The rows of a part, and what they are worth. */
static snrq_status stack_rows(const group *g, const block_work *b, unit_work *w)
{
    const snrq_context *team = w->team.context;
    const int64_t rows = b->family->part[w->part].rows;
    const snrq_range mine = snrq_rounding_share(rows, team->size, team->rank);
    SNRQ_TRY(snrq_part_stack_create(&b->full.block, b->layer, w->part, b->alpha_before, &w->rows));
    return snrq_row_grams_read(&g->job->grams, mine, b->family->unit[w->unit].share, &w->rows.stack,
                               &w->rows.grams);
}

static snrq_status round_of_team(group *g, block_work *b, unit_work *w)
{
    const snrq_context *team = w->team.context;
    begin_measures(g, &b->measures[w->unit]);
    snrq_status status = snrq_agree(team, stack_rows(g, b, w));
    if (status == SNRQ_OK)
        status = snrq_rounding_create(team, w->rule, &w->statistics, &w->rows.stack, &w->rounding);
    if (status == SNRQ_OK) status = round_part(g, w);
    end_measures(g, &b->measures[w->unit]);
    return status;
}

/* Gives what a team has rounded to all ranks: codes to every node, records, numerical trouble. */
static snrq_status finish_part(group *g, block_work *b, unit_work *w)
{
    const snrq_part_shape *u = &b->family->part[w->part];
    const int expert = b->family->unit[w->unit].expert;
    enter(g, SNRQ_PHASE_SEARCH);
    SNRQ_TRY(snrq_part_publish(g->context, &w->team, &w->rounding, &b->quantized, w->part));
    for (int m = u->first; w->team.context != NULL && m < u->end; m++) {
        b->records[m] = snrq_rounded_record(&w->rounding, b->family, b->layer, m);
        if (expert >= 0) b->records[m].tokens_sent = b->coverage.sent[expert];
    }
    if (!snrq_team_is_whole(g->context, &w->team))
        SNRQ_TRY(snrq_broadcast_from(g->context, w->team.first, &b->records[u->first],
                                     (size_t)(u->end - u->first) * sizeof *b->records));
    SNRQ_TRY(snrq_trouble_share(g->context, &w->team, &w->rounding.troubles));
    snrq_progress_troubles(&g->job->progress, g->job->output, b->family, b->layer, w->part,
                           w->rule->scale_type, &w->rounding.troubles);
    return SNRQ_OK;
}

/* Modules that stay as they are: of their records only the names are used, in messages. */
static void keep_unit(block_work *b, int unit)
{
    for (int m = b->family->unit[unit].first; m < b->family->unit[unit].end; m++)
        snrq_module_name(b->layer, b->family->module[m].name, b->records[m].name,
                         sizeof b->records[m].name);
}

/* Gathers what `count` units are calibrated on, but of those that are kept. work [count] */
static snrq_status gather_units(group *g, block_work *b, int count, unit_work *work)
{
    snrq_status status = SNRQ_OK;
    for (int k = 0; status == SNRQ_OK && k < count; k++) {
        if (work[k].rule->keep) continue;
        begin_measures(g, &b->measures[work[k].unit]);
        status = gather(g, b, &work[k]);
        end_measures(g, &b->measures[work[k].unit]);
    }
    return status;
}

/* Rounds a part of `count` units at the same time, each by a team. work [count] */
static snrq_status round_at_once(group *g, block_work *b, int count, unit_work *work)
{
    snrq_status status = SNRQ_OK;
    for (int k = 0; status == SNRQ_OK && k < count; k++)
        if (work[k].team.context != NULL && !work[k].rule->keep)
            status = round_of_team(g, b, &work[k]);
    if (count > 1) status = snrq_agree(g->context, status);
    for (int k = 0; status == SNRQ_OK && k < count; k++)
        if (work[k].rule->keep)
            keep_unit(b, work[k].unit);
        else
            status = finish_part(g, b, &work[k]);
    return status;
}

static void free_part(unit_work *w)
{
    snrq_rounding_free(&w->rounding);
    snrq_part_stack_free(&w->rows);
}

static snrq_status begin_part(const group *g, const block_work *b, int part, unit_work *w)
{
    free_part(w);
    w->part = part;
    return snrq_rules_of_part(&g->job->rules, b->family, b->layer, part, &w->rule);
}

/* Rounds all parts of a unit that all ranks share: each of them damps the same H. */
static snrq_status round_parts(group *g, block_work *b, unit_work *w)
{
    const int end = b->family->module[b->family->unit[w->unit].end - 1].part + 1;
    double *diagonal = NULL;
    if (w->part + 1 == end) return round_at_once(g, b, 1, w);
    snrq_status status =
        snrq_agree(g->context, snrq_allocate((size_t)w->statistics.columns, sizeof *diagonal,
                                             "diagonal of H", &diagonal));
    w->statistics.reused = true;
    if (status == SNRQ_OK) status = snrq_matrix_diagonal(w->statistics.h, diagonal);
    if (status == SNRQ_OK) status = round_at_once(g, b, 1, w);
    while (status == SNRQ_OK && w->part + 1 < end) {
        snrq_matrix_set_diagonal(w->statistics.h, diagonal);
        w->statistics.reused = w->part + 2 < end;
        status = begin_part(g, b, w->part + 1, w);
        if (status == SNRQ_OK) status = round_at_once(g, b, 1, w);
    }
    free(diagonal);
    return status;
}

static snrq_status quantize_units(group *g, block_work *b, int first, int count)
{
    const snrq_team all = snrq_team_of_all(g->context);
    unit_work *work = NULL;
    if (count > 1) SNRQ_TRY(snrq_teams_deal(g->context, count, &g->teams));
    snrq_status status =
        snrq_agree(g->context, snrq_allocate((size_t)count, sizeof *work, "units", &work));
    for (int k = 0; status == SNRQ_OK && k < count; k++) {
        const int module = b->family->unit[first + k].first;
        work[k].unit = first + k;
        work[k].team = count > 1 ? snrq_teams_at(&g->teams, k) : all;
        status = begin_part(g, b, b->family->module[module].part, &work[k]);
    }
    if (status == SNRQ_OK) status = gather_units(g, b, count, work);
    if (status == SNRQ_OK)
        status = count > 1 ? round_at_once(g, b, count, work) : round_parts(g, b, work);
    for (int k = 0; work != NULL && k < count; k++) {
        free_part(&work[k]);
        snrq_statistics_free(&work[k].statistics);
    }
    free(work);
    return status;
}

/* A module whose output is no number: nothing after the last one would notice. */
static snrq_status refuse_output(const group *g, const char *module, int64_t sequence, double norm)
{
    int rank = 0;
    while (sequence >= snrq_share(g->job->windows.count, 1, g->context->size, rank).end) rank++;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: its %s output is not finite (NaN or Inf) in sequence %lld (rank %d): "
                     "weights or inputs are too large for F32",
                     module, isfinite(norm) ? "quantized" : "full-precision", (long long)sequence,
                     g->context->job_rank - g->context->rank + rank);
}

static double ratio(double difference, double norm)
{
    return norm > 0.0 ? sqrt(difference / norm) : 0.0;
}

/* What a sequence is among those of all ranks. */
enum { FITTED, HELD_OUT, ALONE, SORTS };
static int sort_of(const snrq_windows *w, int64_t sequence)
{
    int64_t fitted = w->count - w->held_out;
    return sequence >= fitted ? HELD_OUT : sequence >= fitted - w->first_tokens ? ALONE : FITTED;
}

/* Relative output error of the modules [first, end) of a step, over fitted and over held-out
 * sequences, and their largest activation; in the order of sequences. */
static snrq_status record_measures(const group *g, block_work *b, int first, int end,
                                   double *measures)
{
    int64_t total = g->job->windows.count;
    SNRQ_TRY(snrq_collect(g->context, measures, SNRQ_MEASURES * (end - first) * total));
    for (int m = first; m < end; m++) {
        const double *of = measures + SNRQ_MEASURES * (m - first) * total;
        double difference[SORTS] = {0.0}, norm[SORTS] = {0.0}, largest = 0.0;
        for (int64_t s = 0; s < total; s++) {
            int sort = sort_of(&g->job->windows, s);
            difference[sort] += of[SNRQ_MEASURE_DIFFERENCE * total + s];
            norm[sort] += of[SNRQ_MEASURE_NORM * total + s];
            largest = fmax(largest, of[SNRQ_MEASURE_LARGEST * total + s]);
            if (!isfinite(difference[sort]) || !isfinite(norm[sort]))
                return refuse_output(g, b->records[m].name, s, norm[sort]);
        }
        b->records[m].model_error = ratio(difference[FITTED], norm[FITTED]);
        b->records[m].held_out_error = ratio(difference[HELD_OUT], norm[HELD_OUT]);
        b->records[m].largest_activation = largest;
    }
    return SNRQ_OK;
}

/* Takes both streams through a step that has its rounded weights now. */
static snrq_status advance(group *g, block_work *b, int step)
{
    int64_t total = g->job->windows.count;
    double *measures = NULL;
    int first, end;
    snrq_step_modules(b->family, step, &first, &end);
    enter(g, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_allocate(SNRQ_MEASURES * (size_t)(end - first) * (size_t)total,
                                       sizeof *measures, "measures of modules", &measures);
    if (status == SNRQ_OK)
        status = snrq_streams_advance(&g->quantized, &b->quantized.block, &g->full, &b->full.block,
                                      step, total, measures);
    status = snrq_agree(g->context, status);
    if (status == SNRQ_OK) status = record_measures(g, b, first, end, measures);
    free(measures);
    return status;
}

/* Which tokens each expert reads. */
static snrq_status route(group *g, block_work *b, int step)
{
    const snrq_windows *w = &g->job->windows;
    const int64_t least = snrq_unit_least_tokens(b->family, step, g->job->options->expert_tokens);
    if (b->family->step[step].kind != SNRQ_STEP_EXPERTS_ACTIVATION) return SNRQ_OK;
    enter(g, SNRQ_PHASE_FORWARD);
    SNRQ_TRY(snrq_streams_route(g->context, w->count - w->held_out, least, &g->quantized,
                                &b->quantized.block, &g->full, &b->full.block, &b->coverage));
    snrq_progress_coverage(&g->job->progress, g->job->output, b->layer, &b->coverage);
    return SNRQ_OK;
}

static snrq_status quantize_step(group *g, block_work *b, int step)
{
    const snrq_family *f = b->family;
    const snrq_step *s = &f->step[step];
    snrq_status status = route(g, b, step);
    for (int u = s->first, count; status == SNRQ_OK && u < s->end; u += count) {
        count = snrq_unit_teams(f, u, g->context->size);
        status = quantize_units(g, b, u, count);
    }
    if (status == SNRQ_OK) status = advance(g, b, step);
    if (status != SNRQ_OK)
        return snrq_fail(status, "block %lld, step %s: %s", (long long)b->layer, s->name,
                         snrq_error_message());
    snrq_progress_step(&g->job->progress, g->job->output, f, b->layer, step,
                       snrq_work_of_step(&g->job->rules, f, b->layer, step, &g->job->windows),
                       b->records, b->measures);
    return SNRQ_OK;
}

static snrq_status begin_block(group *g, const snrq_block *full)
{
    enter(g, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_stream_begin(&g->quantized, full);
    if (status == SNRQ_OK) status = snrq_stream_begin(&g->full, full);
    return snrq_agree(g->context, status);
}

static snrq_status commit_block(group *g, const block_work *b)
{
    const snrq_family *f = b->family;
    int count = 0;
    snrq_module_rows *modules = NULL;
    snrq_status status = snrq_agree(
        g->context, snrq_allocate((size_t)f->modules, sizeof *modules, "modules", &modules));
    for (int m = 0; status == SNRQ_OK && m < f->modules; m++) {
        if (snrq_model_keeps(g->model, b->layer, m)) continue;
        modules[count].record = b->records[m];
        snrq_unit_fill_rows(g->context, f, m, &b->quantized.block.module[m], &modules[count++]);
    }
    if (status == SNRQ_OK) status = snrq_job_commit_block(g->job, g->context, b->layer, modules);
    free(modules);
    if (status == SNRQ_OK && b->layer + 1 < g->blocks.end)
        snrq_keeper_write(&g->keeper, b->layer, &g->quantized, &g->full);
    return status;
}

static snrq_status quantize_block(group *g, block_work *b)
{
    snrq_job_chained_alphas(g->job, b->layer, b->alpha_before);
    SNRQ_TRY(begin_block(g, &b->full.block));
    for (int s = 0; s < b->family->steps; s++) {
        if (s > 0) SNRQ_TRY(safe_point(g));
        SNRQ_TRY(quantize_step(g, b, s));
    }
    return commit_block(g, b);
}

/* Takes both streams through a block that an earlier run committed. */
static snrq_status replay_block(group *g, block_work *b)
{
    SNRQ_TRY(snrq_quantized_block_read(g->context, g->model, g->job->options->output, b->layer,
                                       &b->quantized));
    enter(g, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_stream_forward(&g->quantized, &b->quantized.block);
    if (status == SNRQ_OK) status = snrq_stream_forward(&g->full, &b->full.block);
    SNRQ_TRY(snrq_agree(g->context, status));
    snrq_progress_replayed(&g->job->progress, g->job->output, b->layer,
                           snrq_job_block_work(g->job, b->layer));
    return SNRQ_OK;
}

/* Room for the quantized block, with as many groups as its parts' rules say. */
static snrq_status create_quantized(group *g, block_work *b)
{
    const snrq_family *f = b->family;
    snrq_part_groups *groups = NULL;
    snrq_status status = snrq_allocate((size_t)f->parts, sizeof *groups, "groups", &groups);
    for (int p = 0; status == SNRQ_OK && p < f->parts; p++) {
        const snrq_rule *rule = snrq_rules_at(&g->job->rules, b->layer, f->part[p].first);
        groups[p] = (snrq_part_groups){snrq_rule_groups(rule, f->part[p].columns), rule->format};
    }
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->modules, sizeof *b->records, "records", &b->records);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->modules, sizeof *b->alpha_before, "strengths",
                               &b->alpha_before);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->units, sizeof *b->measures, "measures", &b->measures);
    status = snrq_agree(g->context, status);
    if (status == SNRQ_OK)
        status = snrq_quantized_block_create(g->context, g->model, b->layer, groups, &g->ropes,
                                             &b->quantized);
    free(groups);
    return status;
}

/* Lets the system read a block while the one before it is worked on, where it has memory for it. */
static void read_ahead(group *g, int64_t layer)
{
    snrq_read_ahead_stop(&g->ahead);
    if (layer < g->blocks.end && g->job->plan.reads_ahead)
        snrq_read_ahead_start(g->context, g->model, layer, &g->ahead);
}

static snrq_status process_block(group *g, int64_t layer)
{
    block_work b = {.layer = layer, .family = snrq_model_family(g->model, layer)};
    SNRQ_TRY(safe_point(g));
    enter(g, SNRQ_PHASE_READ);
    snrq_status status = snrq_model_load_block(g->context, g->model, layer, &g->ropes, &b.full);
    read_ahead(g, layer + 1);
    if (status == SNRQ_OK) status = create_quantized(g, &b);
    if (status == SNRQ_OK)
        status = snrq_job_is_committed(g->job, layer) ? replay_block(g, &b) : quantize_block(g, &b);
    snrq_loaded_block_free(&b.quantized);
    snrq_loaded_block_free(&b.full);
    free(b.records);
    free(b.measures);
    free(b.alpha_before);
    snrq_coverage_free(&b.coverage);
    return status;
}

/* Strengths of alpha sampled, one per sequence: the same for every module. */
static snrq_status sample_alphas(group *g, snrq_range mine)
{
    const snrq_options *o = g->job->options;
    if (o->alpha_mode != SNRQ_ALPHA_SAMPLED) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)(mine.end - mine.begin), sizeof *g->alphas, "sampled alphas",
                           &g->alphas));
    snrq_sampled_alphas(o->alpha_value, (uint64_t)o->seed, mine, g->alphas);
    return SNRQ_OK;
}

/* First block that is not committed. */
static int64_t first_open(const group *g)
{
    int64_t layer = g->blocks.begin;
    while (layer < g->blocks.end && snrq_job_is_committed(g->job, layer)) layer++;
    return layer;
}

/* Makes both streams. Where activations were kept, they are those of block g->next; else there is
 * nothing in them yet. */
static snrq_status create_streams(group *g)
{
    const snrq_windows *w = &g->job->windows;
    const snrq_config *c = &g->model->config;
    snrq_range mine = snrq_stream_share(g->context, w);
    double work = 0.0;
    enter(g, SNRQ_PHASE_READ);
    snrq_status status = snrq_stream_create(mine, w, c->hidden, &g->quantized);
    if (status == SNRQ_OK) status = snrq_stream_create(mine, w, c->hidden, &g->full);
    if (status == SNRQ_OK) status = sample_alphas(g, mine);
    SNRQ_TRY(snrq_agree(g->context, status));
    g->keeper = (snrq_keeper){.context = g->context,
                              .output = g->job->output,
                              .blocks = g->blocks,
                              .windows = w->count,
                              .on = g->job->options->keep_activations,
                              .progress = &g->job->progress};
    SNRQ_TRY(snrq_keeper_read(&g->keeper, first_open(g), &g->quantized, &g->full, &g->next));
    if (g->next == g->blocks.begin) return SNRQ_OK;
    for (int64_t layer = g->blocks.begin; layer < g->next; layer++)
        work += snrq_job_block_work(g->job, layer);
    snrq_progress_read(&g->job->progress, g->job->output, g->next, work);
    return SNRQ_OK;
}

static void copy_full_stream(group *g)
{
    const snrq_stream *f = &g->full;
    memcpy(g->quantized.h, f->h,
           (size_t)((f->range.end - f->range.begin) * f->tokens * f->hidden) * sizeof *f->h);
}

/* Both streams as they enter block g->next. At the first block of a group they are the same.
 * Collective over the job. */
static snrq_status start_streams(group *g)
{
    const snrq_context *job = g->job->context;
    const int groups = g->job->groups.count;
    const bool works = first_open(g) < g->blocks.end;
    int64_t *waits = NULL;
    snrq_status status = snrq_ropes_create(&g->model->config, g->job->windows.length, &g->ropes);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)groups, sizeof *waits, "layer groups", &waits);
    status = snrq_agree(job, status);
    if (status == SNRQ_OK) status = snrq_agree(job, works ? create_streams(g) : SNRQ_OK);
    const bool starts = works && g->next == g->blocks.begin;
    int64_t any = 0;
    if (status == SNRQ_OK) {
        waits[g->job->groups.mine] = starts && g->context->rank == 0;
        status = snrq_sum_int64(job, waits, groups);
    }
    for (int k = 1; status == SNRQ_OK && k < groups; k++) any += waits[k];
    if (status == SNRQ_OK && any > 0)
        status = snrq_pass_stream(g->job, &g->ropes, waits, &g->full);
    else if (status == SNRQ_OK && starts)
        status = snrq_embed(g->context, g->job, &g->full);
    if (status == SNRQ_OK && starts) copy_full_stream(g);
    if (status == SNRQ_OK && starts && g->blocks.begin == 0)
        status = snrq_embed_coded(g->context, g->job, &g->quantized);
    free(waits);
    return status;
}

/* The blocks of this rank's group, in order. */
static snrq_status quantize_blocks(group *g)
{
    snrq_status status = SNRQ_OK;
    if (first_open(g) == g->blocks.end) return SNRQ_OK;
    g->job->progress.step_started = snrq_now(); /* passing the stream is no part of a step */
    read_ahead(g, g->next);
    for (int64_t layer = g->next; status == SNRQ_OK && layer < g->blocks.end; layer++)
        status = process_block(g, layer);
    snrq_read_ahead_stop(&g->ahead);
    return status;
}

static snrq_status quantize_groups(snrq_job *job)
{
    const snrq_layer_groups *groups = &job->groups;
    group g = {.job = job,
               .context = groups->context,
               .model = job->model,
               .blocks = {groups->first[groups->mine], groups->first[groups->mine + 1]},
               .next = groups->first[groups->mine]};
    if (job->progress.committed == job->progress.blocks) return SNRQ_OK;
    snrq_status status = start_streams(&g);
    if (status == SNRQ_OK) status = quantize_blocks(&g);
    snrq_stream_free(&g.quantized);
    snrq_stream_free(&g.full);
    snrq_ropes_free(&g.ropes);
    snrq_teams_free(&g.teams);
    free(g.alphas);
    return snrq_job_join(job, status);
}

snrq_status snrq_quantize(const snrq_context *context, const snrq_options *options)
{
    snrq_job job;
    snrq_status status = snrq_job_open(context, options, &job);
    if (status == SNRQ_OK && job.output != NULL) {
        status = snrq_job_commit_rest(&job);
        if (status == SNRQ_OK) status = snrq_own_sensitivity(&job);
        if (status == SNRQ_OK) status = snrq_tables_commit(&job);
        if (status == SNRQ_OK) status = quantize_groups(&job);
        if (status == SNRQ_OK) status = snrq_tune(&job);
        if (status == SNRQ_OK) status = snrq_job_complete(&job);
        status = snrq_job_finish(&job, status);
    }
    char message[1024];
    snprintf(message, sizeof message, "%s", snrq_error_message());
    snrq_job_close(&job);
    return status == SNRQ_OK ? SNRQ_OK : snrq_fail(status, "%s", message);
}
