/* Tuning scales and norms; see tune.h. */
#include "pipeline/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/log.h"
#include "mpi/timers.h"
#include "pipeline/model/philox.h"
#include "pipeline/tuner.h"
#include "pipeline/tuning_cost.h"

enum { PATIENCE = 3 /* epochs without a better model */ };
static const double highest_rate = 0.01, warm_up = 0.05 /* share of all steps */;
static const double slower = 0.2; /* after an epoch that made the model worse */

static int64_t fitted_of(const snrq_tuner *t)
{
    return snrq_passes_fitted(&t->job->windows).end;
}

/* ---- which sequences, and how fast ---- */

/* The batch `k` of an epoch. Sequences are cut into runs of as many as there are batches, and a
 * batch gets one of each run: so every rank, which has sequences that follow each other, has about
 * as many as the others. list <- those of this rank; returns how many, *all: of all ranks. */
static int64_t choose_batch(const snrq_tuner *t, int64_t k, int64_t *list, int64_t *all)
{
    const uint64_t seed = (uint64_t)t->job->options->seed;
    const int64_t n = t->batches, fitted = fitted_of(t);
    int64_t count = 0;
    *all = 0;
    for (int64_t run = 0; run * n < fitted; run++) {
        /* Where number k is after the run was shuffled: Fisher and Yates, from the end on. */
        int64_t at = k;
        for (int64_t i = 0; i < n; i++) {
            int64_t with = i + (int64_t)(snrq_philox_uniform(seed, (uint64_t)(t->epoch + 1),
                                                             (uint64_t)(run * n + i)) *
                                         (double)(n - i));
            at = at == i ? with : at == with ? i : at;
        }
        int64_t s = run * n + at;
        if (s >= fitted) continue;
        ++*all;
        if (s >= t->passes.fitted.begin && s < t->passes.fitted.end) list[count++] = s;
    }
    return count;
}

/* Of a step of all, counted from 0: rises at first, then falls to 0, as half a wave would. */
static double rate_of(const snrq_tuner *t, int64_t step)
{
    double part = ((double)step + 0.5) / (double)(t->epochs * t->batches);
    double rise = part < warm_up ? part / warm_up : 1.0;
    int64_t worse = 0;
    snrq_tuner_begun(t, &worse);
    return highest_rate * pow(slower, (double)worse) * rise *
           (1.0 - part * part * (3.0 - 2.0 * part));
}

/* ---- epochs ---- */

/* Mean KL of a token of the sequences [range), from what each rank knows of its own. */
static snrq_status mean_kl(snrq_tuner *t, snrq_range range, double *mean)
{
    double sum = 0.0;
    SNRQ_TRY(snrq_collect(t->context, t->kl, t->job->windows.count));
    for (int64_t s = range.begin; s < range.end; s++) sum += t->kl[s];
    *mean = sum / (double)((range.end - range.begin) * t->job->windows.length);
    if (isfinite(*mean)) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "tuning: KL to the full-precision model is not finite");
}

static void clear_kl(snrq_tuner *t)
{
    memset(t->kl, 0, (size_t)t->job->windows.count * sizeof *t->kl);
}

static snrq_status measure_held_out(snrq_tuner *t, double *kl)
{
    snrq_range mine = t->passes.held_out;
    clear_kl(t);
    for (int64_t s = mine.begin; s < mine.end; s++) t->list[s - mine.begin] = s;
    SNRQ_TRY(snrq_agree(t->context, snrq_passes_run(&t->passes, &t->model, t->list,
                                                    mine.end - mine.begin, false, t->kl)));
    return mean_kl(t, t->held_out, kl);
}

static snrq_status run_batch(snrq_tuner *t, int64_t k)
{
    int64_t all, count = choose_batch(t, k, t->list, &all);
    SNRQ_TRY(snrq_stop_check(t->context, &t->job->stop));
    SNRQ_TRY(snrq_agree(t->context,
                        snrq_passes_run(&t->passes, &t->model, t->list, count, true, t->kl)));
    snrq_adam_advance(&t->adam);
    t->adam.rate = rate_of(t, t->epoch * t->batches + k);
    t->adam.tokens = (double)(all * t->job->windows.length);
    return snrq_tuned_model_step(&t->model, &t->adam);
}

/* Adds an epoch that is done to the records: KL while it went over the windows that are fitted to
 * (before the first epoch: none), then over those held out. */
static snrq_status add_record(snrq_tuner *t, double fitted, double held_out)
{
    json_t *entry = json_pack("{s:f}", "held_out", held_out);
    if (t->epoch > 0) json_object_set_new(entry, "fitted", json_real(fitted));
    if (json_array_append_new(t->history, entry) != 0)
        return snrq_fail(SNRQ_INTERNAL, "no memory for the records of epochs");
    if (t->epoch > 0 && held_out >= t->best_kl) {
        t->adam = snrq_adam_begin();
        return snrq_tuned_model_go_back(&t->model);
    }
    t->best = t->epoch;
    t->best_kl = held_out;
    return snrq_tuned_model_copy(&t->model, SNRQ_TUNED_VALUE, SNRQ_TUNED_BEST);
}

static bool is_over(const snrq_tuner *t)
{
    return t->epoch == t->epochs || t->epoch - t->best >= PATIENCE;
}

static void tell(const snrq_tuner *t, double fitted, double held_out, double seconds)
{
    const double left = is_over(t) ? 0.0 : seconds * (double)(t->epochs - t->epoch);
    const snrq_tuning_progress p = {.epoch = t->epoch,
                                    .epochs = t->epochs,
                                    .best = t->best,
                                    .fitted = fitted,
                                    .held_out = held_out,
                                    .seconds = seconds,
                                    .seconds_left = left};
    snrq_progress_tuning(&t->job->progress, t->job->output, &p);
}

static snrq_status run_epoch(snrq_tuner *t)
{
    const double started = snrq_now();
    double fitted = 0.0, held_out = 0.0;
    clear_kl(t);
    for (int64_t k = 0; k < t->batches; k++) SNRQ_TRY(run_batch(t, k));
    SNRQ_TRY(mean_kl(t, snrq_passes_fitted(&t->job->windows), &fitted));
    SNRQ_TRY(measure_held_out(t, &held_out));
    t->epoch++;
    SNRQ_TRY(add_record(t, fitted, held_out));
    SNRQ_TRY(snrq_tuner_put(t));
    tell(t, fitted, held_out, snrq_now() - started);
    return SNRQ_OK;
}

/* ---- before and after ---- */

static snrq_status prepare(snrq_tuner *t)
{
    const snrq_job *job = t->job;
    const snrq_windows *w = &job->windows;
    t->epochs = job->options->tune;
    t->batches = (fitted_of(t) + SNRQ_TUNING_BATCH - 1) / SNRQ_TUNING_BATCH;
    t->held_out = snrq_passes_held_out(w);
    t->adam = snrq_adam_begin();
    t->history = json_array();
    snrq_status status = snrq_ropes_create(&job->model->config, w->length, &t->ropes);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)w->count, sizeof *t->list, "sequences", &t->list);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)w->count, sizeof *t->kl, "KL", &t->kl);
    SNRQ_TRY(snrq_agree(t->context, status));
    SNRQ_TRY(snrq_tuned_model_load(t->context, job->model, &job->rules, job->options->output,
                                   &t->ropes, &t->model));
    return snrq_passes_create(t->context, job->model, w, &job->watch, &t->ropes, &t->passes);
}

static snrq_status begin(snrq_tuner *t)
{
    double held_out = 0.0;
    SNRQ_TRY(measure_held_out(t, &held_out));
    SNRQ_TRY(add_record(t, 0.0, held_out));
    tell(t, 0.0, held_out, 0.0);
    return SNRQ_OK;
}

static snrq_status tune(snrq_tuner *t)
{
    bool resumed = false;
    SNRQ_TRY(prepare(t));
    snrq_timers_enter(&t->job->timers, SNRQ_PHASE_TUNE);
    SNRQ_TRY(snrq_tuner_resume(t, &resumed));
    if (!resumed) SNRQ_TRY(begin(t));
    while (!is_over(t)) SNRQ_TRY(run_epoch(t));
    t->job->tuning = snrq_tuner_record(t);
    return t->best > 0 ? snrq_tuner_publish(t) : SNRQ_OK;
}

snrq_status snrq_tune_check(const snrq_rules *rules, const snrq_model *model,
                            const snrq_windows *windows)
{
    if (rules->tune == 0) return SNRQ_OK;
    for (int64_t layer = 0; layer < rules->layers; layer++) {
        const snrq_family *f = snrq_model_family(model, layer);
        for (int i = 0; i < f->modules; i++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, i);
            if (r->keep || r->format == NULL) continue;
            return snrq_fail(SNRQ_USAGE,
                             "--tune: block %lld: %s is stored as %s, whose scales cannot change "
                             "freely; leave out --tune, or use --bits and --group-size in place of "
                             "--format",
                             (long long)layer, f->module[i].name, r->format->name);
        }
    }
    if (windows->held_out > 0) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE,
                     "--tune needs windows that are held out, which tell when to stop: expected "
                     "--held-out 1 or more, and a text of more than the %lld windows that are "
                     "fitted to",
                     (long long)(windows->count - windows->first_tokens));
}

snrq_status snrq_tune(snrq_job *job)
{
    snrq_tuner t = {.job = job, .context = job->context};
    if (job->options->tune == 0) return SNRQ_OK;
    SNRQ_TRY(snrq_output_merge(job->output)); /* what groups committed */
    const json_t *before = json_object_get(snrq_output_record(job->output, "rest.h5"), "tuning");
    if (before != NULL) { /* the run before this one replaced the files, and did not end */
        job->tuning = json_incref((json_t *)before);
        return SNRQ_OK;
    }
    snrq_status status = tune(&t);
    snrq_passes_free(&t.passes);
    snrq_tuned_model_free(&t.model);
    snrq_ropes_free(&t.ropes);
    json_decref(t.history);
    free(t.list);
    free(t.kl);
    return status;
}
