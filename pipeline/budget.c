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
#include "pipeline/assess_widths.h"
#include "pipeline/model/tensors.h"
#include "pipeline/rules.h"

enum { LIMIT = 1 << 28, MOST_EXCHANGES = 1000 };

/* A step of a block. */
typedef struct part {
    int64_t layer;
    int step, choice; /* choice: of the widths */
    double bytes[SNRQ_MOST_WIDTHS], kl[SNRQ_MOST_WIDTHS];
} part;

typedef struct search {
    const snrq_options *options;
    const snrq_model *model;
    const char *path; /* of the assessment */
    int widths, bits[SNRQ_MOST_WIDTHS];
    part *part; /* [parts] owned */
    int64_t parts;
    double
        share[SNRQ_MOST_WIDTHS];  /* of the sum of divergences that a whole model has; 0: unknown */
    double weights, budget, used; /* bytes */
} search;

/* ---- what is known ---- */

/* Codes, scales and zeros as they are stored. */
static double module_bytes(const snrq_rule *r, const snrq_module_shape *s, int bits)
{
    int64_t groups = snrq_rule_groups(r, s->columns);
    return (double)s->rows * ((double)((s->columns * bits + 7) / 8) +
                              (double)groups * (1.0 + (double)snrq_dtype_size(r->scale_type)));
}

static snrq_status read_widths(search *s, const json_t *configuration)
{
    json_t *widths;
    SNRQ_TRY(snrq_json_array(s->path, configuration, "widths", &widths));
    s->widths = (int)json_array_size(widths);
    for (int w = 0; w < s->widths && w < SNRQ_MOST_WIDTHS; w++)
        s->bits[w] = (int)json_integer_value(json_array_get(widths, (size_t)w));
    for (int w = 0; w < s->widths && w < SNRQ_MOST_WIDTHS; w++)
        if (s->bits[w] < 2 || s->bits[w] > 8) s->widths = 0;
    if (s->widths > 0 && s->widths <= SNRQ_MOST_WIDTHS) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA, "%s: \"widths\": expected 1 to %d of 2 to 8 bits", s->path,
                     (int)SNRQ_MOST_WIDTHS);
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
    snrq_status status = SNRQ_OK;
    for (size_t k = 0; status == SNRQ_OK && k < sizeof keys / sizeof *keys; k++)
        if (!json_equal(json_object_get(ours, keys[k]), json_object_get(theirs, keys[k])))
            status = snrq_fail(SNRQ_USAGE,
                               "%s: was made with another --%s than this run has; assess the model "
                               "with the same one",
                               s->path, keys[k]);
    json_decref(ours);
    return status;
}

static snrq_status read_part(search *s, const snrq_rule *rule, const json_t *step, part *p)
{
    const snrq_family *f = snrq_model_family(s->model, p->layer);
    const json_t *list = json_object_get(step, "divergence");
    int first, end;
    snrq_step_modules(f, p->step, &first, &end);
    for (int m = first; m < end; m++)
        s->weights += (double)f->module[m].rows * (double)f->module[m].columns;
    for (int w = 0; w < s->widths; w++) {
        SNRQ_TRY(snrq_json_number(s->path, json_array_get(list, (size_t)w), "kl", -1.0, 1e6, NULL,
                                  &p->kl[w]));
        for (int m = first; m < end; m++)
            p->bytes[w] += module_bytes(rule, &f->module[m], s->bits[w]);
    }
    return SNRQ_OK;
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
        SNRQ_TRY(snrq_json_array(s->path, block, "steps", &steps));
        const int count = snrq_model_family(m, layer)->steps;
        if ((int)json_array_size(steps) != count)
            return snrq_fail(SNRQ_BAD_DATA, "%s: block %lld has %zu steps, expected %d", s->path,
                             (long long)layer, json_array_size(steps), count);
        for (int i = 0; i < count; i++) {
            part *p = &s->part[s->parts++];
            *p = (part){.layer = layer, .step = i};
            SNRQ_TRY(read_part(s, &rule, json_array_get(steps, (size_t)i), p));
            s->used += p->bytes[0];
        }
    }
    return SNRQ_OK;
}

/* How the divergence of a whole model with one width compares with the sum of its steps'. Widths
 * that were not tried are like the next one that was. */
static snrq_status read_uniform(search *s, const json_t *uniform)
{
    for (size_t i = 0; i < json_array_size(uniform); i++) {
        const json_t *row = json_array_get(uniform, i);
        double sum = 0.0, kl;
        int64_t bits;
        SNRQ_TRY(snrq_json_integer(s->path, row, "bits", 2, 8, NULL, &bits));
        SNRQ_TRY(snrq_json_number(s->path, row, "kl", -1.0, 1e6, NULL, &kl));
        for (int w = 0; w < s->widths; w++) {
            if (s->bits[w] != bits) continue;
            for (int64_t k = 0; k < s->parts; k++) sum += s->part[k].kl[w];
            s->share[w] = sum > 0.0 && kl > 0.0 ? kl / sum : 0.0;
        }
    }
    for (int w = 1; w < s->widths; w++)
        if (s->share[w] == 0.0) s->share[w] = s->share[w - 1];
    for (int w = s->widths - 1; w >= 0; w--)
        if (s->share[w] == 0.0) s->share[w] = w + 1 < s->widths ? s->share[w + 1] : 1.0;
    for (int64_t k = 0; k < s->parts; k++)
        for (int w = 0; w < s->widths; w++) s->part[k].kl[w] *= s->share[w];
    return SNRQ_OK;
}

static snrq_status read_assessment(search *s)
{
    json_t *file = NULL, *configuration = NULL, *blocks = NULL;
    const char *format = NULL;
    SNRQ_TRY(snrq_json_read(s->path, LIMIT, &file));
    snrq_status status = snrq_json_string(s->path, file, "format", "", &format);
    if (status == SNRQ_OK && strcmp(format, "snrq-assessment") != 0)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: is no assessment.json of `snrq assess`", s->path);
    if (status == SNRQ_OK)
        status = snrq_json_object(s->path, file, "configuration", &configuration);
    if (status == SNRQ_OK) status = check_configuration(s, configuration);
    if (status == SNRQ_OK) status = read_widths(s, configuration);
    if (status == SNRQ_OK) status = snrq_json_array(s->path, file, "blocks", &blocks);
    if (status == SNRQ_OK) status = read_parts(s, blocks);
    if (status == SNRQ_OK) status = read_uniform(s, json_object_get(file, "uniform"));
    json_decref(file);
    return status;
}

/* Bytes of what is not quantized, and of the groups of columns. */
static snrq_status rest_bytes(const snrq_model *m, double *out)
{
    char **names = NULL;
    int count = 0;
    *out = 0.0;
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++) *out += (double)f->module[i].columns * sizeof(int32_t);
    }
    SNRQ_TRY(snrq_model_rest_names(m, &names, &count));
    for (int i = 0; i < count; i++) {
        const snrq_tensor *t = snrq_model_tensor(m, names[i]);
        if (t != NULL) *out += (double)t->bytes;
    }
    free(names);
    return SNRQ_OK;
}

static snrq_status set_budget(search *s)
{
    double rest = 0.0;
    SNRQ_TRY(rest_bytes(s->model, &rest));
    s->budget = s->options->target_bytes > 0 ? (double)s->options->target_bytes - rest
                                             : s->options->target_bits * s->weights / 8.0;
    if (s->used <= s->budget) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE,
                     "the budget is too small: with %d bits everywhere, modules have %.3f bits per "
                     "weight, scales and zeros counted, and OUT has %.2f MB",
                     s->bits[0], 8.0 * s->used / s->weights, (s->used + rest) / 1e6);
}

/* ---- the search ---- */

/* Widens the step that wins most per byte. False: none fits. */
static bool widen(search *s)
{
    part *best = NULL;
    int to = 0;
    double most = 0.0;
    for (int64_t i = 0; i < s->parts; i++) {
        part *p = &s->part[i];
        for (int w = p->choice + 1; w < s->widths; w++) {
            double more = p->bytes[w] - p->bytes[p->choice];
            double gain = (p->kl[p->choice] - p->kl[w]) / more;
            if (s->used + more > s->budget || gain <= most) continue;
            most = gain;
            best = p;
            to = w;
        }
    }
    if (best == NULL) return false;
    s->used += best->bytes[to] - best->bytes[best->choice];
    best->choice = to;
    return true;
}

/* The best way to give a step another width and a second one another in turn. */
static bool exchange(search *s)
{
    part *a = NULL, *b = NULL;
    int a_to = 0, b_to = 0;
    double most = 1e-12;
    for (int64_t i = 0; i < s->parts; i++)
        for (int64_t k = 0; k < s->parts; k++) {
            part *up = &s->part[i], *down = &s->part[k];
            if (i == k) continue;
            for (int u = up->choice + 1; u < s->widths; u++)
                for (int d = 0; d < down->choice; d++) {
                    double gain =
                        up->kl[up->choice] - up->kl[u] + down->kl[down->choice] - down->kl[d];
                    double more = up->bytes[u] - up->bytes[up->choice] + down->bytes[d] -
                                  down->bytes[down->choice];
                    if (gain <= most || s->used + more > s->budget) continue;
                    most = gain;
                    a = up;
                    b = down;
                    a_to = u;
                    b_to = d;
                }
        }
    if (a == NULL) return false;
    s->used += a->bytes[a_to] - a->bytes[a->choice] + b->bytes[b_to] - b->bytes[b->choice];
    a->choice = a_to;
    b->choice = b_to;
    return true;
}

/* ---- what becomes of it ---- */

/* The name of a module; of an expert, a pattern for all of them. */
static json_t *pattern_of(const snrq_family *f, int module)
{
    static const char experts[] = ".experts.";
    const char *name = f->module[module].name, *number = strstr(name, experts);
    char text[SNRQ_MODULE_NAME + 2];
    if (number == NULL || f->unit[f->module[module].unit].expert < 0) return json_string(name);
    number += sizeof experts - 1;
    snprintf(text, sizeof text, "%.*s*%s", (int)(number - name), name,
             number + strspn(number, "0123456789"));
    return json_string(text);
}

static json_t *patterns_of(const search *s, const part *p)
{
    const snrq_family *f = snrq_model_family(s->model, p->layer);
    json_t *list = json_array(), *known = json_object();
    int first, end;
    snrq_step_modules(f, p->step, &first, &end);
    for (int m = first; m < end; m++) {
        json_t *pattern = pattern_of(f, m);
        if (json_object_get(known, json_string_value(pattern)) == NULL)
            json_array_append(list, pattern);
        json_object_set_new(known, json_string_value(pattern), json_true());
        json_decref(pattern);
    }
    json_decref(known);
    return list;
}

/* Adds a block to the rule of a step and a width, which is made if it is new. */
static void add_to_rule(const search *s, const part *p, json_t *rules)
{
    json_t *patterns = patterns_of(s, p), *rule;
    size_t i;
    const int bits = s->bits[p->choice];
    char *blocks = NULL;
    json_array_foreach(rules, i, rule)
    {
        if (json_integer_value(json_object_get(rule, "bits")) != bits ||
            !json_equal(json_object_get(rule, "modules"), patterns))
            continue;
        const char *before = json_string_value(json_object_get(rule, "blocks"));
        size_t size = strlen(before) + 32;
        if (snrq_allocate(size, 1, "blocks of a rule", &blocks) != SNRQ_OK) break;
        snprintf(blocks, size, "%s,%lld", before, (long long)p->layer);
        json_object_set_new(rule, "blocks", json_string(blocks));
        free(blocks);
        json_decref(patterns);
        return;
    }
    char first[32];
    snprintf(first, sizeof first, "%lld", (long long)p->layer);
    json_array_append_new(
        rules, json_pack("{s:o, s:s, s:i}", "modules", patterns, "blocks", first, "bits", bits));
}

static snrq_status choose(search *s, json_t **rules, snrq_budget *out)
{
    int exchanges = 0;
    SNRQ_TRY(read_assessment(s));
    SNRQ_TRY(set_budget(s));
    do {
        while (widen(s)) continue;
    } while (exchanges++ < MOST_EXCHANGES && exchange(s));
    *rules = json_array();
    *out = (snrq_budget){.bits_per_weight = 8.0 * s->used / s->weights};
    for (int64_t i = 0; i < s->parts; i++) {
        add_to_rule(s, &s->part[i], *rules);
        out->kl += s->part[i].kl[s->part[i].choice];
    }
    return SNRQ_OK;
}

snrq_status snrq_budget_rules(const snrq_options *o, const snrq_model *m, json_t **rules,
                              snrq_budget *out)
{
    search s = {.options = o, .model = m, .path = o->assessment};
    *rules = NULL;
    snrq_status status = choose(&s, rules, out);
    free(s.part);
    return status;
}
