/* The method, block by block and stage by stage (docs/method.md; arXiv 2602.05902):
 *
 *     for each block:
 *         for each stage [q,k,v], [o], [gate,up], [down]:
 *             gather the statistics H, D (E) of the stage's input in both streams
 *             factorize, shift the target, fit the grid, search          (rounding.c)
 *             take both streams through the stage: X by rounded, Xf by original weights
 *         commit the block
 *
 * A run that finds committed blocks reads the activations that were kept after one of them, replays
 * the blocks that follow - the same arithmetic, hence the same activations - and goes on. Between
 * two stages a run can be stopped: what it did of that block is dropped.
 */
#include "pipeline/quantize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/log.h"
#include "io/checkpoint/output.h"
#include "mpi/stop.h"
#include "mpi/watchdog.h"
#include "pipeline/windows.h"
#include "pipeline/keeper.h"
#include "pipeline/plan.h"
#include "pipeline/report.h"
#include "pipeline/stage.h"
#include "pipeline/model/stream.h"
#include "pipeline/summary.h"

typedef struct run {
    const snrq_context *context;
    const snrq_options *options;
    snrq_model *model;
    snrq_windows windows;
    snrq_plan plan;
    snrq_output *output;
    snrq_rope rope;
    snrq_stream quantized, full;
    snrq_keeper keeper;
    double *alphas; /* [local sequences] of alpha sampled, or NULL */
    snrq_timers timers;
    snrq_progress progress;
    snrq_stop stop;
    char halt_file[4200];
} run;

static bool is_committed(const run *r, int64_t layer)
{
    char name[32];
    snrq_block_file_name(layer, name);
    return snrq_output_record(r->output, name) != NULL;
}

/* For the ETA. */
static double block_work(const run *r)
{
    double work = 0.0;
    for (int s = 0; s < SNRQ_STAGES; s++)
        work += snrq_plan_stage_work(r->options, &r->model->family, (snrq_stage)s, r->windows.count,
                                     r->windows.length);
    return work;
}

/* Alpha chained: strength for each module of a block, from what the block before it suggests. */
static void chained_alphas(const run *r, int64_t layer, double alphas[SNRQ_MAX_MODULES])
{
    char name[32];
    snrq_block_file_name(layer - 1, name);
    const json_t *modules =
        layer > 1 ? json_object_get(snrq_output_record(r->output, name), "modules") : NULL;
    for (int m = 0; m < r->model->family.modules; m++) {
        const json_t *next = json_object_get(json_array_get(modules, (size_t)m), "alpha_next");
        int64_t group = r->options->group_size;
        bool grouped = group > 0 && group < r->model->family.module[m].columns;
        double start = layer == 0 ? 0.0 : grouped ? 0.5 : 0.25;
        alphas[m] = json_is_number(next) ? json_number_value(next) : start;
    }
}

/* A module whose output is no number: nothing after the last one would notice. */
static snrq_status refuse_output(const run *r, const char *module, int64_t sequence, double norm)
{
    int rank = 0;
    while (sequence >= snrq_share(r->windows.count, 1, r->context->size, rank).end) rank++;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: its %s output is not finite (NaN or Inf) in sequence %lld (rank %d): "
                     "weights or inputs are too large for F32",
                     module, isfinite(norm) ? "quantized" : "full-precision", (long long)sequence,
                     rank);
}

/* Relative output error of the stage's modules, over all sequences in order. */
static snrq_status record_model_error(const run *r, snrq_stage stage, double *errors,
                                      snrq_module_record *records)
{
    const snrq_family *f = &r->model->family;
    int64_t total = r->windows.count;
    int modules = f->first[stage + 1] - f->first[stage];
    SNRQ_TRY(snrq_collect(r->context, errors, 2 * modules * total));
    for (int m = 0; m < modules; m++) {
        double difference = 0.0, norm = 0.0;
        for (int64_t s = 0; s < total; s++) {
            difference += errors[2 * m * total + s];
            norm += errors[(2 * m + 1) * total + s];
            if (!isfinite(difference) || !isfinite(norm))
                return refuse_output(r, records[f->first[stage] + m].name, s, norm);
        }
        records[f->first[stage] + m].model_error = norm > 0.0 ? sqrt(difference / norm) : 0.0;
    }
    return SNRQ_OK;
}

/* Takes both streams through a stage that has its rounded weights now. */
static snrq_status advance(run *r, snrq_stage stage, const snrq_block *quantized,
                           const snrq_block *full, snrq_module_record *records)
{
    double *errors = NULL;
    size_t count = 2 * SNRQ_MAX_MODULES * (size_t)r->windows.count;
    snrq_timers_enter(&r->timers, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_allocate(count, sizeof *errors, "module errors", &errors);
    if (status == SNRQ_OK)
        status = snrq_streams_advance(&r->quantized, quantized, &r->full, full, stage,
                                      r->windows.count, errors);
    status = snrq_agree(r->context, status);
    if (status == SNRQ_OK) status = record_model_error(r, stage, errors, records);
    free(errors);
    return status;
}

static snrq_status quantize_stage(run *r, int64_t layer, snrq_stage stage,
                                  const snrq_loaded_block *full, const snrq_loaded_block *quantized,
                                  const snrq_stage_arrays *arrays, snrq_module_record *records)
{
    const snrq_family *f = &r->model->family;
    snrq_trouble_list troubles;
    char name[SNRQ_MODULES_NAME];
    snrq_activations x = snrq_stream_activations(&r->quantized);
    snrq_activations xf = snrq_stream_activations(&r->full);
    snrq_statistics statistics;
    snrq_stage_job job = {.context = r->context,
                          .options = r->options,
                          .timers = &r->timers,
                          .layer = layer,
                          .stage = stage,
                          .full = &full->block,
                          .memory = quantized->memory,
                          .arrays = arrays};
    chained_alphas(r, layer, job.alpha_before);
    snrq_timers_enter(&r->timers, SNRQ_PHASE_GRAM);
    snrq_status status = snrq_statistics_gather(r->context, r->options, &x, &xf, r->windows.count,
                                                r->alphas, &statistics);
    snrq_stage_name(f, layer, stage, name, sizeof name);
    if (status != SNRQ_OK)
        status = snrq_fail(status, "the input of %s: %s", name, snrq_error_message());
    if (status == SNRQ_OK) status = snrq_stage_quantize(&job, &statistics, records, &troubles);
    if (status == SNRQ_OK)
        snrq_progress_troubles(&r->progress, r->output, f, layer, stage,
                               (snrq_dtype)r->options->scale_type, &troubles);
    if (status == SNRQ_OK) status = advance(r, stage, &quantized->block, &full->block, records);
    snrq_statistics_free(&statistics);
    if (status != SNRQ_OK)
        return snrq_fail(status, "block %lld, stage %s: %s", (long long)layer, f->stage_name[stage],
                         snrq_error_message());
    snrq_progress_stage(
        &r->progress, r->output, layer, f->stage_name[stage],
        snrq_plan_stage_work(r->options, f, stage, r->windows.count, r->windows.length),
        records + f->first[stage], f->first[stage + 1] - f->first[stage]);
    return SNRQ_OK;
}

static snrq_status begin_block(run *r, const snrq_block *full)
{
    snrq_timers_enter(&r->timers, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_stream_begin(&r->quantized, full);
    if (status == SNRQ_OK) status = snrq_stream_begin(&r->full, full);
    return snrq_agree(r->context, status);
}

static snrq_status commit_block(run *r, int64_t layer, const snrq_loaded_block *quantized,
                                const snrq_module_record *records)
{
    const snrq_family *f = &r->model->family;
    snrq_module_rows modules[SNRQ_MAX_MODULES];
    char name[32];
    snrq_block_file_name(layer, name);
    snrq_timers_enter(&r->timers, SNRQ_PHASE_WRITE);
    json_t *list = json_array();
    for (int m = 0; m < f->modules; m++) {
        const snrq_weight *w = &quantized->block.module[m];
        snrq_range rows = snrq_stage_module_rows(r->context, f, m);
        modules[m] = (snrq_module_rows){.record = records[m],
                                        .rows = rows,
                                        .codes = w->codes + rows.begin * w->columns,
                                        .scales = w->scales + rows.begin * w->groups,
                                        .zeros = w->zeros + rows.begin * w->groups,
                                        .g_idx = w->g_idx};
        json_array_append_new(list, snrq_module_record_json(&records[m]));
    }
    json_t *details = json_pack("{s:I, s:o}", "block", (json_int_t)layer, "modules", list);
    snrq_status status = SNRQ_OK;
    if (details == NULL || json_array_size(list) != (size_t)f->modules)
        status = snrq_fail(SNRQ_INTERNAL, "%s: no memory to describe the modules", name);
    status = snrq_agree(r->context, status);
    if (status == SNRQ_OK)
        status = snrq_block_file_write(r->context, snrq_output_temporary(r->output, name), layer,
                                       modules, f->modules);
    if (status == SNRQ_OK) status = snrq_output_commit(r->output, name, details);
    json_decref(details);
    if (status != SNRQ_OK) return status;
    snrq_progress_committed(&r->progress, r->output, layer);
    if (layer + 1 < r->model->config.layers)
        snrq_keeper_write(&r->keeper, layer, &r->quantized, &r->full);
    return SNRQ_OK;
}

static snrq_status quantize_block(run *r, int64_t layer, const snrq_loaded_block *full,
                                  const snrq_loaded_block *quantized,
                                  const snrq_stage_arrays *arrays)
{
    snrq_module_record records[SNRQ_MAX_MODULES];
    memset(records, 0, sizeof records);
    SNRQ_TRY(begin_block(r, &full->block));
    for (int s = 0; s < SNRQ_STAGES; s++) {
        if (s > 0) SNRQ_TRY(snrq_stop_check(r->context, &r->stop));
        SNRQ_TRY(quantize_stage(r, layer, (snrq_stage)s, full, quantized, &arrays[s], records));
    }
    return commit_block(r, layer, quantized, records);
}

/* Takes both streams through a block that an earlier run committed. */
static snrq_status replay_block(run *r, int64_t layer, const snrq_loaded_block *full,
                                snrq_loaded_block *quantized)
{
    SNRQ_TRY(snrq_quantized_block_read(r->context, r->options->output, layer, &r->model->family,
                                       quantized));
    snrq_timers_enter(&r->timers, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_stream_forward(&r->quantized, &quantized->block);
    if (status == SNRQ_OK) status = snrq_stream_forward(&r->full, &full->block);
    SNRQ_TRY(snrq_agree(r->context, status));
    snrq_progress_replayed(&r->progress, layer, block_work(r));
    return SNRQ_OK;
}

static snrq_status process_block(run *r, int64_t layer)
{
    snrq_loaded_block full = {0}, quantized = {0};
    snrq_stage_arrays arrays[SNRQ_STAGES];
    SNRQ_TRY(snrq_stop_check(r->context, &r->stop));
    snrq_timers_enter(&r->timers, SNRQ_PHASE_READ);
    snrq_status status = snrq_model_load_block(r->model, layer, &r->rope, &full);
    if (status == SNRQ_OK)
        status = snrq_quantized_block_create(r->model, layer, r->options->group_size, &r->rope,
                                             arrays, &quantized);
    if (status == SNRQ_OK)
        status = is_committed(r, layer) ? replay_block(r, layer, &full, &quantized)
                                        : quantize_block(r, layer, &full, &quantized, arrays);
    snrq_loaded_block_free(&quantized);
    snrq_loaded_block_free(&full);
    return status;
}

/* Embeddings, norms and head go to the checkpoint as they are. */
static snrq_status commit_rest(run *r)
{
    char **names = NULL;
    int count = 0;
    if (snrq_output_record(r->output, "rest.h5") != NULL) return SNRQ_OK;
    snrq_timers_enter(&r->timers, SNRQ_PHASE_WRITE);
    SNRQ_TRY(snrq_agree(r->context, snrq_model_rest_names(r->model, &names, &count)));
    snrq_status status =
        snrq_rest_file_write(r->context, snrq_output_temporary(r->output, "rest.h5"),
                             r->model->tensors, (const char *const *)names, count);
    free(names);
    return status == SNRQ_OK ? snrq_output_commit(r->output, "rest.h5", NULL) : status;
}

/* Both streams start as the same embeddings. */
static snrq_status embed(run *r)
{
    snrq_table embedding;
    SNRQ_TRY(snrq_model_load_embedding(r->model, &embedding));
    snrq_stream_embed(&r->quantized, &embedding.weight, &r->windows);
    snrq_stream_embed(&r->full, &embedding.weight, &r->windows);
    snrq_table_free(&embedding);
    return SNRQ_OK;
}

/* Makes both streams, as they enter block *first. */
static snrq_status start_streams(run *r, int64_t *first)
{
    int64_t length = r->windows.length, hidden = r->model->config.hidden;
    snrq_range mine = snrq_stream_share(r->context, &r->windows);
    snrq_timers_enter(&r->timers, SNRQ_PHASE_READ);
    snrq_status status = snrq_stream_create(mine, length, hidden, &r->quantized);
    if (status == SNRQ_OK) status = snrq_stream_create(mine, length, hidden, &r->full);
    if (status == SNRQ_OK)
        status = snrq_rope_create(&r->model->config, r->windows.length, &r->rope);
    if (status == SNRQ_OK && r->options->alpha_mode == SNRQ_ALPHA_SAMPLED) {
        status = snrq_allocate((size_t)(mine.end - mine.begin), sizeof *r->alphas, "sampled alphas",
                               &r->alphas);
        if (status == SNRQ_OK)
            snrq_sampled_alphas(r->options->alpha_value, (uint64_t)r->options->seed, mine,
                                r->alphas);
    }
    SNRQ_TRY(snrq_agree(r->context, status));
    r->keeper =
        (snrq_keeper){r->context, r->output, r->windows.count, r->options->keep_activations};
    SNRQ_TRY(snrq_keeper_read(&r->keeper, r->progress.committed, &r->quantized, &r->full, first));
    if (*first == 0) return embed(r);
    snrq_progress_read(&r->progress, *first, (double)*first * block_work(r));
    return SNRQ_OK;
}

static snrq_status make_configuration(const run *r, json_t **configuration)
{
    char fingerprint[33];
    const snrq_config *c = &r->model->config;
    SNRQ_TRY(snrq_model_fingerprint(r->model, fingerprint));
    *configuration =
        json_pack("{s:i, s:s, s:o, s:{s:s, s:s, s:I, s:I, s:I, s:I}, s:{s:s, s:I, s:I}}", "format",
                  1, "version", SNRQ_VERSION, "options", snrq_options_stored(r->options), "model",
                  "architecture", c->architecture, "fingerprint", fingerprint, "layers",
                  (json_int_t)c->layers, "hidden", (json_int_t)c->hidden, "intermediate",
                  (json_int_t)c->intermediate, "vocabulary", (json_int_t)c->vocabulary,
                  "calibration", "fingerprint", r->windows.fingerprint, "sequences",
                  (json_int_t)r->windows.count, "length", (json_int_t)r->windows.length);
    return *configuration != NULL ? SNRQ_OK
                                  : snrq_fail(SNRQ_INTERNAL, "no memory for the configuration");
}

static snrq_status open_output(run *r)
{
    json_t *configuration = NULL;
    snrq_status status = snrq_agree(r->context, make_configuration(r, &configuration));
    if (status == SNRQ_OK)
        status = snrq_output_open(r->context, r->options->output, configuration, &r->output);
    json_decref(configuration);
    return status;
}

static void start_progress(run *r)
{
    int64_t layers = r->model->config.layers, committed = 0;
    while (committed < layers && is_committed(r, committed)) committed++;
    snrq_progress_start(r->context, r->output, layers, committed, (double)layers * block_work(r),
                        &r->progress);
}

static snrq_status process_blocks(run *r)
{
    int64_t layers = r->model->config.layers, first = 0;
    if (r->progress.committed == layers) return SNRQ_OK;
    SNRQ_TRY(start_streams(r, &first));
    for (int64_t layer = first; layer < layers; layer++) SNRQ_TRY(process_block(r, layer));
    return SNRQ_OK;
}

static snrq_status work_through(run *r)
{
    SNRQ_TRY(snrq_output_copy_model_files(r->output, r->model->path));
    SNRQ_TRY(commit_rest(r));
    SNRQ_TRY(process_blocks(r));
    snrq_timers_enter(&r->timers, SNRQ_PHASE_WRITE);
    SNRQ_TRY(snrq_output_drop_kept(r->output));
    return snrq_output_finish(r->output, NULL);
}

/* The work, and what is told about how it went. */
static snrq_status work_and_report(run *r)
{
    start_progress(r);
    snrq_status status = work_through(r);
    snrq_timers_enter(&r->timers, -1);
    if (status == SNRQ_STOPPED)
        status = snrq_fail(
            status,
            "stopped: %s; %lld of %lld blocks are committed, run the same command again to go on",
            snrq_error_message(), (long long)r->progress.committed, (long long)r->progress.blocks);
    snrq_progress_end(&r->progress, r->output, status);
    if (status != SNRQ_OK && status != SNRQ_STOPPED) return status;
    char message[1024];
    snprintf(message, sizeof message, "%s", snrq_error_message());
    SNRQ_TRY(snrq_report_timers(r->context, &r->timers, r->output));
    if (status == SNRQ_OK)
        SNRQ_TRY(snrq_summary(r->context, r->options->output, snrq_now() - r->progress.started,
                              r->output));
    return status == SNRQ_OK ? SNRQ_OK : snrq_fail(status, "%s", message);
}

static snrq_status open_and_work(run *r)
{
    const snrq_options *o = r->options;
    snrq_timers_enter(&r->timers, SNRQ_PHASE_READ);
    SNRQ_TRY(snrq_model_open(r->context, o->path, &r->model));
    if (r->model->quantized)
        return snrq_fail(SNRQ_USAGE, "%s is quantized already; give the original checkpoint",
                         o->path);
    SNRQ_TRY(snrq_command_windows(r->context, o, r->model, &r->windows));
    if (r->context->size > r->windows.count)
        snrq_note(r->context,
                  "note: %d ranks but only %lld sequences: some ranks have no forward pass to do",
                  r->context->size, (long long)r->windows.count);
    if (o->factor_rows > 0 && o->factor_columns > r->context->size / o->factor_rows)
        return snrq_fail(SNRQ_USAGE, "--factor-grid %dx%d needs %lld ranks, there are %d",
                         o->factor_rows, o->factor_columns,
                         (long long)o->factor_rows * o->factor_columns, r->context->size);
    SNRQ_TRY(
        snrq_agree(r->context, snrq_plan_make(r->context, o, r->model, &r->windows, &r->plan)));
    SNRQ_TRY(snrq_plan_print(r->context, o, r->model, &r->windows, &r->plan));
    if (o->plan_ranks == 0 && o->plan_nodes == 0)
        SNRQ_TRY(snrq_plan_check(r->context, o, &r->plan));
    if (o->dry_run) return SNRQ_OK;
    if (o->force_unlock) SNRQ_TRY(snrq_output_force_unlock(r->context, o->output));
    SNRQ_TRY(open_output(r));
    if (snrq_output_complete(r->output)) {
        snrq_note(r->context, "%s is complete already; nothing to do", o->output);
        return SNRQ_OK;
    }
    return work_and_report(r);
}

snrq_status snrq_quantize(const snrq_context *context, const snrq_options *options)
{
    run r = {.context = context, .options = options};
    snprintf(r.halt_file, sizeof r.halt_file, "%s/snrq.halt",
             options->output ? options->output : ".");
    snrq_stop_begin(r.halt_file, options->max_time, &r.stop);
    snrq_timers_reset(&r.timers, SNRQ_PHASES);
    snrq_watchdog *watchdog = NULL;
    snrq_status status =
        snrq_agree(context, snrq_watchdog_start(context, &r.timers, snrq_phase_name,
                                                options->watchdog, &watchdog));
    if (status == SNRQ_OK) status = open_and_work(&r);
    snrq_watchdog_stop(&watchdog);
    char message[1024];
    snprintf(message, sizeof message, "%s", snrq_error_message());
    snrq_output_close(&r.output);
    snrq_stream_free(&r.quantized);
    snrq_stream_free(&r.full);
    snrq_rope_free(&r.rope);
    snrq_windows_free(&r.windows);
    snrq_model_close(&r.model);
    free(r.alphas);
    return status == SNRQ_OK ? SNRQ_OK : snrq_fail(status, "%s", message);
}
