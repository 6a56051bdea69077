/* The last screen of a run; see summary.h. */
#include "pipeline/summary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"
#include "mpi/timers.h"
#include "pipeline/model/family.h"

enum { WORST = 5 };

/* Figures of one kind of module ("mlp.down_proj") over all blocks. */
typedef struct kind_row {
    const char *name; /* borrowed from the record */
    int count;
    double output_sum, output_most, model_sum, model_most;
} kind_row;

typedef struct summary {
    kind_row *kind; /* [kinds] of room for `modules`; owned */
    int kinds, worsts, modules;
    const json_t *worst[WORST]; /* borrowed, by falling model_error */
    int damped;                 /* modules whose damping was raised */
    int64_t starts;
    json_t *troubles; /* {"dead_inputs": modules, ...}; owned */
} summary;

static double number(const json_t *module, const char *key)
{
    return json_number_value(json_object_get(module, key));
}

static const char *name_of(const json_t *module)
{
    const char *name = json_string_value(json_object_get(module, "name"));
    return name != NULL ? name : "?";
}

/* "mlp.down_proj" of "model.layers.3.mlp.down_proj". */
static const char *kind_of(const json_t *module)
{
    const char *name = name_of(module);
    int dots = 0;
    for (const char *at = name; *at != '\0'; at++)
        if (*at == '.' && ++dots == 3) return at + 1;
    return name;
}

static void add_kind(summary *s, const json_t *module)
{
    const char *name = kind_of(module);
    double output = number(module, "output_error"), model = number(module, "model_error");
    int k = 0;
    while (k < s->kinds && strcmp(s->kind[k].name, name) != 0) k++;
    if (k == s->kinds) s->kind[s->kinds++] = (kind_row){.name = name};
    kind_row *row = &s->kind[k];
    row->count++;
    row->output_sum += output;
    row->model_sum += model;
    row->output_most = fmax(row->output_most, output);
    row->model_most = fmax(row->model_most, model);
}

static void add_worst(summary *s, const json_t *module)
{
    int at = s->worsts;
    while (at > 0 && number(s->worst[at - 1], "model_error") < number(module, "model_error")) at--;
    if (at == WORST) return;
    if (s->worsts < WORST) s->worsts++;
    for (int i = s->worsts - 1; i > at; i--) s->worst[i] = s->worst[i - 1];
    s->worst[at] = module;
}

/* As many kinds as modules at most. */
static snrq_status make_room(const json_t *records, summary *s)
{
    size_t i, most = 0;
    const json_t *record;
    json_array_foreach(records, i, record) most +=
        json_array_size(json_object_get(record, "modules"));
    return snrq_allocate(most, sizeof *s->kind, "kinds of modules", &s->kind);
}

static void collect(const json_t *records, summary *s)
{
    size_t i, j;
    const json_t *record, *module;
    json_array_foreach(records, i, record)
        json_array_foreach(json_object_get(record, "modules"), j, module)
    {
        s->modules++;
        s->damped += number(module, "damping_attempts") > 1;
        add_kind(s, module);
        add_worst(s, module);
    }
}

static void print_summary(const summary *s)
{
    fprintf(stderr, "\n%-24s %7s  %21s  %21s\n", "kind of module", "modules",
            "output error % mean/max", "model error % mean/max");
    for (int k = 0; k < s->kinds; k++) {
        const kind_row *r = &s->kind[k];
        fprintf(stderr, "%-24s %7d  %12.2f %10.2f  %11.2f %10.2f\n", r->name, r->count,
                100.0 * r->output_sum / r->count, 100.0 * r->output_most,
                100.0 * r->model_sum / r->count, 100.0 * r->model_most);
    }
    fputs("worst five ", stderr);
    for (int i = 0; i < s->worsts; i++)
        fprintf(stderr, "%s %s (%.2f %%)", i > 0 ? "," : "", name_of(s->worst[i]),
                100.0 * number(s->worst[i], "model_error"));
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
                            json_pack("{s:i, s:f, s:f, s:f, s:f}", "modules", r->count,
                                      "output_error_mean", r->output_sum / r->count,
                                      "output_error_max", r->output_most, "model_error_mean",
                                      r->model_sum / r->count, "model_error_max", r->model_most));
    }
    for (int i = 0; i < s->worsts; i++)
        json_array_append_new(worst, json_string(name_of(s->worst[i])));
    return json_pack("{s:s, s:i, s:i, s:I, s:O, s:o, s:o, s:{s:f, s:f}}", "event", "summary",
                     "modules", s->modules, "damping_raised", s->damped, "starts",
                     (json_int_t)s->starts, "troubles", s->troubles, "kinds", kinds, "worst", worst,
                     "advice", "node_megabytes", megabytes, "minutes", minutes);
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

snrq_status snrq_summary(const snrq_context *c, const char *directory, double seconds,
                         snrq_output *output)
{
    summary s = {0};
    json_t *records = NULL;
    double memory = snrq_peak_memory();
    SNRQ_TRY(snrq_max_double(c, &memory, 1));
    if (c->rank != 0) return SNRQ_OK;
    snrq_status status = snrq_output_read_manifest(directory, &records, NULL);
    if (status == SNRQ_OK) status = make_room(records, &s);
    if (status == SNRQ_OK) status = read_log(directory, &s);
    if (status != SNRQ_OK) {
        json_decref(records);
        json_decref(s.troubles);
        free(s.kind);
        fprintf(stderr, "snrq: warning: no summary: %s\n", snrq_error_message());
        return SNRQ_OK; /* the run itself was complete */
    }
    /* A fifth more memory than was used, half as much time again. */
    double megabytes = 1.2 * memory * c->node_size / 1048576.0,
           minutes = ceil(1.5 * seconds / 60.0);
    collect(records, &s);
    print_summary(&s);
    fprintf(stderr,
            "started %lld time%s; to ask for next time: --mem=%.0fM --time=%.0f on %d node%s of %d "
            "ranks\n",
            (long long)s.starts, s.starts == 1 ? "" : "s", ceil(megabytes), minutes, c->nodes,
            c->nodes == 1 ? "" : "s", c->node_size);
    json_t *event = summary_event(&s, megabytes, minutes);
    snrq_output_event(output, event);
    json_decref(event);
    json_decref(records);
    json_decref(s.troubles);
    free(s.kind);
    return SNRQ_OK;
}
