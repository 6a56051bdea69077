/* Progress lines, records and timers; see report.h. */
#include "pipeline/report.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/checkpoint/block_file.h"
#include "io/json.h"
#include "mpi/algebra/blas.h"
#include "mpi/algebra/kernels.h"
#include "mpi/log.h"
#include "pipeline/model/model.h"
#include "pipeline/rounding/rounding.h"

enum { SECONDS_BETWEEN_LINES = 5 }; /* of the backward pass */

static double seconds_left(const snrq_progress *p)
{
    double here = p->done - p->replayed, elapsed = snrq_now() - p->started;
    return here > 0 ? elapsed * (p->total - p->done) / here : 0;
}

/* What was heard of each group, for status.json. */
static json_t *groups_json(const snrq_progress *p)
{
    json_t *list = json_array();
    for (int k = 0; k < p->groups->count; k++) {
        const snrq_group_progress *g = &p->group[k];
        json_t *group =
            json_pack("{s:I, s:I, s:I}", "first", (json_int_t)p->groups->first[k], "end",
                      (json_int_t)p->groups->first[k + 1], "committed", (json_int_t)g->committed);
        if (g->block >= 0) {
            json_object_set_new(group, "block", json_integer((json_int_t)g->block));
            json_object_set_new(group, "stage", json_string(g->stage));
        }
        json_array_append_new(list, group);
    }
    return list;
}

/* Replaces status.json; `more` is taken over. */
static void put_status(const snrq_progress *p, snrq_output *output, const char *state, json_t *more)
{
    double seconds = snrq_now() - p->started, here = p->done - p->replayed;
    double rate = seconds > 0 ? here / p->total * (double)p->blocks / seconds * 3600.0 : 0.0;
    json_t *status = json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f}", "state", state, "blocks",
                               (json_int_t)p->blocks, "committed", (json_int_t)p->committed, "done",
                               p->done / p->total, "seconds", seconds, "seconds_left",
                               seconds_left(p), "blocks_per_hour", rate);
    if (status != NULL && p->groups->count > 1)
        json_object_set_new(status, "groups", groups_json(p));
    if (status != NULL && more != NULL) json_object_update(status, more);
    snrq_output_status(output, status);
    json_decref(status);
    json_decref(more);
}

/* The date as well, for logs of several days. */
static void say_start(const snrq_progress *p)
{
    const time_t now = time(NULL);
    struct tm at;
    char date[32] = "";
    if (localtime_r(&now, &at) != NULL) strftime(date, sizeof date, "%Y-%m-%d, UTC%z", &at);
    snrq_note_timed(p->context, "start of the run on %s: %lld of %lld blocks are committed", date,
                    (long long)p->committed, (long long)p->blocks);
}

/* The blocks that an earlier run committed, of each group and of all. */
static void count_committed(snrq_progress *p, const snrq_output *output)
{
    char name[32];
    for (int k = 0; k < p->groups->count; k++) p->group[k].block = -1;
    for (int64_t block = 0; block < p->blocks; block++) {
        snrq_block_file_name(block, name);
        if (snrq_output_record(output, name) == NULL) continue;
        p->committed++;
        p->group[snrq_layer_groups_of_block(p->groups, block)].committed++;
    }
}

snrq_status snrq_progress_start(const snrq_context *context, snrq_output *output, int units,
                                const snrq_layer_groups *groups, snrq_mail *mail, double total,
                                snrq_progress *out)
{
    const char *job = getenv("SLURM_JOB_ID");
    const int64_t blocks = groups->first[groups->count];
    double now = snrq_now();
    *out = (snrq_progress){.context = context,
                           .groups = groups,
                           .mail = mail,
                           .terminal = isatty(STDERR_FILENO) != 0,
                           .blocks = blocks,
                           .total = total,
                           .started = now,
                           .step_started = now};
    SNRQ_TRY(
        snrq_allocate((size_t)units, sizeof *out->told_few_tokens, "units", &out->told_few_tokens));
    SNRQ_TRY(snrq_allocate((size_t)groups->count, sizeof *out->group, "layer groups", &out->group));
    count_committed(out, output);
    json_t *event =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:s, s:s, s:s*}", "event", "start",
                  "version", SNRQ_VERSION, "ranks", context->size, "nodes", context->nodes,
                  "threads", omp_get_max_threads(), "layer_groups", groups->count, "blocks",
                  (json_int_t)blocks, "committed", (json_int_t)out->committed, "instructions",
                  snrq_kernels_name(), "blas_kernels", snrq_blas_kernels(), "job", job);
    snrq_output_event(output, event);
    json_decref(event);
    put_status(out, output, "starting", NULL);
    say_start(out);
    return SNRQ_OK;
}

void snrq_progress_free(snrq_progress *p)
{
    free(p->told_few_tokens);
    free(p->group);
    p->told_few_tokens = NULL;
    p->group = NULL;
}

/* ---- what groups tell ---- */

/* Facts of an event that the log does not need are under this key. */
static const char unlogged_key[] = "unlogged";

static double number_in(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text_in(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static void log_event(snrq_output *output, json_t *event)
{
    json_object_del(event, unlogged_key);
    snrq_output_event(output, event);
}

static void hear_step(snrq_progress *p, snrq_output *output, json_t *event)
{
    const json_t *modules = json_object_get(event, "modules"), *module;
    int64_t layer = (int64_t)number_in(event, "block");
    const char *stage = text_in(event, "stage");
    snrq_group_progress *group = &p->group[snrq_layer_groups_of_block(p->groups, layer)];
    double objective = 0.0, worst = 0.0;
    char left[32], time[SNRQ_TIME_TEXT];
    size_t i;
    p->done += number_in(json_object_get(event, unlogged_key), "work");
    group->block = layer;
    snprintf(group->stage, sizeof group->stage, "%s", stage);
    json_array_foreach((json_t *)modules, i, module)
    {
        objective += number_in(module, "objective");
        worst = fmax(worst, number_in(module, "output_error"));
    }
    snrq_clock_text(seconds_left(p), left, sizeof left);
    snrq_time_text(time);
    fprintf(stderr,
            "%s%s block %lld/%lld  %-8s objective %-11.5g output error %5.2f %%  alpha %.3f  %.2f "
            "s  left "
            "%s%s",
            p->terminal ? "\r" : "", time, (long long)layer + 1, (long long)p->blocks, stage,
            objective, 100.0 * worst, number_in(json_array_get(modules, 0), "alpha"),
            number_in(event, "seconds"), left, p->terminal ? "   " : "\n");
    if (p->terminal && p->done >= p->total) fputc('\n', stderr);
    json_object_set_new(event, "seconds_left", json_real(seconds_left(p)));
    log_event(output, event);
    put_status(p, output, "running",
               json_pack("{s:I, s:s}", "block", (json_int_t)layer, "stage", stage));
}

static void hear_trouble(snrq_progress *p, snrq_output *output, json_t *event)
{
    char time[SNRQ_TIME_TEXT];
    int unit = (int)number_in(json_object_get(event, unlogged_key), "unit");
    bool few = strcmp(text_in(event, "trouble"), snrq_trouble_name(SNRQ_FEW_TOKENS)) == 0;
    log_event(output, event);
    /* As many tokens are too few in every block, and not many more for another expert. */
    if (few && p->told_few_tokens[unit]) return;
    p->told_few_tokens[unit] |= few;
    snrq_time_text(time);
    fprintf(stderr, "%s%s warning: %s%s\n", p->terminal ? "\n" : "", time,
            text_in(event, "message"), few ? " (said once, not for every block or expert)" : "");
}

static void hear_earlier_work(snrq_progress *p, const json_t *event, const char *what)
{
    p->done += number_in(event, "work");
    p->replayed += number_in(event, "work");
    snrq_note_timed(p->context, "block %.0f/%lld  committed earlier, %s",
                    number_in(event, "block") + 1.0, (long long)p->blocks, what);
}

static void hear_coverage(const snrq_progress *p, snrq_output *output, json_t *event)
{
    const double topped_up = number_in(event, "topped_up");
    char more[96] = "";
    if (topped_up > 0.0)
        snprintf(more, sizeof more, "; %.0f topped up%s", topped_up,
                 number_in(event, "short_of") > 0.0 ? ", with all there are" : "");
    snrq_note_timed(p->context,
                    "block %.0f/%lld  experts are sent %.0f to %.0f of %.0f tokens, half of them "
                    "%.0f or more%s",
                    number_in(event, "block") + 1.0, (long long)p->blocks,
                    number_in(event, "least"), number_in(event, "most"), number_in(event, "tokens"),
                    number_in(event, "median"), more);
    log_event(output, event);
}

static void hear_commit(snrq_progress *p, snrq_output *output, int64_t layer)
{
    p->committed++;
    p->group[snrq_layer_groups_of_block(p->groups, layer)].committed++;
    put_status(p, output, "running", json_pack("{s:I}", "block", (json_int_t)layer));
}

static void hear(snrq_progress *p, snrq_output *output, json_t *event)
{
    const char *kind = text_in(event, "event");
    if (strcmp(kind, "experts") == 0)
        hear_coverage(p, output, event);
    else if (strcmp(kind, "stage") == 0)
        hear_step(p, output, event);
    else if (strcmp(kind, "warning") == 0)
        hear_trouble(p, output, event);
    else if (strcmp(kind, "replayed") == 0)
        hear_earlier_work(p, event, "replayed");
    else if (strcmp(kind, "read") == 0)
        hear_earlier_work(p, event, "activations read");
    else if (strcmp(kind, "committed") == 0)
        hear_commit(p, output, (int64_t)number_in(event, "block"));
    else
        log_event(output, event);
}

void snrq_progress_hear(snrq_progress *p, snrq_output *output, const char *text)
{
    json_t *event = NULL;
    if (snrq_json_parse("a group's event", text, strlen(text), &event) == SNRQ_OK)
        hear(p, output, event);
    else
        snrq_note(p->context, "warning: %s", snrq_error_message());
    json_decref(event);
}

static bool leads(const snrq_progress *p)
{
    return p->groups->context->rank == 0;
}

void snrq_progress_event(snrq_progress *p, snrq_output *output, json_t *event)
{
    char *text = NULL;
    snrq_status status = SNRQ_OK;
    if (leads(p) && p->context->rank == 0) {
        hear(p, output, event);
    } else if (leads(p)) {
        text = json_dumps(event, JSON_COMPACT);
        status = text != NULL ? snrq_mail_send(p->mail, 0, SNRQ_LETTER_EVENT, text)
                              : snrq_fail(SNRQ_INTERNAL, "no memory for an event");
    }
    if (status != SNRQ_OK) snrq_note_here("warning: %s", snrq_error_message());
    free(text);
    json_decref(event);
}

/* Milliseconds by phase; a unit is no matter of the other phases. */
static json_t *unit_json(const snrq_family *f, int unit, const snrq_module_record *records,
                         const snrq_unit_measures *measures)
{
    static const int phases[] = {SNRQ_PHASE_GRAM, SNRQ_PHASE_FACTOR, SNRQ_PHASE_GRID,
                                 SNRQ_PHASE_SEARCH};
    json_t *modules = json_array(), *times = json_object();
    for (int m = f->unit[unit].first; m < f->unit[unit].end; m++)
        json_array_append_new(modules, json_string(records[m].name));
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
        json_object_set_new(times, snrq_phase_name(phases[i]),
                            json_real(1000.0 * measures->seconds[phases[i]]));
    return json_pack("{s:o, s:o, s:f, s:f, s:f, s:f}", "modules", modules, "milliseconds", times,
                     "peak_memory_bytes", measures->peak_memory, "mismatch_mean",
                     measures->mismatch.mean, "mismatch_norm", measures->mismatch.norm,
                     "input_norm", measures->mismatch.input_norm);
}

void snrq_progress_coverage(snrq_progress *p, snrq_output *output, int64_t layer,
                            const snrq_coverage *c)
{
    if (!leads(p)) return;
    snrq_progress_event(p, output,
                        json_pack("{s:s, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:I}", "event",
                                  "experts", "block", (json_int_t)layer, "experts", c->experts,
                                  "tokens", (json_int_t)c->tokens, "least", (json_int_t)c->least,
                                  "median", (json_int_t)c->median, "most", (json_int_t)c->most,
                                  "topped_up", (json_int_t)c->topped_up, "short_of",
                                  (json_int_t)c->short_of));
}

void snrq_progress_step(snrq_progress *p, snrq_output *output, const snrq_family *f, int64_t layer,
                        int step, double work, const snrq_module_record *records,
                        const snrq_unit_measures *measures)
{
    double now = snrq_now(), seconds = now - p->step_started;
    int first, end;
    p->step_started = now;
    if (!leads(p)) return;
    json_t *modules = json_array(), *units = json_array();
    snrq_step_modules(f, step, &first, &end);
    for (int m = first; m < end; m++)
        if (records[m].bits > 0) /* else it is kept */
            json_array_append_new(modules, snrq_module_record_json(&records[m]));
    for (int u = f->step[step].first; u < f->step[step].end; u++)
        if (records[f->unit[u].first].bits > 0)
            json_array_append_new(units, unit_json(f, u, records, &measures[u]));
    snrq_progress_event(p, output,
                        json_pack("{s:s, s:I, s:s, s:f, s:o, s:o, s:{s:f}}", "event", "stage",
                                  "block", (json_int_t)layer, "stage", f->step[step].name,
                                  "seconds", seconds, "modules", modules, "units", units,
                                  unlogged_key, "work", work));
}

void snrq_progress_pass(snrq_progress *p, snrq_output *output, const char *direction, int64_t layer,
                        double work)
{
    const double now = snrq_now();
    char left[32];
    p->done += work;
    p->step_started = now;
    if (p->context->rank != 0) return;
    put_status(p, output, "running",
               json_pack("{s:I, s:s}", "block", (json_int_t)layer, "stage", "backward pass"));
    if (now - p->told < SECONDS_BETWEEN_LINES) return;
    p->told = now;
    snrq_clock_text(seconds_left(p), left, sizeof left);
    snrq_note_timed(p->context, "backward pass: %s through block %lld/%lld  left %s", direction,
                    (long long)layer + 1, (long long)p->blocks, left);
}

void snrq_progress_passed(snrq_progress *p, snrq_output *output, int64_t tokens, double loss,
                          double seconds)
{
    json_t *event = json_pack("{s:s, s:I, s:f, s:f}", "event", "sensitivity", "tokens",
                              (json_int_t)tokens, "label_loss", loss, "seconds", seconds);
    snrq_output_event(output, event);
    json_decref(event);
    snrq_note_timed(p->context, "backward pass: done in %.1f s, loss of the drawn labels %.4f",
                    seconds, loss);
}

static json_t *trouble_event(const snrq_family *f, int64_t layer, int part, const snrq_trouble *t,
                             const char *text)
{
    const int unit = f->part[part].unit;
    const snrq_step *step = &f->step[f->unit[unit].step];
    const int told_as = f->unit[unit].expert >= 0 ? step->first : unit;
    json_t *modules = json_array();
    for (int m = 0; m < t->modules; m++) {
        char name[SNRQ_MODULES_NAME];
        snrq_module_name(layer, f->module[f->part[part].first + t->first_module + m].name, name,
                         sizeof name);
        json_array_append_new(modules, json_string(name));
    }
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:I, s:I, s:I, s:s, s:{s:i}}", "event", "warning",
                     "trouble", snrq_trouble_name(t->kind), "block", (json_int_t)layer, "stage",
                     step->name, "modules", modules, "count", (json_int_t)t->count, "of",
                     (json_int_t)t->of, "first", (json_int_t)t->first, "message", text,
                     unlogged_key, "unit", told_as);
}

void snrq_progress_troubles(snrq_progress *p, snrq_output *output, const snrq_family *f,
                            int64_t layer, int part, snrq_dtype scale_type,
                            const snrq_trouble_list *list)
{
    char text[512];
    for (int i = 0; i < list->count && leads(p); i++) {
        snrq_trouble_text(&list->trouble[i], scale_type, text, sizeof text);
        snrq_progress_event(p, output, trouble_event(f, layer, part, &list->trouble[i], text));
    }
}

void snrq_progress_committed(snrq_progress *p, snrq_output *output, int64_t layer)
{
    snrq_progress_event(p, output,
                        json_pack("{s:s, s:I}", "event", "committed", "block", (json_int_t)layer));
}

void snrq_progress_read(snrq_progress *p, snrq_output *output, int64_t blocks, double work)
{
    p->step_started = snrq_now();
    snrq_progress_event(p, output,
                        json_pack("{s:s, s:I, s:f}", "event", "read", "block",
                                  (json_int_t)blocks - 1, "work", work));
}

void snrq_progress_replayed(snrq_progress *p, snrq_output *output, int64_t layer, double work)
{
    p->step_started = snrq_now();
    snrq_progress_event(p, output,
                        json_pack("{s:s, s:I, s:f}", "event", "replayed", "block",
                                  (json_int_t)layer, "work", work));
}

void snrq_progress_tuning(const snrq_progress *p, snrq_output *output,
                          const snrq_tuning_progress *t)
{
    char left[32];
    json_t *facts = json_pack("{s:I, s:I, s:I, s:f, s:f}", "epoch", (json_int_t)t->epoch, "epochs",
                              (json_int_t)t->epochs, "best", (json_int_t)t->best, "held_out_kl",
                              t->held_out, "seconds_left", t->seconds_left);
    snrq_clock_text(t->seconds_left, left, sizeof left);
    if (t->epoch == 0)
        snrq_note_timed(p->context, "tuning: KL on held-out windows is %.4f", t->held_out);
    else
        snrq_note_timed(p->context, "tuning %lld/%lld  KL %.4f, held out %.4f%s  %.2f s  left %s",
                        (long long)t->epoch, (long long)t->epochs, t->fitted, t->held_out,
                        t->best == t->epoch ? ", the best so far" : "", t->seconds, left);
    put_status(p, output, "tuning", json_pack("{s:O}", "tuning", facts));
    json_object_set_new(facts, "event", json_string("tuning"));
    json_object_set_new(facts, "seconds", json_real(t->seconds));
    if (t->epoch > 0) json_object_set_new(facts, "kl", json_real(t->fitted));
    snrq_output_event(output, facts);
    json_decref(facts);
}

void snrq_progress_end(const snrq_progress *p, snrq_output *output, snrq_status status)
{
    const char *state = status == SNRQ_OK        ? "complete"
                        : status == SNRQ_STOPPED ? "stopped"
                                                 : "failed";
    const char *message = status == SNRQ_OK ? NULL : snrq_error_message();
    json_t *event = json_pack("{s:s, s:s, s:i, s:I, s:o*}", "event", "end", "state", state,
                              "exit_code", (int)status, "committed", (json_int_t)p->committed,
                              "message", message != NULL ? snrq_json_text(message) : NULL);
    snrq_output_event(output, event);
    json_decref(event);
    if (p->context->rank == 0 && p->terminal && p->done < p->total) fputc('\n', stderr);
    snrq_note_timed(p->context, "end of the run: %s, %lld of %lld blocks are committed", state,
                    (long long)p->committed, (long long)p->blocks);
    put_status(p, output, state,
               json_pack("{s:o*}", "message", message != NULL ? snrq_json_text(message) : NULL));
}

static json_t *timers_event(const snrq_phase_report *report, int rows, double total, double memory)
{
    json_t *phases = json_object();
    for (int i = 0; i < rows; i++)
        json_object_set_new(phases, snrq_phase_name(i),
                            json_pack("{s:f, s:f, s:f, s:i}", "min", report[i].min, "mean",
                                      report[i].mean, "max", report[i].max, "slowest_rank",
                                      report[i].slowest));
    return json_pack("{s:s, s:f, s:f, s:f, s:o}", "event", "timers", "seconds", total, "rest_share",
                     total > 0 ? report[rows - 1].mean / total : 0.0, "peak_memory_bytes", memory,
                     "phases", phases);
}

snrq_status snrq_report_timers(const snrq_context *c, const snrq_timers *timers,
                               snrq_output *output)
{
    snrq_phase_report report[SNRQ_MAX_PHASES + 1];
    double total = 0, memory = snrq_peak_memory();
    SNRQ_TRY(snrq_timers_report(c, timers, report, &total));
    SNRQ_TRY(snrq_max_double(c, &memory, 1));
    if (c->rank != 0) return SNRQ_OK;
    fprintf(stderr, "\n%-8s %9s %9s %9s  %-12s %9s  %s\n", "phase", "min s", "mean s", "max s",
            "slowest rank", "max/mean", "share");
    for (int i = 0; i <= timers->phases; i++)
        fprintf(stderr, "%-8s %9.2f %9.2f %9.2f  %-12d %9.2f  %4.1f %%\n", snrq_phase_name(i),
                report[i].min, report[i].mean, report[i].max, report[i].slowest,
                report[i].mean > 0 ? report[i].max / report[i].mean : 1.0,
                total > 0 ? 100.0 * report[i].mean / total : 0.0);
    fprintf(stderr, "%.2f s in all, peak memory %.0f MB per rank, %d rank%s\n", total, memory / 1e6,
            c->size, c->size == 1 ? "" : "s");
    json_t *event = timers_event(report, timers->phases + 1, total, memory);
    snrq_output_event(output, event);
    json_decref(event);
    return SNRQ_OK;
}
