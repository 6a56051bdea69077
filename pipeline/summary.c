/* The last screen of a run; see summary.h. */
#include "pipeline/summary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/reader.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "mpi/timers.h"

enum { WORST = 5 };

/* Held-out errors of so much more than those on the calibration text are worth a warning. */
static const double MOST_HELD_OUT = 1.25;

/* Figures of one kind of module ("mlp.down_proj") over all blocks. */
typedef struct kind_row {
    char name[sizeof((snrq_module_record *)NULL)->name];
    int count;
    double output_sum, output_most, model_sum, model_most, held_out_sum;
} kind_row;

typedef struct summary {
    snrq_module_record *modules; /* [count] owned */
    int64_t count;
    kind_row *kind; /* [count] owned; [kinds] are in use */
    int kinds, worsts;
    const snrq_module_record *worst[WORST]; /* by falling model_error */
    double predicted;                       /* loss of all modules, in nats per token */
    int damped;                             /* modules whose damping was raised */
    int64_t starts;
    json_t *tuning;   /* of the last record, or NULL; owned */
    json_t *troubles; /* {"dead_inputs": modules, ...}; owned */
} summary;

/* "mlp.down_proj" of "model.layers.3.mlp.down_proj"; "mlp.experts.*.down_proj" of all experts. */
static void kind_of(const snrq_module_record *module, char *out, size_t size)
{
    static const char experts[] = "experts.";
    const char *below = module->name;
    int dots = 0;
    for (const char *at = module->name; dots < 3 && *at != '\0'; at++)
        if (*at == '.' && ++dots == 3) below = at + 1;
    const char *number = strstr(below, experts);
    if (number != NULL) number += sizeof experts - 1;
    if (number != NULL && *number >= '0' && *number <= '9')
        snprintf(out, size, "%.*s*%s", (int)(number - below), below,
                 number + strspn(number, "0123456789"));
    else
        snprintf(out, size, "%s", below);
}

static void add_kind(summary *s, const snrq_module_record *module)
{
    char name[sizeof s->kind->name];
    int k = 0;
    kind_of(module, name, sizeof name);
    while (k < s->kinds && strcmp(s->kind[k].name, name) != 0) k++;
    if (k == s->kinds) memcpy(s->kind[s->kinds++].name, name, sizeof name);
    kind_row *row = &s->kind[k];
    row->count++;
    row->output_sum += module->output_error;
    row->model_sum += module->model_error;
    row->held_out_sum += module->held_out_error;
    row->output_most = fmax(row->output_most, module->output_error);
    row->model_most = fmax(row->model_most, module->model_error);
}

static void add_worst(summary *s, const snrq_module_record *module)
{
    int at = s->worsts;
    while (at > 0 && s->worst[at - 1]->model_error < module->model_error) at--;
    if (at == WORST) return;
    if (s->worsts < WORST) s->worsts++;
    for (int i = s->worsts - 1; i > at; i--) s->worst[i] = s->worst[i - 1];
    s->worst[at] = module;
}

static snrq_status read_modules(const char *directory, summary *s)
{
    snrq_output_facts output;
    snrq_status status = snrq_output_read(directory, &output);
    if (status == SNRQ_OK) status = snrq_output_modules(&output, &s->modules, &s->count);
    const json_t *last = json_array_get(output.records, json_array_size(output.records) - 1);
    s->tuning = json_incref(json_object_get(last, "tuning"));
    snrq_output_facts_free(&output);
    SNRQ_TRY(status);
    SNRQ_TRY(snrq_allocate((size_t)s->count, sizeof *s->kind, "kinds of modules", &s->kind));
    for (int64_t i = 0; i < s->count; i++) {
        s->damped += s->modules[i].damping_attempts > 1;
        s->predicted += s->modules[i].predicted_loss;
        add_kind(s, &s->modules[i]);
        add_worst(s, &s->modules[i]);
    }
    return SNRQ_OK;
}

/* How the calibration tokens were spread over the experts, of all blocks together. */
static void print_experts(const summary *s)
{
    int64_t experts = 0, least = INT64_MAX, most = 0, topped_up = 0;
    for (int64_t i = 0; i < s->count; i++) {
        const snrq_module_record *m = &s->modules[i];
        if (strstr(m->name, ".experts.") == NULL) continue;
        experts++;
        least = m->tokens_sent < least ? m->tokens_sent : least;
        most = m->tokens_sent > most ? m->tokens_sent : most;
        topped_up += m->tokens > m->tokens_sent;
    }
    if (experts == 0) return;
    fprintf(stderr, "experts    were sent %lld to %lld tokens", (long long)least, (long long)most);
    if (topped_up > 0)
        fprintf(stderr, "; %lld of %lld modules were topped up, more --sequences would help",
                (long long)topped_up, (long long)experts);
    fputc('\n', stderr);
}

/* How many modules are of each format, where there are formats. */
static void print_formats(const summary *s)
{
    bool any = false;
    for (int f = 0; f < SNRQ_WEIGHT_FORMATS; f++) {
        int64_t count = 0;
        for (int64_t i = 0; i < s->count; i++)
            count += snrq_module_record_format(&s->modules[i]) == &snrq_weight_formats[f];
        if (count > 0)
            fprintf(stderr, "%s%lld module%s %s", any ? ", " : "formats    ", (long long)count,
                    count == 1 ? "" : "s", snrq_weight_formats[f].name);
        any = any || count > 0;
    }
    if (any) fputc('\n', stderr);
}

/* KL on the held-out windows, before and after. */
static void print_tuning(const summary *s)
{
    const json_t *epochs = json_object_get(s->tuning, "kl");
    const json_int_t best = json_integer_value(json_object_get(s->tuning, "best"));
    const double before = json_number_value(json_object_get(json_array_get(epochs, 0), "held_out"));
    const double after =
        json_number_value(json_object_get(json_array_get(epochs, (size_t)best), "held_out"));
    if (s->tuning == NULL) return;
    if (best == 0)
        fprintf(stderr, "tuning     did not lower KL on held-out windows, %.4f: all is as it was\n",
                before);
    else
        fprintf(stderr,
                "tuning     KL on held-out windows from %.4f to %.4f, after epoch %lld; the errors "
                "above are from before\n",
                before, after, (long long)best);
}

static void print_summary(const summary *s)
{
    double fitted = 0.0, held_out = 0.0;
    fprintf(stderr, "\n%-30s %7s  %21s  %21s  %10s\n", "kind of module", "modules",
            "output error % mean/max", "model error % mean/max", "held out %");
    for (int k = 0; k < s->kinds; k++) {
        const kind_row *r = &s->kind[k];
        fprintf(stderr, "%-30s %7d  %12.2f %10.2f  %11.2f %10.2f  ", r->name, r->count,
                100.0 * r->output_sum / r->count, 100.0 * r->output_most,
                100.0 * r->model_sum / r->count, 100.0 * r->model_most);
        if (r->held_out_sum > 0.0)
            fprintf(stderr, "%10.2f\n", 100.0 * r->held_out_sum / r->count);
        else
            fprintf(stderr, "%10s\n", "-");
        fitted += r->model_sum;
        held_out += r->held_out_sum;
    }
    if (held_out > MOST_HELD_OUT * fitted)
        fprintf(
            stderr,
            "warning: on text that nothing was fitted to, model errors are %.2f %% in the mean, "
            "%.2f %% on the calibration text: more --sequences would help\n",
            100.0 * held_out / (double)s->count, 100.0 * fitted / (double)s->count);
    print_experts(s);
    if (s->predicted > 0.0)
        fprintf(stderr, "predicted  %.4g nats per token lost by the errors of all modules\n",
                s->predicted);
    fputs("worst five ", stderr);
    for (int i = 0; i < s->worsts; i++)
        fprintf(stderr, "%s %s (%.2f %%)", i > 0 ? "," : "", s->worst[i]->name,
                100.0 * s->worst[i]->model_error);
    fputc('\n', stderr);
    const char *trouble;
    json_t *modules;
    json_object_foreach(s->troubles, trouble, modules)
    {
        long long count = json_integer_value(modules);
        fprintf(stderr, "numerical trouble: %s in %lld module%s: see the warnings in run.jsonl\n",
                trouble, count, count == 1 ? "" : "s");
    }
}

static json_t *summary_event(const summary *s, double megabytes, double minutes)
{
    json_t *kinds = json_object(), *worst = json_array();
    for (int k = 0; k < s->kinds; k++) {
        const kind_row *r = &s->kind[k];
        json_object_set_new(kinds, r->name,
                            json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "modules", r->count,
                                      "output_error_mean", r->output_sum / r->count,
                                      "output_error_max", r->output_most, "model_error_mean",
                                      r->model_sum / r->count, "model_error_max", r->model_most,
                                      "held_out_error_mean", r->held_out_sum / r->count));
    }
    for (int i = 0; i < s->worsts; i++)
        json_array_append_new(worst, json_string(s->worst[i]->name));
    return json_pack("{s:s, s:I, s:f, s:i, s:I, s:O, s:o, s:o, s:{s:f, s:f}}", "event", "summary",
                     "modules", (json_int_t)s->count, "predicted_loss", s->predicted,
                     "damping_raised", s->damped, "starts", (json_int_t)s->starts, "troubles",
                     s->troubles, "kinds", kinds, "worst", worst, "advice", "node_megabytes",
                     megabytes, "minutes", minutes);
}

/* Counts the modules of a warning. A block that was begun twice warned twice of its modules. */
static void count_trouble(const json_t *event, json_t *seen, json_t *troubles)
{
    const char *trouble = json_string_value(json_object_get(event, "trouble"));
    const json_t *name;
    size_t i;
    char key[256];
    if (trouble == NULL) return;
    json_array_foreach(json_object_get(event, "modules"), i, name)
    {
        if (!json_is_string(name)) continue;
        snprintf(key, sizeof key, "%s %s", trouble, json_string_value(name));
        if (json_object_get(seen, key) != NULL) continue;
        json_object_set_new(seen, key, json_true());
        json_int_t count = json_integer_value(json_object_get(troubles, trouble));
        json_object_set_new(troubles, trouble, json_integer(count + 1));
    }
}

static snrq_status read_log(const char *directory, summary *s)
{
    json_t *events = NULL, *seen = json_object();
    const json_t *event;
    size_t i;
    snrq_status status = snrq_output_read_events(directory, &events);
    s->troubles = json_object();
    json_array_foreach(events, i, event)
    {
        const char *kind = json_string_value(json_object_get(event, "event"));
        s->starts += kind != NULL && strcmp(kind, "start") == 0;
        if (kind != NULL && strcmp(kind, "warning") == 0) count_trouble(event, seen, s->troubles);
    }
    json_decref(events);
    json_decref(seen);
    return status;
}

static void print_advice(const snrq_context *c, const summary *s, double megabytes, double minutes)
{
    fprintf(stderr,
            "started %lld time%s; to ask for next time: --mem=%.0fM --time=%.0f on %d node%s of %d "
            "ranks\n",
            (long long)s->starts, s->starts == 1 ? "" : "s", ceil(megabytes), minutes, c->nodes,
            c->nodes == 1 ? "" : "s", c->node_size);
}

snrq_status snrq_summary(const snrq_context *c, const char *directory, double seconds,
                         snrq_output *output)
{
    summary s = {0};
    double memory = snrq_peak_memory();
    SNRQ_TRY(snrq_max_double(c, &memory, 1));
    if (c->rank != 0) return SNRQ_OK;
    /* A fifth more memory than was used, half as much time again. */
    double megabytes = 1.2 * memory * c->node_size / 1048576.0,
           minutes = ceil(1.5 * seconds / 60.0);
    snrq_status status = read_modules(directory, &s);
    if (status == SNRQ_OK) status = read_log(directory, &s);
    if (status == SNRQ_OK) {
        print_summary(&s);
        print_formats(&s);
        print_tuning(&s);
        print_advice(c, &s, megabytes, minutes);
        json_t *event = summary_event(&s, megabytes, minutes);
        snrq_output_event(output, event);
        json_decref(event);
    } else /* the run itself was complete */
        snrq_note_here("warning: no summary: %s", snrq_error_message());
    free(s.modules);
    free(s.kind);
    json_decref(s.troubles);
    json_decref(s.tuning);
    return SNRQ_OK;
}
