/* Reading a run; see run.h. */
#include "pipeline/results/run.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

const char *snrq_round_phase_name(snrq_round_phase phase)
{
    static const char *const names[SNRQ_ROUND_PHASES] = {"gram", "factor", "grid", "search"};
    return names[phase];
}

/* "model.layers.3.mlp.experts.7.w1": layer 3, kind "mlp.experts.w1". */
static void split_name(const char *name, int64_t *layer, char kind[SNRQ_KIND])
{
    size_t used = 0;
    *layer = 0;
    kind[0] = '\0';
    for (int part = 0; *name != '\0'; part++) {
        size_t length = strcspn(name, ".");
        bool numbered = length > 0 && strspn(name, "0123456789") == length;
        if (part == 2 && numbered) *layer = strtoll(name, NULL, 10);
        if (part > 2 && !numbered) {
            int written = snprintf(kind + used, SNRQ_KIND - used, "%s%.*s", used > 0 ? "." : "",
                                   (int)length, name);
            used += written > 0 ? (size_t)written : 0;
            if (used >= SNRQ_KIND) return;
        }
        name += length + (name[length] == '.');
    }
}

static snrq_status read_modules(snrq_run *run)
{
    snrq_module_record *records = NULL;
    SNRQ_TRY(snrq_output_modules(&run->output, &records, &run->modules));
    snrq_status status =
        snrq_allocate((size_t)run->modules, sizeof *run->module, "modules", &run->module);
    for (int64_t m = 0; status == SNRQ_OK && m < run->modules; m++) {
        run->module[m].record = records[m];
        split_name(records[m].name, &run->module[m].layer, run->module[m].kind);
    }
    free(records);
    return status;
}

static void read_manifest(snrq_run *run)
{
    const json_t *record;
    size_t i;
    json_array_foreach(run->output.records, i, record)
    {
        double bytes = number_of(record, "bytes");
        run->committed += json_is_integer(json_object_get(record, "block"));
        if (!isnan(bytes)) run->bytes += bytes;
    }
    const json_t *layers =
        json_object_get(json_object_get(run->output.configuration, "model"), "layers");
    run->blocks = json_is_integer(layers) ? json_integer_value(layers) : run->committed;
}

/* "self_attn.q_proj + k_proj + v_proj" of the names of its modules. */
static void name_unit(const json_t *names, int64_t *layer, char kind[SNRQ_KIND])
{
    const json_t *name;
    size_t i;
    kind[0] = '\0';
    *layer = 0;
    json_array_foreach(names, i, name)
    {
        char one[SNRQ_KIND];
        int64_t of = 0;
        const char *text = json_string_value(name);
        if (text == NULL) continue;
        split_name(text, &of, one);
        const char *dot = strrchr(one, '.');
        size_t used = strlen(kind);
        if (i == 0) *layer = of;
        snprintf(kind + used, SNRQ_KIND - used, "%s%s", i > 0 ? " + " : "",
                 i > 0 && dot != NULL ? dot + 1 : one);
    }
}

static snrq_run_unit read_unit(const json_t *object)
{
    snrq_run_unit u = {0};
    const json_t *times = json_object_get(object, "milliseconds");
    name_unit(json_object_get(object, "modules"), &u.layer, u.kind);
    for (int p = 0; p < SNRQ_ROUND_PHASES; p++) {
        u.milliseconds[p] = number_of(times, snrq_round_phase_name((snrq_round_phase)p));
        if (p != SNRQ_ROUND_GRAM) u.rounding += u.milliseconds[p];
    }
    double input = number_of(object, "input_norm");
    u.peak_memory = number_of(object, "peak_memory_bytes");
    u.mismatch_mean = number_of(object, "mismatch_mean");
    u.mismatch_norm = number_of(object, "mismatch_norm");
    u.mismatch_share = input > 0.0 ? u.mismatch_norm / input : NAN;
    return u;
}

static snrq_status read_groups(snrq_run *run)
{
    json_t *state = NULL;
    const json_t *item;
    size_t i;
    SNRQ_TRY(snrq_output_read_status(run->output.directory, &state));
    const json_t *groups = json_object_get(state, "groups");
    snrq_status status =
        snrq_allocate(json_array_size(groups), sizeof *run->group, "layer groups", &run->group);
    json_array_foreach(groups, i, item)
    {
        if (status != SNRQ_OK) break;
        run->group[run->groups++] = (snrq_run_group){
            .first = (int64_t)json_integer_value(json_object_get(item, "first")),
            .end = (int64_t)json_integer_value(json_object_get(item, "end")),
            .committed = (int64_t)json_integer_value(json_object_get(item, "committed"))};
    }
    json_decref(state);
    return status;
}

static void add_group_seconds(snrq_run *run, double block, double seconds)
{
    for (int64_t g = 0; g < run->groups && !isnan(seconds); g++)
        if (block >= (double)run->group[g].first && block < (double)run->group[g].end)
            run->group[g].seconds += seconds;
}

static snrq_status add_step(snrq_run *run, const json_t *event)
{
    const json_t *units = json_object_get(event, "units"), *unit;
    size_t i, count = json_array_size(units);
    double seconds = number_of(event, "seconds");
    if (!isnan(seconds)) run->seconds = isnan(run->seconds) ? seconds : run->seconds + seconds;
    add_group_seconds(run, number_of(event, "block"), seconds);
    if (count == 0) return SNRQ_OK;
    snrq_run_unit *more = realloc(run->unit, ((size_t)run->units + count) * sizeof *more);
    if (more == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the units of the log");
    run->unit = more;
    json_array_foreach(units, i, unit) run->unit[run->units++] = read_unit(unit);
    return SNRQ_OK;
}

/* A step that was done again counts as it was done last. *last: numbers of those events by block
 * and name. */
static snrq_status find_steps(const json_t *events, json_t **last)
{
    const json_t *event;
    size_t i;
    int failed = 0;
    *last = json_object();
    json_array_foreach(events, i, event)
    {
        char key[160];
        if (strcmp(text_of(event, "event"), "stage") != 0) continue;
        snprintf(key, sizeof key, "%.0f %s", number_of(event, "block"), text_of(event, "stage"));
        failed |= json_object_set_new(*last, key, json_integer((json_int_t)i));
    }
    return *last != NULL && failed == 0 ? SNRQ_OK
                                        : snrq_fail(SNRQ_INTERNAL, "no memory for the log");
}

static snrq_status read_steps(snrq_run *run, const json_t *events)
{
    json_t *last = NULL;
    const json_t *event;
    size_t i;
    snrq_status status = find_steps(events, &last);
    json_array_foreach(events, i, event)
    {
        char key[160];
        if (status != SNRQ_OK || strcmp(text_of(event, "event"), "stage") != 0) continue;
        snprintf(key, sizeof key, "%.0f %s", number_of(event, "block"), text_of(event, "stage"));
        if (json_integer_value(json_object_get(last, key)) == (json_int_t)i)
            status = add_step(run, event);
    }
    json_decref(last);
    return status;
}

static void add_phase(snrq_run *run, const char *name, const json_t *phase)
{
    int p = 0;
    while (p < run->phases && strcmp(run->phase[p].name, name) != 0) p++;
    if (p == SNRQ_RUN_PHASES) return;
    if (p == run->phases) run->phases++;
    snprintf(run->phase[p].name, sizeof run->phase[p].name, "%s", name);
    run->phase[p].min += number_of(phase, "min");
    run->phase[p].mean += number_of(phase, "mean");
    run->phase[p].max += number_of(phase, "max");
}

static void add_timers(snrq_run *run, const json_t *event)
{
    const char *name;
    json_t *phase;
    run->timed++;
    run->peak_memory = fmax(run->peak_memory, number_of(event, "peak_memory_bytes"));
    json_object_foreach(json_object_get(event, "phases"), name, phase) add_phase(run, name, phase);
}

static snrq_status read_log(snrq_run *run)
{
    json_t *events = NULL;
    const json_t *event;
    size_t i;
    SNRQ_TRY(snrq_output_read_events(run->output.directory, &events));
    json_array_foreach(events, i, event)
    {
        const char *kind = text_of(event, "event");
        if (strcmp(kind, "timers") == 0) add_timers(run, event);
        if (strcmp(kind, "start") != 0) continue;
        run->starts++;
        run->ranks = number_of(event, "ranks");
        run->threads = number_of(event, "threads");
        run->nodes = number_of(event, "nodes");
    }
    snrq_status status = read_steps(run, events);
    json_decref(events);
    return status;
}

snrq_status snrq_run_read(const char *directory, snrq_run *run)
{
    *run =
        (snrq_run){.seconds = NAN, .peak_memory = NAN, .ranks = NAN, .threads = NAN, .nodes = NAN};
    SNRQ_TRY(snrq_output_read(directory, &run->output));
    read_manifest(run);
    SNRQ_TRY(read_modules(run));
    SNRQ_TRY(read_groups(run));
    return read_log(run);
}

void snrq_run_free(snrq_run *run)
{
    snrq_output_facts_free(&run->output);
    free(run->module);
    free(run->unit);
    free(run->group);
    *run = (snrq_run){0};
}
