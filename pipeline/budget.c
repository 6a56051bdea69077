/* Bits within a budget; see budget.h.
 *
 * Each step of a block has points (bytes, divergence), one for each width. Beginning with the
 * narrowest, the step is widened that wins most divergence per byte, as long as one fits: this
 * follows the lower convex hulls, and is what a Lagrange multiplier finds. What that leaves of the
 * budget is used by exchanges: one step wider for another one narrower, the best first.
 */
#include "pipeline/budget.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "mpi/log.h"
#include "pipeline/assess/choices.h"
#include "pipeline/export.h"
#include "pipeline/export/engines.h"
#include "pipeline/model/tensors.h"
#include "pipeline/options/text_options.h"
#include "pipeline/recipe.h"
#include "pipeline/rules.h"
#include "pipeline/sensitivity_cost.h"
#include "pipeline/weight_sizes.h"

enum {
    LIMIT = 1 << 28,
    MOST_EXCHANGES = 1000,
    MOST_CHOICES = SNRQ_MOST_WIDTHS * SNRQ_MOST_SIZES + SNRQ_WEIGHT_FORMATS,
    WIDTHS = 9
};

typedef struct choice {
    const snrq_weight_format *format; /* NULL: integers */
    int bits;
    int64_t group_size;
    double bytes, kl;
} choice;

/* A step of a block, or steps that an engine fuses, with what it can be rounded to: by growing
 * bytes and falling divergence. */
typedef struct part {
    int64_t layer;
    int step, end; /* steps [step, end) */
    int choices, chosen;
    choice choice[MOST_CHOICES];
    double usual; /* divergence with the width and groups that it is measured with */
} part;

typedef struct search {
    const snrq_options *options;
    const snrq_model *model;
    const char *path;         /* of the assessment, for messages */
    const json_t *assessment; /* borrowed */
    int64_t format;           /* that the engine is to load all of it in; -1: no --for;
                                 SNRQ_FORMATS: there is none */
    int64_t usual_bits;
    part *part; /* [parts] owned */
    int64_t parts;
    snrq_choices among;           /* its formats; none: integers alone */
    double whole;                 /* divergences of the blocks alone */
    double sum[WIDTHS];           /* by bits: divergences of all parts, in groups of --group-size */
    double share[WIDTHS];         /* by bits: what a whole model has of the sum; 0: unknown */
    double weights, budget, used; /* bytes */
} search;

/* ---- what is known ---- */

/* As they are stored; of a format, as its machines have them. */
static double module_bytes(const snrq_rule *rule, const snrq_module_shape *s, const choice *c)
{
    if (c->format == NULL) return snrq_module_stored_bytes(rule, s, c->bits, c->group_size);
    return (double)s->rows * (double)s->columns *
           snrq_weight_format_for(c->format, s->columns)->weight_bits / 8.0;
}

/* All that are chosen among are in the assessment. */
static snrq_status check_formats(const search *s, const json_t *theirs)
{
    for (int i = 0; i < s->among.formats; i++) {
        const json_t *name;
        size_t k, found = 0;
        json_array_foreach((json_t *)theirs, k, name) found +=
            json_is_string(name) && strcmp(json_string_value(name), s->among.format[i]->name) == 0;
        if (found == 0)
            return snrq_fail(SNRQ_USAGE,
                             "%s: was made without %s; assess the model with --formats %s", s->path,
                             s->among.format[i]->name, s->options->formats_text);
    }
    return SNRQ_OK;
}

/* The same model, and what else sizes and divergences depend on. */
static snrq_status check_configuration(const search *s, const json_t *configuration)
{
    static const char *const keys[] = {"group-size", "asymmetric", "groups",
                                       "scale-type", "method",     "grid"};
    char fingerprint[33];
    const char *found;
    json_t *theirs;
    SNRQ_TRY(snrq_model_fingerprint(s->model, fingerprint));
    SNRQ_TRY(snrq_json_string(s->path, configuration, "model", NULL, &found));
    if (strcmp(found, fingerprint) != 0)
        return snrq_fail(SNRQ_USAGE, "%s: is the assessment of another model than %s", s->path,
                         s->model->path);
    SNRQ_TRY(snrq_json_object(s->path, configuration, "options", &theirs));
    json_t *ours = snrq_options_stored(s->options);
    snrq_status status = check_formats(s, json_object_get(configuration, "formats"));
    for (size_t k = 0; status == SNRQ_OK && k < sizeof keys / sizeof *keys; k++)
        if (!json_equal(json_object_get(ours, keys[k]), json_object_get(theirs, keys[k])))
            status = snrq_fail(SNRQ_USAGE,
                               "%s: was made with another --%s than this run has; assess the model "
                               "with the same one",
                               s->path, keys[k]);
    json_decref(ours);
    return status;
}

static int by_bytes(const void *a, const void *b)
{
    const choice *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return (x->kl > y->kl) - (x->kl < y->kl);
}

/* Leaves out what costs more bytes than another choice and is no better. */
static void sort_choices(part *p)
{
    int kept = 0;
    qsort(p->choice, (size_t)p->choices, sizeof *p->choice, by_bytes);
    for (int i = 0; i < p->choices; i++)
        if (kept == 0 || p->choice[i].kl < p->choice[kept - 1].kl) p->choice[kept++] = p->choice[i];
    p->choices = kept;
}

static snrq_status read_choice(const search *s, const json_t *row, choice *c)
{
    int64_t bits;
    const char *format;
    SNRQ_TRY(snrq_json_integer(s->path, row, "bits", 2, 8, NULL, &bits));
    SNRQ_TRY(snrq_json_integer(s->path, row, "group_size", 0, 1 << 20, NULL, &c->group_size));
    SNRQ_TRY(snrq_json_string(s->path, row, "format", "", &format));
    c->bits = (int)bits;
    c->format = snrq_weight_format_find(format);
    if (c->format == NULL && format[0] != '\0')
        return snrq_fail(SNRQ_BAD_DATA, "%s: \"format\" is \"%s\", which there is not", s->path,
                         format);
    return snrq_json_number(s->path, row, "kl", -1.0, 1e6, NULL, &c->kl);
}

static bool fits(const snrq_family *f, int first, int end, const choice *c, int64_t usual)
{
    for (int m = first; m < end; m++)
        if (c->format != NULL ? snrq_weight_format_for(c->format, f->module[m].columns) == NULL
                              : !snrq_group_size_fits(c->group_size, usual, f->module[m].columns))
            return false;
    return true;
}

/* Is it one of those to choose among? */
static bool is_wanted(const search *s, const choice *c)
{
    for (int i = 0; i < s->among.formats; i++)
        if (s->among.format[i] == c->format) return true;
    return s->among.formats == 0 && c->format == NULL;
}

static snrq_status read_part(search *s, const snrq_rule *rule, const json_t *step, part *p)
{
    const snrq_family *f = snrq_model_family(s->model, p->layer);
    const json_t *row;
    json_t *list;
    size_t i;
    int first, end;
    snrq_step_modules(f, p->step, &first, &end);
    SNRQ_TRY(snrq_json_array(s->path, step, "divergence", &list));
    for (int m = first; m < end; m++)
        s->weights += (double)f->module[m].rows * (double)f->module[m].columns;
    json_array_foreach(list, i, row)
    {
        choice c = {0};
        SNRQ_TRY(read_choice(s, row, &c));
        if (c.format == NULL && c.group_size == rule->group_size) {
            if (c.bits == s->usual_bits) p->usual = c.kl;
            s->sum[c.bits] += c.kl;
        }
        if (p->choices == MOST_CHOICES || !is_wanted(s, &c) ||
            !fits(f, first, end, &c, rule->group_size))
            continue;
        for (int m = first; m < end; m++) c.bytes += module_bytes(rule, &f->module[m], &c);
        p->choice[p->choices++] = c;
    }
    if (p->choices > 0) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: block %lld: \"divergence\" has no choice that fits",
                     s->path, (long long)p->layer);
}

static bool has_experts(const snrq_family *f, int step)
{
    for (int u = f->step[step].first; u < f->step[step].end; u++)
        if (f->unit[u].expert >= 0) return true;
    return false;
}

/* Does the engine want a step to be as the one before it? vLLM does so of the steps of experts; all
 * engines, of what is in one step. */
static bool is_fused(const search *s, const part *p)
{
    const snrq_family *f = snrq_model_family(s->model, p->layer);
    return s->format >= 0 && snrq_engine_fuses(s->options->engine) && p->step > 0 &&
           has_experts(f, p->step) && has_experts(f, p->step - 1);
}

/* Adds what a step costs to a part that ends before it, of choices that both have. */
static void join(part *p, const part *step)
{
    int kept = 0;
    for (int i = 0; i < p->choices; i++)
        for (int k = 0; k < step->choices; k++) {
            choice c = p->choice[i];
            if (c.bits != step->choice[k].bits || c.group_size != step->choice[k].group_size ||
                c.format != step->choice[k].format)
                continue;
            c.bytes += step->choice[k].bytes;
            c.kl += step->choice[k].kl;
            p->choice[kept++] = c;
        }
    p->choices = kept;
    p->usual += step->usual;
    p->end = step->end;
}

static snrq_status read_parts(search *s, const json_t *blocks)
{
    const snrq_model *m = s->model;
    const snrq_rule rule = snrq_options_rule(s->options);
    int64_t most = 0;
    for (int64_t layer = 0; layer < m->config.layers; layer++)
        most += snrq_model_family(m, layer)->steps;
    if ((int64_t)json_array_size(blocks) != m->config.layers)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %zu blocks, expected %lld", s->path,
                         json_array_size(blocks), (long long)m->config.layers);
    SNRQ_TRY(snrq_allocate((size_t)most, sizeof *s->part, "parts of the model", &s->part));
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const json_t *block = json_array_get(blocks, (size_t)layer);
        json_t *steps;
        double whole;
        SNRQ_TRY(snrq_json_array(s->path, block, "steps", &steps));
        SNRQ_TRY(snrq_json_number(s->path, block, "kl", -1.0, 1e6, NULL, &whole));
        s->whole += whole;
        const int count = snrq_model_family(m, layer)->steps;
        if ((int)json_array_size(steps) != count)
            return snrq_fail(SNRQ_BAD_DATA, "%s: block %lld has %zu steps, expected %d", s->path,
                             (long long)layer, json_array_size(steps), count);
        for (int i = 0; i < count; i++) {
            part p = {.layer = layer, .step = i, .end = i + 1};
            SNRQ_TRY(read_part(s, &rule, json_array_get(steps, (size_t)i), &p));
            if (is_fused(s, &p))
                join(&s->part[s->parts - 1], &p);
            else
                s->part[s->parts++] = p;
        }
    }
    return SNRQ_OK;
}

/* What a whole model has of the sum of its steps' divergences: known where it was tried with one
 * width. Other widths are like the next one that was; if none was, all are like the blocks, of
 * which each was tried. */
static snrq_status read_uniform(search *s, const json_t *uniform)
{
    const double least = 1e-30; /* a share of less may be infinite */
    double sum = 0.0;
    for (int64_t k = 0; k < s->parts; k++) sum += s->part[k].usual;
    for (size_t i = 0; i < json_array_size(uniform); i++) {
        const json_t *row = json_array_get(uniform, i);
        double kl;
        int64_t bits;
        SNRQ_TRY(snrq_json_integer(s->path, row, "bits", 2, 8, NULL, &bits));
        SNRQ_TRY(snrq_json_number(s->path, row, "kl", -1.0, 1e6, NULL, &kl));
        s->share[bits] = s->sum[bits] > least && kl > 0.0 ? kl / s->sum[bits] : 0.0;
    }
    for (int b = 1; b < WIDTHS; b++)
        if (s->share[b] == 0.0) s->share[b] = s->share[b - 1];
    for (int b = WIDTHS - 1; b >= 0; b--)
        if (s->share[b] == 0.0) s->share[b] = b + 1 < WIDTHS ? s->share[b + 1] : 0.0;
    for (int b = 0; b < WIDTHS && s->share[WIDTHS - 1] == 0.0; b++)
        s->share[b] = sum > least && s->whole > 0.0 ? s->whole / sum : 1.0;
    return SNRQ_OK;
}

static snrq_export_facts facts_of(const search *s, const choice *c)
{
    snrq_rule r = snrq_options_rule(s->options);
    r.bits = c->bits;
    r.group_size = c->group_size;
    snrq_rule_set_format(&r, c->format);
    snrq_export_facts planned = snrq_export_facts_planned(
        s->model, r.bits, r.group_size, r.symmetric, r.permuted_groups, r.scale_type);
    planned.format = r.format;
    return planned;
}

/* With --for: choices that the engine does not load in the format. */
static snrq_status drop_choices(search *s)
{
    for (int64_t k = 0; s->format >= 0 && k < s->parts; k++) {
        part *p = &s->part[k];
        const int all = p->choices;
        p->choices = 0;
        for (int i = 0; i < all; i++) {
            const snrq_export_facts planned = facts_of(s, &p->choice[i]);
            if (s->format < SNRQ_FORMATS &&
                snrq_export_loads(s->model, &planned, s->options->engine,
                                  (snrq_format_choice)s->format))
                p->choice[p->choices++] = p->choice[i];
        }
        if (p->choices > 0) continue;
        if (all == 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: block %lld: the experts' steps have no choice in "
                             "common",
                             s->path, (long long)p->layer);
        const snrq_export_facts planned = facts_of(s, &p->choice[all - 1]);
        if (snrq_export_check_planned(s->model, &planned, s->options->engine) == SNRQ_OK)
            return snrq_fail(SNRQ_USAGE, "%s: no format holds a choice for every module", s->path);
        return snrq_fail(SNRQ_USAGE, "%s: no choice is left: %s", s->path, snrq_error_message());
    }
    return SNRQ_OK;
}

/* Divergences as a whole model has them; the narrowest choices to begin with. */
static void weigh_choices(search *s)
{
    for (int64_t k = 0; k < s->parts; k++) {
        part *p = &s->part[k];
        for (int c = 0; c < p->choices; c++) p->choice[c].kl *= s->share[p->choice[c].bits];
        sort_choices(p);
        s->used += p->choice[0].bytes;
    }
}

static snrq_status read_assessment(search *s)
{
    json_t *configuration = NULL, *blocks = NULL;
    const char *format = NULL;
    SNRQ_TRY(snrq_json_string(s->path, s->assessment, "format", "", &format));
    if (strcmp(format, "snrq-assessment") != 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: is no assessment.json of `snrq assess`", s->path);
    SNRQ_TRY(snrq_json_object(s->path, s->assessment, "configuration", &configuration));
    SNRQ_TRY(check_configuration(s, configuration));
    SNRQ_TRY(snrq_json_integer(s->path, configuration, "usual_bits", 2, 8, NULL, &s->usual_bits));
    SNRQ_TRY(snrq_json_array(s->path, s->assessment, "blocks", &blocks));
    SNRQ_TRY(read_parts(s, blocks));
    SNRQ_TRY(read_uniform(s, json_object_get(s->assessment, "uniform")));
    SNRQ_TRY(drop_choices(s));
    weigh_choices(s);
    return SNRQ_OK;
}

/* Bytes of the groups of columns. */
static double index_bytes(const snrq_model *m)
{
    double bytes = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++)
            bytes += (double)f->module[i].columns * sizeof(int32_t);
    }
    return bytes;
}

/* What --table-format makes of embeddings and head, in place of the tensor: *bytes become as many
 * as OUT stores; of an export, as many as the format has. */
static void count_tables(const search *s, double *bytes)
{
    const snrq_model *m = s->model;
    const int64_t rows = m->config.vocabulary, columns = m->config.hidden;
    if (s->options->table_format < 0) return;
    const snrq_weight_format *f =
        snrq_weight_format_for(&snrq_weight_formats[s->options->table_format], columns);
    for (int t = 0; f != NULL && t < (m->config.tied_embeddings ? 1 : SNRQ_TABLES); t++) {
        const double weights = (double)rows * (double)columns;
        const double numbers = f->minimum.present ? 2.0 : 1.0;
        const double scale = (double)snrq_dtype_size(snrq_weight_format_scale_type(f));
        *bytes -= weights * (double)snrq_dtype_size(m->config.dtype);
        *bytes += s->among.formats > 0 ? weights * f->weight_bits / 8.0
                                       : (double)rows * (double)((columns * f->bits + 7) / 8) +
                                             weights / (double)f->group * (1.0 + numbers * scale) +
                                             (double)columns * sizeof(int32_t);
    }
}

/* Tokens of the file of sensitivities that the run makes, at most. */
static int64_t pass_tokens(const search *s)
{
    const snrq_window_order order = snrq_calibration_windows(s->options);
    const int64_t length = order.length > 0 ? order.length : s->model->config.max_positions;
    const int64_t most = SNRQ_SENSITIVITY_TOKENS / length;
    const snrq_windows windows = {.count = order.count, .length = length};
    if (order.count == 0 || order.count >= most) return SNRQ_SENSITIVITY_TOKENS;
    return snrq_sensitivity_windows(s->options, &windows).count * length;
}

static snrq_status set_budget(search *s)
{
    double rest = 0.0;
    const bool formats = s->among.formats > 0; /* which store no groups of columns */
    SNRQ_TRY(snrq_rest_bytes(s->model, &rest));
    if (!formats) rest += index_bytes(s->model);
    count_tables(s, &rest);
    if (!formats && snrq_options_make_sensitivity(s->options))
        rest += snrq_sensitivity_file_bytes(s->model, pass_tokens(s));
    s->budget = s->options->target_bytes > 0 ? (double)s->options->target_bytes - rest
                                             : s->options->target_bits * s->weights / 8.0;
    if (s->used <= s->budget) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE,
                     "the budget is too small: with the narrowest choice everywhere, modules have "
                     "%.3f bits per weight, scales and zeros counted, and %s has %.2f MB",
                     8.0 * s->used / s->weights, formats ? "an export" : "OUT",
                     (s->used + rest) / 1e6);
}

/* ---- the search ---- */

static void choose(search *s, part *p, int to)
{
    s->used += p->choice[to].bytes - p->choice[p->chosen].bytes;
    p->chosen = to;
}

/* What a part would save of the divergence, and cost in bytes, with another choice. */
static choice change(const part *p, int to)
{
    const choice *from = &p->choice[p->chosen];
    return (choice){.bytes = p->choice[to].bytes - from->bytes, .kl = from->kl - p->choice[to].kl};
}

/* Widens the step that wins most per byte. False: none fits. */
static bool widen(search *s)
{
    part *best = NULL;
    int to = 0;
    double most = 0.0;
    for (int64_t i = 0; i < s->parts; i++) {
        part *p = &s->part[i];
        for (int c = p->chosen + 1; c < p->choices; c++) {
            const choice more = change(p, c);
            if (s->used + more.bytes > s->budget || more.kl / more.bytes <= most) continue;
            most = more.kl / more.bytes;
            best = p;
            to = c;
        }
    }
    if (best != NULL) choose(s, best, to);
    return best != NULL;
}

/* The best way to widen a step and to narrow a second one in turn. */
static bool exchange(search *s)
{
    part *a = NULL, *b = NULL;
    int a_to = 0, b_to = 0;
    double most = 1e-12;
    for (int64_t i = 0; i < s->parts; i++)
        for (int64_t k = 0; k < s->parts; k++) {
            part *up = &s->part[i], *down = &s->part[k];
            if (i == k) continue;
            for (int u = up->chosen + 1; u < up->choices; u++)
                for (int d = 0; d < down->chosen; d++) {
                    const choice more = change(up, u), less = change(down, d);
                    if (more.kl + less.kl <= most || s->used + more.bytes + less.bytes > s->budget)
                        continue;
                    most = more.kl + less.kl;
                    a = up;
                    b = down;
                    a_to = u;
                    b_to = d;
                }
        }
    if (a == NULL) return false;
    choose(s, a, a_to);
    choose(s, b, b_to);
    return true;
}

/* ---- what becomes of it ---- */

static json_t *patterns_of(const search *s, const part *p)
{
    const snrq_family *f = snrq_model_family(s->model, p->layer);
    json_t *list = json_array(), *known = json_object();
    int first, next, end;
    snrq_step_modules(f, p->step, &first, &next);
    snrq_step_modules(f, p->end - 1, &next, &end);
    for (int m = first; m < end; m++) {
        char pattern[SNRQ_MODULE_NAME + 2];
        snrq_recipe_pattern(f, m, pattern);
        if (json_object_get(known, pattern) == NULL)
            json_array_append_new(list, json_string(pattern));
        json_object_set_new(known, pattern, json_true());
    }
    json_decref(known);
    return list;
}

/* Adds a block to the rule of a step and a choice, which is made if it is new. */
static snrq_status add_to_rule(const search *s, const part *p, json_t *rules)
{
    const choice *c = &p->choice[p->chosen];
    json_t *rule = json_pack("{s:o}", "modules", patterns_of(s, p)), *old;
    char *blocks = NULL;
    size_t i;
    json_object_set_new(rule, c->format != NULL ? "format" : "bits",
                        c->format != NULL ? json_string(c->format->name) : json_integer(c->bits));
    if (c->format == NULL && c->group_size != s->options->group_size)
        json_object_set_new(rule, "group-size",
                            c->group_size == 0 ? json_string("channel")
                                               : json_integer(c->group_size));
    snrq_status status = SNRQ_OK;
    json_array_foreach(rules, i, old)
    {
        json_t *before = json_incref(json_object_get(old, "blocks"));
        json_object_del(old, "blocks");
        const bool same = json_equal(old, rule);
        json_object_set_new(old, "blocks", before);
        if (!same) continue;
        const size_t size = json_string_length(before) + 32;
        status = snrq_allocate(size, 1, "blocks of a rule", &blocks);
        if (status == SNRQ_OK) {
            snprintf(blocks, size, "%s,%lld", json_string_value(before), (long long)p->layer);
            json_object_set_new(old, "blocks", json_string(blocks));
        }
        free(blocks);
        json_decref(rule);
        return status;
    }
    char first[32];
    snprintf(first, sizeof first, "%lld", (long long)p->layer);
    json_object_set_new(rule, "blocks", json_string(first));
    json_array_append_new(rules, rule);
    return status;
}

static snrq_status find_rules(search *s, json_t **rules, snrq_budget *out)
{
    int exchanges = 0;
    SNRQ_TRY(snrq_choices_add_formats(s->options->formats_text, &s->among));
    SNRQ_TRY(read_assessment(s));
    SNRQ_TRY(set_budget(s));
    do {
        while (widen(s)) continue;
    } while (exchanges++ < MOST_EXCHANGES && exchange(s));
    *rules = json_array();
    *out = (snrq_budget){.bits_per_weight = 8.0 * s->used / s->weights, .bytes = s->used};
    for (int64_t i = 0; i < s->parts; i++) {
        SNRQ_TRY(add_to_rule(s, &s->part[i], *rules));
        out->kl += s->part[i].choice[s->part[i].chosen].kl;
    }
    return SNRQ_OK;
}

static snrq_status find_in_format(const snrq_options *o, const snrq_model *m,
                                  const json_t *assessment, int64_t format, json_t **rules,
                                  snrq_budget *out)
{
    search s = {.options = o,
                .model = m,
                .path = o->assessment,
                .assessment = assessment,
                .format = format};
    *rules = NULL;
    snrq_status status = find_rules(&s, rules, out);
    free(s.part);
    if (status == SNRQ_OK) return SNRQ_OK;
    json_decref(*rules);
    *rules = NULL;
    return status;
}

/* Does the engine load a choice of the assessment in this format? If not, another one may do. */
static bool loads_some(const search *s, int format)
{
    const json_t *block = json_array_get(json_object_get(s->assessment, "blocks"), 0), *row;
    const json_t *step = json_array_get(json_object_get(block, "steps"), 0);
    size_t i;
    json_array_foreach(json_object_get(step, "divergence"), i, row)
    {
        choice c = {0};
        if (read_choice(s, row, &c) != SNRQ_OK || !is_wanted(s, &c)) continue;
        const snrq_export_facts planned = facts_of(s, &c);
        if (snrq_export_loads(s->model, &planned, s->options->engine, (snrq_format_choice)format))
            return true;
    }
    return false;
}

snrq_status snrq_budget_rules_of(const snrq_options *o, const snrq_model *m,
                                 const json_t *assessment, json_t **rules, snrq_budget *out)
{
    search s = {.options = o, .model = m, .path = o->assessment, .assessment = assessment};
    snrq_status failed = SNRQ_OK;
    *rules = NULL;
    if (o->engine < 0) return find_in_format(o, m, assessment, -1, rules, out);
    SNRQ_TRY(snrq_choices_add_formats(o->formats_text, &s.among));
    for (int format = 0; format < SNRQ_FORMATS; format++) {
        json_t *found;
        snrq_budget budget;
        if (!loads_some(&s, format)) continue;
        failed = find_in_format(o, m, assessment, format, &found, &budget);
        if (failed != SNRQ_OK) continue;
        if (*rules != NULL && budget.kl >= out->kl) {
            json_decref(found);
            continue;
        }
        json_decref(*rules);
        *rules = found;
        *out = budget;
    }
    if (*rules != NULL) return SNRQ_OK;
    /* No format: the message says what is damaged, or that nothing is loaded. */
    return failed != SNRQ_OK ? failed : find_in_format(o, m, assessment, SNRQ_FORMATS, rules, out);
}

snrq_status snrq_budget_rules(const snrq_options *o, const snrq_model *m, json_t **rules,
                              snrq_budget *out)
{
    json_t *assessment = NULL;
    *rules = NULL;
    SNRQ_TRY(snrq_json_read(o->assessment, LIMIT, &assessment));
    snrq_status status = snrq_budget_rules_of(o, m, assessment, rules, out);
    json_decref(assessment);
    return status;
}
