/* A run's own file of sensitivities; see own_sensitivity.h. */
#include "pipeline/own_sensitivity.h"

#include <limits.h>
#include <stdio.h>

#include "mpi/log.h"
#include "pipeline/options/text_options.h"
#include "pipeline/sensitivity_cost.h"
#include "pipeline/sensitivity_pass.h"
#include "pipeline/token_weights.h"

static bool is_made(const snrq_job *job)
{
    return snrq_output_record(job->output, SNRQ_OWN_SENSITIVITY) != NULL;
}

/* Work of a block, `parts` times forward. */
static double block_work(const snrq_job *job, int64_t layer, int parts)
{
    const snrq_windows first = snrq_sensitivity_windows(job->options, &job->windows);
    return parts * snrq_sensitivity_block_work(snrq_model_family(job->model, layer), &first);
}

double snrq_own_sensitivity_work(const snrq_job *job)
{
    double work = 0.0;
    if (!snrq_options_make_sensitivity(job->options) || is_made(job)) return 0.0;
    for (int64_t layer = 0; layer < job->model->config.layers; layer++)
        work +=
            block_work(job, layer, SNRQ_SENSITIVITY_FORWARD_PARTS + SNRQ_SENSITIVITY_BACK_PARTS);
    return work;
}

/* Tells, and stops where the run is to. */
static snrq_status listen(void *user, const snrq_sensitivity_step *s)
{
    snrq_job *job = user;
    snrq_timers_enter(&job->timers, SNRQ_PHASE_BACKWARD); /* a sign of life */
    const int parts = s->back ? SNRQ_SENSITIVITY_BACK_PARTS : SNRQ_SENSITIVITY_FORWARD_PARTS;
    snrq_progress_pass(&job->progress, job->output, s->back ? "back" : "forward", s->block,
                       block_work(job, s->block, parts) / (double)s->passes);
    return snrq_stop_check(job->context, &job->stop);
}

static snrq_status pass(snrq_job *job, const snrq_windows *windows)
{
    const snrq_options *o = job->options;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", snrq_output_temporary(job->output, SNRQ_OWN_SENSITIVITY));
    const snrq_sensitivity_order order = {.path = path,
                                          .seed = (uint64_t)o->seed,
                                          .pass_memory = o->pass_memory,
                                          .listen = listen,
                                          .user = job};
    snrq_sensitivity_outcome found;
    const double started = snrq_now();
    snrq_timers_enter(&job->timers, SNRQ_PHASE_BACKWARD);
    SNRQ_TRY(snrq_sensitivity_pass(job->context, &order, job->model, windows, &found));
    snrq_timers_enter(&job->timers, SNRQ_PHASE_WRITE);
    SNRQ_TRY(snrq_output_commit(job->output, job->context, SNRQ_OWN_SENSITIVITY, NULL));
    snrq_progress_passed(&job->progress, job->output, found.tokens, found.loss,
                         snrq_now() - started);
    return SNRQ_OK;
}

/* Goes through the run's windows, or draws more. */
static snrq_status make(snrq_job *job)
{
    const snrq_windows first = snrq_sensitivity_windows(job->options, &job->windows);
    snrq_window_order order = snrq_calibration_windows(job->options);
    snrq_windows drawn = {0};
    if (first.count <= snrq_windows_of_text(&job->windows).count) return pass(job, &first);
    order.count = first.count;
    order.held_out = order.first_tokens = 0;
    snrq_status status = snrq_windows_make(job->context, &order, job->model, &drawn);
    if (status == SNRQ_OK) status = pass(job, &drawn);
    snrq_windows_free(&drawn);
    return status;
}

snrq_status snrq_own_sensitivity(snrq_job *job)
{
    char path[PATH_MAX];
    if (!snrq_options_make_sensitivity(job->options)) return SNRQ_OK;
    if (job->progress.committed == job->progress.blocks) return SNRQ_OK;
    if (!is_made(job)) SNRQ_TRY(make(job));
    snprintf(path, sizeof path, "%s/%s", job->options->output, SNRQ_OWN_SENSITIVITY);
    snrq_timers_enter(&job->timers, SNRQ_PHASE_READ);
    SNRQ_TRY(snrq_row_grams_open(job->context, path, job->model, &job->grams));
    return snrq_agree(job->context, snrq_token_weights_match(&job->windows, &job->grams));
}
