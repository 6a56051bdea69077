/* The report of one run; see run_report.h. */
#include "pipeline/results/run_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/results/option_text.h"

enum { MOST_KINDS = 64 };

/* A figure of a module or of a unit that is shown by layer. */
typedef struct measure {
    const char *name, *title, *axis;
    bool log;
    double (*of_module)(const snrq_module_record *module);
    double (*of_unit)(const snrq_run_unit *unit);
} measure;

static double objective_of(const snrq_module_record *m)
{
    return m->objective;
}

static double predicted_loss_of(const snrq_module_record *m)
{
    return m->predicted_loss > 0.0 ? m->predicted_loss : NAN;
}

static double output_error_of(const snrq_module_record *m)
{
    return 100.0 * m->output_error;
}

static double model_error_of(const snrq_module_record *m)
{
    return 100.0 * m->model_error;
}

static double alpha_of(const snrq_module_record *m)
{
    return m->alpha;
}

static double clipped_of(const snrq_module_record *m)
{
    return 100.0 * m->clipped;
}

static double largest_of(const snrq_module_record *m)
{
    return m->largest_activation > 0.0 ? m->largest_activation : NAN;
}

static double mismatch_share_of(const snrq_run_unit *u)
{
    return 100.0 * u->mismatch_share;
}

static double mismatch_norm_of(const snrq_run_unit *u)
{
    return u->mismatch_norm;
}

static double mismatch_mean_of(const snrq_run_unit *u)
{
    return u->mismatch_mean;
}

static double rounding_of(const snrq_run_unit *u)
{
    return u->rounding;
}

static const measure measures[] = {
    {"objective", "Objective of the rounding by layer", "tr((Q - R) H (Q - R)')", true,
     objective_of, NULL},
    {"predicted-loss", "Predicted loss of the rounding by layer",
     "tr((Q - R)' G (Q - R) S) / 2, nats per token", true, predicted_loss_of, NULL},
    {"output-error", "Output error by layer", "||W X - Q X|| / ||W X|| in %", false,
     output_error_of, NULL},
    {"model-error", "Error against the full-precision model by layer",
     "||W Xf - Q X|| / ||W Xf|| in %", false, model_error_of, NULL},
    {"alpha", "Regularization strength by layer", "alpha", false, alpha_of, NULL},
    {"largest-activation", "Largest activation by layer", "largest magnitude in X and Q X", true,
     largest_of, NULL},
    {"mismatch-share", "Mismatch of the inputs by layer, relative", "||Xf - X|| / ||Xf|| in %",
     false, NULL, mismatch_share_of},
    {"mismatch-norm", "Mismatch of the inputs by layer, Frobenius norm", "||Xf - X||", true, NULL,
     mismatch_norm_of},
    {"mismatch-mean", "Mismatch of the inputs by layer, mean magnitude", "mean of |Xf - X|", true,
     NULL, mismatch_mean_of},
    {"rounding-time", "Time to round the modules that share an input, by layer",
     "factor, grid and search in ms (rank 0)", false, NULL, rounding_of},
};
enum { MEASURES = sizeof measures / sizeof *measures };

/* Kinds in the order in which they come; borrowed. */
typedef struct kinds {
    const char *name[MOST_KINDS];
    int count;
} kinds;

static void add_kind(kinds *k, const char *name)
{
    for (int i = 0; i < k->count; i++)
        if (strcmp(k->name[i], name) == 0) return;
    if (k->count < MOST_KINDS) k->name[k->count++] = name;
}

static kinds kinds_of_modules(const snrq_run *run)
{
    kinds k = {.count = 0};
    for (int64_t m = 0; m < run->modules; m++) add_kind(&k, run->module[m].kind);
    return k;
}

static kinds kinds_of_units(const snrq_run *run)
{
    kinds k = {.count = 0};
    for (int64_t u = 0; u < run->units; u++) add_kind(&k, run->unit[u].kind);
    return k;
}

/* ---- settings ---- */

static void add_fact(snrq_sheet *s, const char *name, const char *value)
{
    snrq_sheet_text(s, name);
    snrq_sheet_text(s, value);
}

static void add_number_fact(snrq_sheet *s, const char *name, double value, const char *unit)
{
    char text[SNRQ_KIND];
    if (isnan(value)) return;
    snprintf(text, sizeof text, "%.10g%s%s", value, unit[0] != '\0' ? " " : "", unit);
    add_fact(s, name, text);
}

static double to_tenths(double value)
{
    return round(10.0 * value) / 10.0;
}

static void report_settings(const snrq_run *run, snrq_document *d)
{
    snrq_sheet *s = snrq_document_sheet(d, "settings", "Run and settings");
    char text[SNRQ_OPTION_TEXT];
    const char *name;
    json_t *value, *c = run->output.configuration;
    if (s == NULL) return;
    snrq_sheet_column_add(s, "setting", SNRQ_SHEET_TEXT);
    snrq_sheet_column_add(s, "value", SNRQ_SHEET_TEXT);
    snprintf(text, sizeof text, "%lld of %lld", (long long)run->committed, (long long)run->blocks);
    add_fact(s, "state", run->output.complete ? "complete" : "UNFINISHED");
    add_fact(s, "blocks", text);
    add_fact(s, "architecture",
             snrq_option_text(json_object_get(json_object_get(c, "model"), "architecture"), text));
    json_object_foreach(json_object_get(c, "options"), name, value)
        add_fact(s, name, snrq_option_text(value, text));
    add_number_fact(s, "seconds of all steps", to_tenths(run->seconds), "s");
    add_number_fact(s, "starts", (double)run->starts, "");
    add_number_fact(s, "ranks", run->ranks, "");
    add_number_fact(s, "threads per rank", run->threads, "");
    add_number_fact(s, "nodes", run->nodes, "");
    add_number_fact(s, "peak memory per rank", to_tenths(run->peak_memory / 1e6), "MB");
    add_number_fact(s, "committed files", to_tenths(run->bytes / 1e6), "MB");
    snrq_sheet_note(s, "\"-\" is an option without effect in this run.");
}

/* ---- quality ---- */

static void add_extremes(snrq_sheet *s, const snrq_run *run, const char *kind,
                         double (*of)(const snrq_module_record *), bool mean, bool most, int digits)
{
    double sum = 0.0, largest = NAN;
    int64_t count = 0;
    for (int64_t m = 0; m < run->modules; m++) {
        double value = of(&run->module[m].record);
        if (strcmp(run->module[m].kind, kind) != 0 || isnan(value)) continue;
        sum += value;
        count++;
        largest = fmax(largest, value);
    }
    if (mean) snrq_sheet_number(s, count > 0 ? sum / (double)count : NAN, digits);
    if (most) snrq_sheet_number(s, largest, digits);
}

static void report_kinds(const snrq_run *run, snrq_document *d)
{
    static const char *const names[] = {"objective",     "output error %",    "largest output %",
                                        "model error %", "largest model %",   "clipped %",
                                        "alpha",         "largest activation"};
    snrq_sheet *s = snrq_document_sheet(d, "kinds", "Quality by kind of module");
    kinds k = kinds_of_modules(run);
    if (s == NULL) return;
    snrq_sheet_column_add(s, "kind of module", SNRQ_SHEET_TEXT);
    snrq_sheet_column_add(s, "modules", SNRQ_SHEET_NUMBER);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        snrq_sheet_column_add(s, names[i], SNRQ_SHEET_NUMBER);
    for (int i = 0; i < k.count; i++) {
        int64_t count = 0;
        for (int64_t m = 0; m < run->modules; m++)
            count += strcmp(run->module[m].kind, k.name[i]) == 0;
        snrq_sheet_text(s, k.name[i]);
        snrq_sheet_number(s, (double)count, 0);
        add_extremes(s, run, k.name[i], objective_of, true, false, -5);
        add_extremes(s, run, k.name[i], output_error_of, true, true, 2);
        add_extremes(s, run, k.name[i], model_error_of, true, true, 2);
        add_extremes(s, run, k.name[i], clipped_of, true, false, 3);
        add_extremes(s, run, k.name[i], alpha_of, true, false, 3);
        add_extremes(s, run, k.name[i], largest_of, false, true, -4);
    }
    snrq_sheet_note(s, "Means over modules, and the largest errors. Output error: ||W X - Q X|| / "
                       "||W X||, what the rounding of this module "
                       "does; model error: ||W Xf - Q X|| / ||W Xf||, all roundings up to it.");
}

/* ---- cost ---- */

static double mean_of_units(const snrq_run *run, const char *kind, int phase)
{
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t u = 0; u < run->units; u++) {
        if (strcmp(run->unit[u].kind, kind) != 0) continue;
        sum += phase < 0 ? run->unit[u].rounding : run->unit[u].milliseconds[phase];
        count++;
    }
    return count > 0 ? sum / (double)count : NAN;
}

static double most_of_units(const snrq_run *run, const char *kind,
                            double (*of)(const snrq_run_unit *))
{
    double most = NAN;
    for (int64_t u = 0; u < run->units; u++)
        if (strcmp(run->unit[u].kind, kind) == 0) most = fmax(most, of(&run->unit[u]));
    return most;
}

static double peak_of(const snrq_run_unit *u)
{
    return u->peak_memory / 1e6;
}

static void report_units(const snrq_run *run, snrq_document *d)
{
    snrq_sheet *s = snrq_document_sheet(d, "rounding",
                                        "Time and memory to round, by modules that "
                                        "share an input");
    kinds k = kinds_of_units(run);
    char name[SNRQ_KIND];
    if (s == NULL) return;
    snrq_sheet_column_add(s, "modules", SNRQ_SHEET_TEXT);
    for (int i = 0; i < SNRQ_ROUND_PHASES; i++) {
        snprintf(name, sizeof name, "%s ms", snrq_round_phase_name((snrq_round_phase)i));
        snrq_sheet_column_add(s, name, SNRQ_SHEET_NUMBER);
    }
    snrq_sheet_column_add(s, "rounding ms", SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(s, "longest ms", SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(s, "peak memory MB", SNRQ_SHEET_NUMBER);
    for (int i = 0; i < k.count; i++) {
        snrq_sheet_text(s, k.name[i]);
        for (int p = 0; p < SNRQ_ROUND_PHASES; p++)
            snrq_sheet_number(s, mean_of_units(run, k.name[i], p), 1);
        snrq_sheet_number(s, mean_of_units(run, k.name[i], -1), 1);
        snrq_sheet_number(s, most_of_units(run, k.name[i], rounding_of), 1);
        snrq_sheet_number(s, most_of_units(run, k.name[i], peak_of), 1);
    }
    snrq_sheet_note(s, "Means over layers, and the longest. Rounding is factor, grid and search. "
                       "Times and memory are those of rank "
                       "0; peak memory is the largest of the process up to then.");
    if (run->units == 0)
        snrq_sheet_note(s, "run.jsonl has no such times: the run was made by version 0.1.0.");
}

static void report_phases(const snrq_run *run, snrq_document *d)
{
    snrq_picture *p =
        snrq_document_picture(d, "phases", "Time by phase", "phase", "mean over ranks in s");
    if (p != NULL) snrq_picture_series_add(p, "time", SNRQ_PICTURE_BARS);
    for (int i = 0; i < run->phases && p != NULL; i++)
        snrq_picture_bar(p, run->phase[i].name, run->phase[i].mean);
    snrq_sheet *s = snrq_document_sheet(d, "phases-by-rank", "Time by phase, over ranks");
    if (s == NULL) return;
    snrq_sheet_column_add(s, "phase", SNRQ_SHEET_TEXT);
    snrq_sheet_column_add(s, "min s", SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(s, "mean s", SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(s, "max s", SNRQ_SHEET_NUMBER);
    for (int i = 0; i < run->phases; i++) {
        snrq_sheet_text(s, run->phase[i].name);
        snrq_sheet_number(s, run->phase[i].min, 2);
        snrq_sheet_number(s, run->phase[i].mean, 2);
        snrq_sheet_number(s, run->phase[i].max, 2);
    }
    if (run->timed < run->starts)
        snrq_sheet_note(s,
                        "Of %lld starts, %lld ended with a word about their times; the others "
                        "are not in here.",
                        (long long)run->starts, (long long)run->timed);
}

/* Mean and largest model error of the modules in blocks [first, end). */
static void add_model_errors(snrq_sheet *s, const snrq_run *run, int64_t first, int64_t end)
{
    double sum = 0.0, most = NAN;
    int64_t count = 0;
    for (int64_t m = 0; m < run->modules; m++) {
        if (run->module[m].layer < first || run->module[m].layer >= end) continue;
        sum += model_error_of(&run->module[m].record);
        most = fmax(most, model_error_of(&run->module[m].record));
        count++;
    }
    snrq_sheet_number(s, count > 0 ? sum / (double)count : NAN, 2);
    snrq_sheet_number(s, most, 2);
}

static void report_groups(const snrq_run *run, snrq_document *d)
{
    static const char *const numbers[] = {"first block", "last block",    "committed",
                                          "seconds",     "model error %", "largest model %"};
    if (run->groups < 2) return;
    snrq_sheet *s = snrq_document_sheet(d, "layer-groups", "Layer groups");
    if (s == NULL) return;
    snrq_sheet_column_add(s, "group", SNRQ_SHEET_NUMBER);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        snrq_sheet_column_add(s, numbers[i], SNRQ_SHEET_NUMBER);
    for (int64_t g = 0; g < run->groups; g++) {
        const snrq_run_group *group = &run->group[g];
        snrq_sheet_number(s, (double)g + 1.0, 0);
        snrq_sheet_number(s, (double)group->first + 1.0, 0);
        snrq_sheet_number(s, (double)group->end, 0);
        snrq_sheet_number(s, (double)group->committed, 0);
        snrq_sheet_number(s, group->seconds, 1);
        add_model_errors(s, run, group->first, group->end);
    }
    snrq_sheet_note(s, "Groups and blocks are counted from 1. Groups work at the same time, each "
                       "on blocks of its own; seconds are those "
                       "of its steps. Both streams are alike at a group's first block, so its "
                       "model errors leave out those of the groups before.");
}

/* What the manifest says of tuning, or NULL. Borrowed. */
static const json_t *tuning_of(const snrq_run *run)
{
    const json_t *record, *found = NULL;
    size_t i;
    json_array_foreach(run->output.records, i, record)
    {
        if (json_object_get(record, "tuning") != NULL) found = json_object_get(record, "tuning");
    }
    return found;
}

static void report_tuning(const snrq_run *run, snrq_document *d)
{
    const json_t *tuning = tuning_of(run), *epoch;
    size_t i;
    if (tuning == NULL) return;
    snrq_sheet *s = snrq_document_sheet(d, "tuning", "Tuning");
    if (s == NULL) return;
    snrq_sheet_column_add(s, "epoch", SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(s, "KL while fitting", SNRQ_SHEET_NUMBER);
    snrq_sheet_column_add(s, "KL held out", SNRQ_SHEET_NUMBER);
    json_array_foreach(json_object_get(tuning, "kl"), i, epoch)
    {
        const json_t *fitted = json_object_get(epoch, "fitted");
        snrq_sheet_number(s, (double)i, 0);
        snrq_sheet_number(s, fitted != NULL ? json_number_value(fitted) : NAN, 4);
        snrq_sheet_number(s, json_number_value(json_object_get(epoch, "held_out")), 4);
    }
    snrq_sheet_note(s,
                    "Nats of a token. Epoch 0 is what was there before; the best one of those held "
                    "out was kept. Errors of modules are from before tuning.");
}

/* ---- by layer ---- */

/* The mean of what several modules of one kind have in a layer: the experts. */
static double mean_in_layer(const snrq_run *run, const measure *m, const char *kind, int64_t layer)
{
    double sum = 0.0;
    int count = 0;
    for (int64_t i = 0; m->of_module != NULL && i < run->modules; i++)
        if (run->module[i].layer == layer && strcmp(run->module[i].kind, kind) == 0) {
            sum += m->of_module(&run->module[i].record);
            count++;
        }
    for (int64_t i = 0; m->of_unit != NULL && i < run->units; i++)
        if (run->unit[i].layer == layer && strcmp(run->unit[i].kind, kind) == 0) {
            sum += m->of_unit(&run->unit[i]);
            count++;
        }
    return count > 0 ? sum / count : NAN;
}

/* Is the figure of a module known of any? */
static bool is_known(const snrq_run *run, const measure *m)
{
    for (int64_t i = 0; m->of_module != NULL && i < run->modules; i++)
        if (!isnan(m->of_module(&run->module[i].record))) return true;
    return m->of_unit != NULL;
}

static void report_measure(const snrq_run *run, const measure *m, snrq_document *d)
{
    kinds k = m->of_module != NULL ? kinds_of_modules(run) : kinds_of_units(run);
    snrq_picture *p = snrq_document_picture(d, m->name, m->title, "layer", m->axis);
    if (p == NULL) return;
    p->whole_x = true;
    p->log_y = m->log;
    for (int i = 0; i < k.count; i++) {
        snrq_picture_series_add(p, k.name[i], SNRQ_PICTURE_LINES);
        for (int64_t layer = 0; layer < run->blocks; layer++)
            snrq_picture_value(p, (double)layer, mean_in_layer(run, m, k.name[i], layer));
    }
}

static void report_modules(const snrq_run *run, snrq_document *d)
{
    snrq_sheet *s = snrq_document_sheet(d, "modules", "All modules");
    if (s == NULL) return;
    snrq_document_detail(d);
    static const char *const numbers[] = {
        "rows",           "columns",        "bits",          "alpha",     "objective",
        "predicted loss", "output error %", "model error %", "clipped %", "largest activation",
        "dead inputs"};
    snrq_sheet_column_add(s, "module", SNRQ_SHEET_TEXT);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        snrq_sheet_column_add(s, numbers[i], SNRQ_SHEET_NUMBER);
    for (int64_t i = 0; i < run->modules; i++) {
        const snrq_module_record *m = &run->module[i].record;
        snrq_sheet_text(s, m->name);
        snrq_sheet_number(s, (double)m->rows, 0);
        snrq_sheet_number(s, (double)m->columns, 0);
        snrq_sheet_number(s, m->bits, 0);
        snrq_sheet_number(s, m->alpha, 3);
        snrq_sheet_number(s, m->objective, -5);
        snrq_sheet_number(s, predicted_loss_of(m), -5);
        snrq_sheet_number(s, output_error_of(m), 3);
        snrq_sheet_number(s, model_error_of(m), 3);
        snrq_sheet_number(s, clipped_of(m), 3);
        snrq_sheet_number(s, largest_of(m), -4);
        snrq_sheet_number(s, (double)m->dead_inputs, 0);
    }
}

snrq_status snrq_run_report(const snrq_run *run, snrq_document *d)
{
    json_t *shown = snrq_json_text(run->output.directory);
    char title[512];
    snprintf(title, sizeof title, "Quantization %s",
             shown != NULL ? json_string_value(shown) : "of one model");
    json_decref(shown);
    snrq_document_create(title, d);
    if (!run->output.complete)
        snrq_document_say(d, "UNFINISHED: %lld of %lld blocks are there; the same command goes on.",
                          (long long)run->committed, (long long)run->blocks);
    report_settings(run, d);
    report_kinds(run, d);
    report_units(run, d);
    report_phases(run, d);
    report_groups(run, d);
    report_tuning(run, d);
    for (int m = 0; m < MEASURES; m++)
        if (is_known(run, &measures[m])) report_measure(run, &measures[m], d);
    report_modules(run, d);
    snrq_document_close(d);
    return d->failed ? snrq_fail(SNRQ_INTERNAL, "no memory for the report") : SNRQ_OK;
}
