/* The job's part of a quantization; see job.h. */
#include "pipeline/job.h"
#include "pipeline/model/kept.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/checkpoint/reader.h"
#include "io/user_output.h"
#include "mpi/log.h"
#include "pipeline/assess.h"
#include "pipeline/export.h"
#include "pipeline/model/checksum.h"
#include "pipeline/model/findings.h"
#include "pipeline/options/settings.h"
#include "pipeline/options/text_options.h"
#include "pipeline/own_sensitivity.h"
#include "pipeline/summary.h"
#include "pipeline/token_weights.h"
#include "pipeline/tune.h"
#include "pipeline/work.h"

bool snrq_job_is_committed(const snrq_job *job, int64_t layer)
{
    char name[32];
    snrq_block_file_name(layer, name);
    return snrq_output_record(job->output, name) != NULL;
}

double snrq_job_block_work(const snrq_job *job, int64_t layer)
{
    return snrq_work_of_block(&job->rules, snrq_model_family(job->model, layer), layer,
                              &job->windows);
}

void snrq_job_chained_alphas(const snrq_job *job, int64_t layer, double *alphas)
{
    const snrq_family *f = snrq_model_family(job->model, layer);
    /* The first block of a group knows nothing of the one before it. */
    int64_t at = layer - job->groups.first[job->groups.mine];
    char name[32];
    snrq_block_file_name(layer - 1, name);
    const json_t *modules =
        at > 1 ? json_object_get(snrq_output_record(job->output, name), "modules") : NULL;
    for (int m = 0; m < f->modules; m++) {
        const bool there = at > 1 && !snrq_model_keeps(job->model, layer - 1, m);
        const int before = there ? snrq_model_stored_index(job->model, layer - 1, m) : -1;
        const json_t *next = json_object_get(json_array_get(modules, (size_t)before), "alpha_next");
        bool grouped =
            snrq_rule_groups(snrq_rules_at(&job->rules, layer, m), f->module[m].columns) > 1;
        double start = at == 0 ? 0.0 : grouped ? 0.5 : 0.25;
        alphas[m] = json_is_number(next) ? json_number_value(next) : start;
    }
}

/* ---- groups ---- */

static void handle_letter(void *user, const snrq_letter *letter)
{
    snrq_job *job = user;
    if (letter == NULL)
        snrq_timers_enter(&job->timers, -1); /* waiting for the other groups is no hang */
    else if (letter->kind == SNRQ_LETTER_EVENT)
        snrq_progress_hear(&job->progress, job->output, letter->text);
    else
        job->stop.asked = true;
}

void snrq_job_attend(snrq_job *job)
{
    snrq_letter letter;
    bool found = job->mail != NULL && job->groups.context->rank == 0;
    while (found) {
        if (snrq_mail_take(job->mail, &letter, &found) != SNRQ_OK) return;
        if (!found) return;
        handle_letter(job, &letter);
        free(letter.text);
    }
}

/* Rank 0 of a group that ends early asks the others to stop at their next safe point. */
static void ask_others_to_stop(snrq_job *job)
{
    const snrq_context *c = job->context;
    for (int k = 0; k < job->groups.count; k++)
        if (k != job->groups.mine && job->groups.context->rank == 0)
            (void)snrq_mail_send(job->mail, snrq_layer_groups_leader(&job->groups, c->size, k),
                                 SNRQ_LETTER_STOP, "");
}

snrq_status snrq_job_join(snrq_job *job, snrq_status status)
{
    char message[1024];
    if (job->mail == NULL) return status;
    /* Whoever asked this group to stop says why. */
    if (status == SNRQ_STOPPED && job->stop.for_others) status = SNRQ_OK;
    snprintf(message, sizeof message, "%s", snrq_error_message());
    if (status != SNRQ_OK) ask_others_to_stop(job);
    SNRQ_TRY(snrq_mail_finish(job->mail, handle_letter, job));
    return snrq_agree(job->context, status == SNRQ_OK ? SNRQ_OK : snrq_fail(status, "%s", message));
}

/* ---- files ---- */

/* What the manifest says about a block beside its hash. */
static snrq_status describe_block(int64_t layer, const snrq_module_rows *modules, int count,
                                  json_t **details)
{
    json_t *list = json_array();
    for (int m = 0; m < count; m++)
        json_array_append_new(list, snrq_module_record_json(&modules[m].record));
    *details = json_pack("{s:I, s:o}", "block", (json_int_t)layer, "modules", list);
    if (*details != NULL && json_array_size(list) == (size_t)count) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL, "block %lld: no memory to describe the modules",
                     (long long)layer);
}

snrq_status snrq_job_commit_block(snrq_job *job, const snrq_context *context, int64_t layer,
                                  const snrq_module_rows *modules)
{
    int count = snrq_model_stored_modules(job->model, layer);
    char name[32];
    json_t *details = NULL;
    snrq_block_file_name(layer, name);
    snrq_timers_enter(&job->timers, SNRQ_PHASE_WRITE);
    snrq_status status = snrq_agree(context, describe_block(layer, modules, count, &details));
    if (status == SNRQ_OK)
        status = snrq_block_file_write(context, snrq_output_temporary(job->output, name), layer,
                                       modules, count);
    if (status == SNRQ_OK) status = snrq_output_commit(job->output, context, name, details);
    json_decref(details);
    if (status == SNRQ_OK) snrq_progress_committed(&job->progress, job->output, layer);
    return status;
}

static snrq_status commit_unquantized(snrq_job *job)
{
    char **names = NULL;
    int count = 0;
    if (snrq_output_record(job->output, "rest.h5") != NULL) return SNRQ_OK;
    snrq_timers_enter(&job->timers, SNRQ_PHASE_WRITE);
    SNRQ_TRY(snrq_agree(job->context, snrq_model_rest_names(job->model, &names, &count)));
    snrq_status status =
        snrq_rest_file_write(job->context, snrq_output_temporary(job->output, "rest.h5"),
                             job->model->tensors, (const char *const *)names, count, NULL);
    free(names);
    if (status != SNRQ_OK) return status;
    return snrq_output_commit(job->output, job->context, "rest.h5", NULL);
}

snrq_status snrq_job_commit_rest(snrq_job *job)
{
    snrq_status noted = SNRQ_OK;
    if (job->context->rank == 0 && snrq_output_record(job->output, "rest.h5") == NULL)
        noted = snrq_export_note_side_files(job->model);
    SNRQ_TRY(snrq_agree(job->context, noted));
    SNRQ_TRY(snrq_output_copy_model_files(job->output, job->model->path));
    return commit_unquantized(job);
}

snrq_status snrq_job_complete(snrq_job *job)
{
    const snrq_range all = {0, job->model->config.layers};
    snrq_timers_enter(&job->timers, SNRQ_PHASE_WRITE);
    SNRQ_TRY(snrq_output_drop_kept(job->output, job->context, all));
    json_t *details = NULL;
    if (job->tuning != NULL) details = json_pack("{s:O}", "tuning", job->tuning);
    snrq_status status = snrq_output_finish(job->output, details);
    json_decref(details);
    return status;
}

/* ---- start and end ---- */

static snrq_status make_configuration(const snrq_job *job, json_t **configuration)
{
    char fingerprint[33];
    const snrq_config *c = &job->model->config;
    SNRQ_TRY(snrq_model_fingerprint(job->model, fingerprint));
    *configuration = json_pack(
        "{s:i, s:s, s:o, s:{s:s, s:s, s:I, s:I, s:I, s:I}, s:{s:s, s:I, s:I, s:I, s:I, s:I}}",
        "format", 1, "version", SNRQ_VERSION, "options", snrq_options_stored(job->options), "model",
        "architecture", c->architecture, "fingerprint", fingerprint, "layers",
        (json_int_t)c->layers, "hidden", (json_int_t)c->hidden, "intermediate",
        (json_int_t)c->intermediate, "vocabulary", (json_int_t)c->vocabulary, "calibration",
        "fingerprint", job->windows.fingerprint, "sequences",
        (json_int_t)(job->windows.count - job->windows.held_out - job->windows.first_tokens),
        "first_tokens", (json_int_t)job->windows.first_tokens, "held_out",
        (json_int_t)job->windows.held_out, "length", (json_int_t)job->windows.length,
        "distinct_positions", (json_int_t)job->windows.distinct);
    if (*configuration == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the configuration");
    json_t *options = json_object_get(*configuration, "options");
    SNRQ_TRY(snrq_settings_resolve(options, json_object_get(*configuration, "calibration"),
                                   snrq_model_max_columns(job->model)));
    int failed = json_object_set_new(options, "layer-groups", json_integer(job->groups.count));
    if (job->rules.recipe != NULL)
        failed |= json_object_set(*configuration, "recipe", job->rules.recipe);
    if (job->rules.budget.bits_per_weight > 0.0)
        failed |= json_object_set_new(*configuration, "budget",
                                      json_pack("{s:f, s:f}", "bits_per_weight",
                                                job->rules.budget.bits_per_weight, "predicted_kl",
                                                job->rules.budget.kl));
    if (job->model->kept != NULL)
        failed |= json_object_set_new(*configuration, "kept", snrq_model_kept_names(job->model));
    if (job->grams.file != NULL)
        failed |= json_object_set_new(*configuration, "sensitivity", json_string(job->grams.hash));
    if (snrq_options_make_sensitivity(job->options))
        failed |=
            json_object_set_new(*configuration, "sensitivity", json_string(SNRQ_SENSITIVITY_AUTO));
    if (failed == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL, "no memory for the configuration");
}

/* Adds the checksums of all tensors, but where there is nothing to compare them with or to store
 * them in. Collective. */
static snrq_status add_checksums(const snrq_job *job, json_t *configuration)
{
    json_t *checksums = NULL, *model = json_object_get(configuration, "model");
    int64_t needed = !job->options->dry_run || snrq_output_is(job->options->output);
    SNRQ_TRY(snrq_broadcast(job->context, &needed, sizeof needed)); /* as rank 0 sees it */
    if (!needed) return SNRQ_OK;
    SNRQ_TRY(snrq_model_checksums(job->context, job->model, &checksums));
    if (json_object_set_new(model, "tensors", checksums) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_INTERNAL, "no memory for the configuration");
}

/* A run that was begun before there were checksums has none to compare with. */
static void adopt_checksums(json_t *configuration, const json_t *before)
{
    const json_t *model = json_object_get(before, "model");
    if (json_is_object(model) && json_object_get(model, "tensors") == NULL)
        json_object_del(json_object_get(configuration, "model"), "tensors");
}

/* A run that goes on has the options of the one before it in the form in which they were stored. Of
 * damage tells snrq_output_open(), which knows what to do about it. */
static snrq_status adopt_form(const snrq_job *job, json_t *configuration)
{
    const char *directory = job->options->output;
    snrq_output_facts before;
    if (!snrq_output_is(directory)) return SNRQ_OK;
    snrq_status status = snrq_output_read(directory, &before);
    if (status == SNRQ_OK)
        status = snrq_settings_adopt(configuration, before.configuration,
                                     snrq_model_max_columns(job->model));
    if (status == SNRQ_OK) adopt_checksums(configuration, before.configuration);
    snrq_output_facts_free(&before);
    return status == SNRQ_BAD_DATA ? SNRQ_OK : status;
}

static snrq_status open_output(snrq_job *job)
{
    json_t *configuration = NULL;
    snrq_status status = snrq_agree(job->context, make_configuration(job, &configuration));
    if (status == SNRQ_OK) status = snrq_agree(job->context, add_checksums(job, configuration));
    if (status == SNRQ_OK && job->context->rank == 0) status = adopt_form(job, configuration);
    status = snrq_agree(job->context, status);
    const snrq_output_start start = {.look = job->options->dry_run,
                                     .force_unlock = job->options->force_unlock,
                                     .redo = job->options->redo >= 0,
                                     .block = job->options->redo};
    if (status == SNRQ_OK)
        status = snrq_output_open_as(job->context, job->options->output, configuration, &start,
                                     &job->output);
    json_decref(configuration);
    return status;
}

static int64_t count_committed(const snrq_job *job)
{
    int64_t committed = 0;
    for (int64_t layer = 0; layer < job->model->config.layers; layer++)
        committed += snrq_job_is_committed(job, layer);
    return committed;
}

/* What a run would find in the output directory, or why it would be refused. */
static snrq_status look_at_output(snrq_job *job, snrq_plan_output *found)
{
    SNRQ_TRY(open_output(job));
    found->known = true;
    found->complete = snrq_output_complete(job->output);
    found->started = snrq_output_is(job->options->output);
    found->committed = count_committed(job);
    snrq_output_close(&job->output);
    return SNRQ_OK;
}

/* The groups' ranks, what they tell each other by, and the clock. */
static snrq_status start_groups(snrq_job *job)
{
    double work = snrq_own_sensitivity_work(job);
    for (int64_t layer = 0; layer < job->model->config.layers; layer++)
        work += snrq_job_block_work(job, layer);
    SNRQ_TRY(snrq_layer_groups_split(job->context, &job->groups));
    if (job->groups.count > 1) SNRQ_TRY(snrq_mail_create(job->context, &job->mail));
    return snrq_agree(job->context, snrq_progress_start(
                                        job->context, job->output, snrq_model_max_units(job->model),
                                        &job->groups, job->mail, work, &job->progress));
}

/* --layer-groups auto of a run that was started before: what it has stored. 0: none was. */
static int64_t stored_groups(const char *directory)
{
    snrq_output_facts before;
    int64_t groups = 0;
    if (directory == NULL || !snrq_output_is(directory)) return 0;
    if (snrq_output_read(directory, &before) == SNRQ_OK)
        groups = json_integer_value(
            json_object_get(json_object_get(before.configuration, "options"), "layer-groups"));
    snrq_output_facts_free(&before);
    return groups;
}

static snrq_status choose_groups(snrq_job *job)
{
    const snrq_context *c = job->context;
    const snrq_options *o = job->options;
    const int ranks = o->dry_run && o->plan_ranks > 0 ? (int)o->plan_ranks : c->size;
    int64_t groups = o->layer_groups;
    if (groups == 0) {
        if (c->rank == 0) groups = stored_groups(o->output);
        SNRQ_TRY(snrq_broadcast(c, &groups, sizeof groups));
    }
    int best = (int)groups;
    if (groups == 0)
        SNRQ_TRY(snrq_agree(
            c, snrq_work_best_groups(&job->rules, job->model, &job->windows, ranks, &best)));
    if (best > job->model->config.layers)
        return snrq_fail(SNRQ_USAGE,
                         "--layer-groups %d: the model has %lld blocks, a group needs one", best,
                         (long long)job->model->config.layers);
    if (best > ranks)
        return snrq_fail(SNRQ_USAGE,
                         "--layer-groups %d: a group needs a rank, there %s %d; run with at least "
                         "%d ranks (mpirun -n %d)",
                         best, ranks == 1 ? "is" : "are", ranks, best, best);
    return snrq_agree(c,
                      snrq_work_groups(&job->rules, job->model, &job->windows, best, &job->groups));
}

/* What this start can be asked for, apart from memory. */
static snrq_status check_ranks(const snrq_job *job)
{
    const snrq_context *c = job->context;
    const snrq_options *o = job->options;
    if (c->size > job->windows.count * job->groups.count)
        snrq_note(c,
                  "note: %d ranks but only %lld sequences: some ranks have no forward pass to do",
                  c->size, (long long)job->windows.count);
    const int group = c->size / job->groups.count; /* ranks of the smallest */
    if (o->factor_rows > 0 && o->factor_columns > group / o->factor_rows)
        return snrq_fail(SNRQ_USAGE, "--factor-grid %dx%d needs %lld ranks, there are %d%s",
                         o->factor_rows, o->factor_columns,
                         (long long)o->factor_rows * o->factor_columns, group,
                         job->groups.count > 1 ? " in a layer group" : "");
    return SNRQ_OK;
}

static snrq_status read_inputs(snrq_job *job)
{
    const snrq_context *c = job->context;
    const snrq_options *o = job->options;
    snrq_timers_enter(&job->timers, SNRQ_PHASE_READ);
    SNRQ_TRY(snrq_model_open(c, o->path, &job->model));
    if (job->model->quantized)
        return snrq_fail(SNRQ_USAGE, "%s is quantized already; give the original checkpoint",
                         o->path);
    SNRQ_TRY(snrq_model_check(c, job->model, o->ignore_unused_layers, o->strict));
    SNRQ_TRY(snrq_agree(c, snrq_rules_create(o, job->model, &job->rules)));
    SNRQ_TRY(snrq_agree(c, snrq_plan_check_engine(job->model, &job->rules, o->engine)));
    SNRQ_TRY(snrq_agree(c, snrq_rules_mark_kept(&job->rules, job->model)));
    snrq_rules_cut_units(&job->rules, job->model);
    if (o->sensitivity != NULL && !snrq_options_make_sensitivity(o))
        SNRQ_TRY(snrq_row_grams_open(c, o->sensitivity, job->model, &job->grams));
    const snrq_window_order windows = snrq_calibration_windows(o);
    SNRQ_TRY(snrq_windows_make(c, &windows, job->model, &job->windows));
    SNRQ_TRY(snrq_agree(c, snrq_token_weights_match(&job->windows, &job->grams)));
    SNRQ_TRY(snrq_agree(c, snrq_tune_check(&job->rules, job->model, &job->windows)));
    SNRQ_TRY(choose_groups(job));
    return check_ranks(job);
}

static snrq_status make_plan(snrq_job *job)
{
    const snrq_context *c = job->context;
    const snrq_options *o = job->options;
    char refusal[2048];
    snrq_plan_output found = {.known = false};
    SNRQ_TRY(snrq_agree(
        c, snrq_plan_make(c, o, job->model, &job->rules, &job->windows, &job->groups, &job->plan)));
    snrq_status looked = o->dry_run && o->output != NULL ? look_at_output(job, &found) : SNRQ_OK;
    snprintf(refusal, sizeof refusal, "%s", snrq_error_message());
    job->plan.output = found;
    SNRQ_TRY(snrq_plan_print(c, o, job->model, &job->rules, &job->windows, &job->plan));
    if (o->plan_ranks == 0 && o->plan_nodes == 0) SNRQ_TRY(snrq_plan_check(c, o, &job->plan));
    return looked == SNRQ_OK ? SNRQ_OK : snrq_fail(looked, "%s", refusal);
}

/* Called by the watchdog's thread. */
static void report_hang(const void *user, const char *message)
{
    const snrq_job *job = user;
    if (job->works_in_output)
        snrq_output_hung(job->options->output, job->context->job_rank, message);
}

static snrq_status start_watchdog(snrq_job *job)
{
    const snrq_watchdog_settings settings = {.timers = &job->timers,
                                             .phase_name = snrq_phase_name,
                                             .seconds = job->options->watchdog,
                                             .report = report_hang,
                                             .user = job};
    return snrq_agree(job->context, snrq_watchdog_start(job->context, &settings, &job->watchdog));
}

/* A budget without --assessment goes by one of the run's own. */
static snrq_status assess_first(snrq_job *job)
{
    const snrq_options *o = job->options;
    if ((o->target_bits == 0.0 && o->target_bytes == 0) || o->assessment != NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_assess_for_budget(job->context, o, &job->watch, job->assessment,
                                    sizeof job->assessment));
    job->own = *o;
    job->own.assessment = job->assessment;
    job->options = &job->own;
    return SNRQ_OK;
}

snrq_status snrq_job_open(const snrq_context *context, const snrq_options *options, snrq_job *job)
{
    *job = (snrq_job){.context = context, .options = options};
    snprintf(job->halt_file, sizeof job->halt_file, "%s/snrq.halt",
             options->output ? options->output : ".");
    snrq_stop_begin(job->halt_file, options->max_time, &job->stop);
    snrq_timers_reset(&job->timers, SNRQ_PHASES);
    job->watch = (snrq_watch){&job->stop, &job->timers};
    SNRQ_TRY(start_watchdog(job));
    if (options->output != NULL)
        SNRQ_TRY(snrq_agree(context, context->rank == 0 ? snrq_user_directory_check(options->output)
                                                        : SNRQ_OK));
    SNRQ_TRY(assess_first(job));
    SNRQ_TRY(read_inputs(job));
    SNRQ_TRY(make_plan(job));
    if (options->dry_run) return SNRQ_OK;
    if (options->force_unlock) SNRQ_TRY(snrq_output_force_unlock(context, options->output));
    SNRQ_TRY(open_output(job));
    job->works_in_output = !snrq_output_complete(job->output);
    if (job->works_in_output) return start_groups(job);
    snrq_note(context, "%s is complete already; nothing to do", options->output);
    snrq_output_close(&job->output);
    return SNRQ_OK;
}

snrq_status snrq_job_finish(snrq_job *job, snrq_status status)
{
    char message[1024];
    snrq_timers_enter(&job->timers, -1);
    if (status == SNRQ_STOPPED)
        status = snrq_fail(
            status,
            "stopped: %s; %lld of %lld blocks are committed, run the same command again to go on",
            snrq_error_message(), (long long)job->progress.committed,
            (long long)job->progress.blocks);
    snrq_progress_end(&job->progress, job->output, status);
    if (status != SNRQ_OK && status != SNRQ_STOPPED) return status;
    snprintf(message, sizeof message, "%s", snrq_error_message());
    SNRQ_TRY(snrq_report_timers(job->context, &job->timers, job->output));
    if (status == SNRQ_OK)
        return snrq_summary(job->context, job->options->output, snrq_now() - job->progress.started,
                            job->output);
    return snrq_fail(status, "%s", message);
}

void snrq_job_close(snrq_job *job)
{
    job->works_in_output = false;
    snrq_watchdog_stop(&job->watchdog);
    snrq_output_close(&job->output);
    snrq_progress_free(&job->progress);
    json_decref(job->tuning);
    job->tuning = NULL;
    snrq_mail_free(&job->mail);
    snrq_layer_groups_free(&job->groups);
    snrq_windows_free(&job->windows);
    snrq_rules_free(&job->rules);
    snrq_row_grams_close(&job->grams);
    snrq_model_close(&job->model);
}
