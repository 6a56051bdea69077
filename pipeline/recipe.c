/* Recipes; see recipe.h. */
#include "pipeline/recipe.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "pipeline/options/effects.h"

enum { MOST_BYTES = 1 << 20, MOST_ENTRIES = 10000 };

/* What a rule is made of. */
static const char *const keys[] = {
    "bits",       "group-size", "asymmetric", "method",         "beam",   "alpha",
    "grid",       "groups",     "order",      "scale-type",     "damp",   "shrink",
    "compensate", "refine",     "regrid",     "expert-weights", "format", "scale-signs"};

static bool is_rule_key(const char *key)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i], key) == 0) return true;
    return false;
}

static snrq_status bad_entry(const char *path, size_t index, const char *what, const char *found)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(SNRQ_BAD_DATA, "%s: rule %zu: %s, found \"%s\"", path, index + 1, what,
                     snrq_shown(found, shown));
}

static snrq_status bad_kind(const char *path, size_t index, const char *what, const json_t *value)
{
    return snrq_fail(SNRQ_BAD_DATA, "%s: rule %zu: %s, found %s", path, index + 1, what,
                     snrq_json_kind(value));
}

/* ---- form ---- */

/* The blocks of "0-3,7": is `block` one of them? False in *good if it is no such text. */
static bool is_in_blocks(const char *text, int64_t block, bool *good)
{
    bool found = false;
    *good = true;
    for (const char *at = text; *good; at++) {
        long long first = -1, last = -1;
        int length = 0;
        if (sscanf(at, "%7lld-%7lld%n", &first, &last, &length) != 2 || length == 0) {
            *good = sscanf(at, "%7lld%n", &first, &length) == 1 && length > 0;
            last = first;
        }
        *good = *good && first >= 0 && first <= last && at[0] >= '0' && at[0] <= '9';
        if (!*good) break;
        found = found || (block >= first && block <= last);
        at += length;
        if (*at == '\0') break;
        *good = *at == ',';
    }
    return found;
}

static snrq_status check_patterns(const char *path, size_t index, const json_t *patterns)
{
    size_t i;
    const json_t *pattern;
    if (snrq_json_is_text(patterns)) return SNRQ_OK;
    if (!json_is_array(patterns) || json_array_size(patterns) == 0)
        return bad_kind(path, index, "expected \"modules\", a pattern or a list of them", patterns);
    json_array_foreach(patterns, i, pattern)
    {
        if (!snrq_json_is_text(pattern))
            return bad_kind(path, index, "expected patterns in \"modules\"", pattern);
    }
    return SNRQ_OK;
}

static snrq_status check_entry(const char *path, size_t index, const json_t *entry)
{
    const char *key;
    json_t *value;
    bool good = true, keeps = false;
    int others = 0;
    if (!json_is_object(entry)) return bad_kind(path, index, "expected an object", entry);
    SNRQ_TRY(check_patterns(path, index, json_object_get(entry, "modules")));
    value = json_object_get(entry, "blocks");
    if (value != NULL && !snrq_json_is_text(value))
        return bad_kind(path, index, "expected \"blocks\" as in \"0-3,7\"", value);
    if (value != NULL) (void)is_in_blocks(json_string_value(value), 0, &good);
    if (!good)
        return bad_entry(path, index, "expected \"blocks\" as in \"0-3,7\"",
                         json_string_value(value));
    json_object_foreach((json_t *)entry, key, value)
    {
        if (strcmp(key, "modules") == 0 || strcmp(key, "blocks") == 0) continue;
        if (strcmp(key, "keep") == 0 && json_is_true(value)) {
            keeps = true;
            continue;
        }
        others++;
        if (!is_rule_key(key))
            return bad_entry(
                path, index,
                "expected modules, blocks, keep (true), bits, group-size, asymmetric, "
                "method, beam, "
                "alpha, grid, groups, order, scale-type, format, damp, shrink, compensate, "
                "refine, regrid, scale-signs or expert-weights",
                key);
        if (!snrq_json_is_text(value) && !json_is_number(value) && !json_is_boolean(value))
            return bad_kind(path, index, "expected a text, a number, true or false", value);
    }
    if (keeps && others > 0)
        return snrq_fail(SNRQ_BAD_DATA, "%s: rule %zu: a module that is kept has no other settings",
                         path, index + 1);
    return SNRQ_OK;
}

snrq_status snrq_recipe_read(const char *path, json_t **out)
{
    size_t i;
    const json_t *entry;
    json_t *file = NULL, *recipe = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_json_read(path, MOST_BYTES, &file));
    snrq_status status = snrq_json_array(path, file, "rules", &recipe);
    if (status == SNRQ_OK && json_object_size(file) != 1)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: expected the key \"rules\" alone", path);
    if (status == SNRQ_OK &&
        (json_array_size(recipe) == 0 || json_array_size(recipe) > MOST_ENTRIES))
        status = snrq_fail(SNRQ_BAD_DATA, "%s: expected 1 to %d rules, found %zu", path,
                           (int)MOST_ENTRIES, json_array_size(recipe));
    json_array_foreach(recipe, i, entry) if (status == SNRQ_OK) status =
        check_entry(path, i, entry);
    if (status == SNRQ_OK) *out = json_incref(recipe);
    json_decref(file);
    return status;
}

/* ---- rules ---- */

static bool fits(const char *pattern, const char *full, const char *below)
{
    return fnmatch(pattern, full, 0) == 0 || fnmatch(pattern, below, 0) == 0;
}

static bool pattern_matches(const json_t *pattern, int64_t layer, const char *below)
{
    char full[200];
    snrq_module_name(layer, below, full, sizeof full);
    return fits(json_string_value(pattern), full, below);
}

static bool is_block_of(const json_t *entry, int64_t layer)
{
    const char *blocks = json_string_value(json_object_get(entry, "blocks"));
    bool good;
    return blocks == NULL || is_in_blocks(blocks, layer, &good);
}

static bool matches(const json_t *entry, int64_t layer, const char *below)
{
    const json_t *patterns = json_object_get(entry, "modules"), *pattern;
    size_t i;
    if (!is_block_of(entry, layer)) return false;
    if (json_is_string(patterns)) return pattern_matches(patterns, layer, below);
    json_array_foreach((json_t *)patterns, i,
                       pattern) if (pattern_matches(pattern, layer, below)) return true;
    return false;
}

/* A format says bits and groups by itself; a width that is named as one says bits alone. */
static snrq_status check_format(const char *path, size_t index, const json_t *entry)
{
    static const char *const said[] = {"bits", "group-size", "asymmetric", "groups", "scale-type"};
    const char *format = json_string_value(json_object_get(entry, "format"));
    if (format == NULL || snrq_weight_format_find(format) == NULL) return SNRQ_OK;
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (json_object_get(entry, said[i]) != NULL)
            return snrq_fail(SNRQ_USAGE, "%s: rule %zu: \"format\": \"%s\" says %s; leave it out",
                             path, index + 1, format, said[i]);
    return SNRQ_OK;
}

/* The rule of an entry: the options, but for what it names. */
static snrq_status rule_of(const char *path, size_t index, const json_t *entry,
                           const snrq_options *options, snrq_rule *out)
{
    snrq_options changed;
    const char *key;
    json_t *value, *stored = snrq_options_stored(options);
    snrq_status status = stored != NULL ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory");
    if (options->preset >= 0) { /* what it says of most modules */
        json_object_del(stored, "preset");
        json_object_set_new(stored, "format",
                            json_string(snrq_weight_formats[options->weight_format].name));
    }
    /* Formats and asymmetric groups have no choice of signs; what the entry makes may have it
     * again. */
    if (options->grid == SNRQ_QUANT_GRID_HESSIAN &&
        snrq_option_find_idle(options, "scale-signs") != NULL)
        json_object_set_new(stored, "scale-signs", json_string("either"));
    json_object_foreach((json_t *)entry, key, value)
    {
        if (is_rule_key(key) && json_object_set(stored, key, value) != 0)
            status = snrq_fail(SNRQ_INTERNAL, "no memory");
        /* What was fixed to one is free again where the method has beams. */
        if ((strcmp(key, "bits") == 0 || strcmp(key, "group-size") == 0) &&
            json_object_get(entry, "format") == NULL)
            json_object_del(stored, "format");
        if (strcmp(key, "method") == 0 && json_object_get(entry, "beam") == NULL)
            json_object_del(stored, "beam");
        if (strcmp(key, "format") == 0 && json_object_get(entry, "bits") == NULL)
            json_object_del(stored, "bits");
    }
    if (status == SNRQ_OK) status = snrq_options_restore(stored, &changed);
    if (status == SNRQ_OK) *out = snrq_options_rule(&changed);
    if (status == SNRQ_OK)
        out->keep = json_is_true(json_object_get(entry, "keep"));
    else
        status = snrq_fail(status, "%s: rule %zu: %s", path, index + 1, snrq_error_message());
    json_decref(stored);
    return status;
}

/* Which entry a module gets: the first that matches, or -1. */
static int64_t entry_of(const json_t *recipe, int64_t layer, const char *below)
{
    size_t i;
    const json_t *entry;
    json_array_foreach((json_t *)recipe, i,
                       entry) if (matches(entry, layer, below)) return (int64_t)i;
    return -1;
}

/* Is it the name of a table? Patterns with wildcards never are. */
static bool names_table(const json_t *pattern, int table)
{
    const char *text = json_string_value(pattern), *name = snrq_table_names[table];
    return strcmp(text, name) == 0 ||
           (strncmp(name, "model.", 6) == 0 && strcmp(text, name + 6) == 0);
}

/* The rule that the table gets: to the nearest, by the grid of the weights alone. */
static snrq_rule rule_of_table(const snrq_rule *from)
{
    snrq_rule rule = *from;
    rule.method = SNRQ_RTN;
    rule.grid = from->grid == SNRQ_QUANT_GRID_HESSIAN ? SNRQ_QUANT_GRID_MSE : from->grid;
    rule.permuted_groups = rule.natural_order = rule.weighs_outputs = rule.either_sign = false;
    rule.alpha_mode = SNRQ_ALPHA_FIXED;
    rule.alpha_value = rule.damp = rule.shrink = rule.compensate = 0.0;
    rule.beam = 1;
    rule.refine = rule.regrid = 0;
    return rule;
}

/* The entry of a table: the first that names it, or -1. */
static int64_t entry_of_table(const json_t *recipe, int table)
{
    size_t i, k;
    const json_t *entry, *pattern;
    json_array_foreach((json_t *)recipe, i, entry)
    {
        const json_t *patterns = json_object_get(entry, "modules");
        if (json_is_string(patterns) && names_table(patterns, table)) return (int64_t)i;
        json_array_foreach((json_t *)patterns, k,
                           pattern) if (names_table(pattern, table)) return (int64_t)i;
    }
    return -1;
}

/* Does a pattern of the entry match a module? */
static bool matches_any(const json_t *entry, const json_t *pattern, const snrq_model *model)
{
    if (names_table(pattern, SNRQ_EMBEDDING_TABLE)) return true;
    if (names_table(pattern, SNRQ_HEAD_TABLE)) return !model->config.tied_embeddings;
    for (int64_t layer = 0; layer < model->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(model, layer);
        for (int m = 0; m < f->modules && is_block_of(entry, layer); m++)
            if (pattern_matches(pattern, layer, f->module[m].name)) return true;
    }
    return false;
}

/* A pattern that matches nothing is a mistake. */
static snrq_status check_matches(const char *path, size_t index, const json_t *entry,
                                 const snrq_model *model)
{
    const json_t *patterns = json_object_get(entry, "modules");
    const bool alone = json_is_string(patterns);
    const size_t count = alone ? 1 : json_array_size(patterns);
    char shown[SNRQ_SHOWN];
    for (size_t i = 0; i < count; i++) {
        const json_t *pattern = alone ? patterns : json_array_get(patterns, i);
        if (matches_any(entry, pattern, model)) continue;
        return snrq_fail(SNRQ_USAGE,
                         "%s: rule %zu matches no module with \"%s\"; `snrq inspect MODEL` lists "
                         "them",
                         path, index + 1, snrq_shown(json_string_value(pattern), shown));
    }
    return SNRQ_OK;
}

/* A run that quantizes nothing is a mistake, too. */
static snrq_status check_kept(const char *path, const snrq_model *model, const snrq_rules *rules)
{
    if (!snrq_rules_first(rules, model)->keep) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "%s: all modules are kept: nothing is left to quantize", path);
}

/* What reads the same input shares its statistics; an expert's modules are rounded together, and so
 * are those of gptaq, which solves with D in place. */
static snrq_status check_units(const char *path, const snrq_model *model, const snrq_rules *rules)
{
    for (int64_t layer = 0; layer < model->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(model, layer);
        for (int u = 0; u < f->units; u++) {
            const snrq_rule *first = snrq_rules_at(rules, layer, f->unit[u].first);
            for (int m = f->unit[u].first + 1; m < f->unit[u].end; m++) {
                const snrq_rule *other = snrq_rules_at(rules, layer, m);
                const bool routed =
                    snrq_step_is_routed(f, f->unit[u].step) || first->method == SNRQ_GPTAQ;
                if (routed ? snrq_rule_equals(first, other)
                           : snrq_rule_shares_statistics(first, other))
                    continue;
                return snrq_fail(SNRQ_USAGE,
                                 "%s: block %lld: %s and %s read the same input; give them the "
                                 "same %s",
                                 path, (long long)layer, f->module[f->unit[u].first].name,
                                 f->module[m].name,
                                 routed ? "settings"
                                        : "keep, method, order, alpha, damp, shrink and "
                                          "compensate");
            }
        }
    }
    return SNRQ_OK;
}

snrq_status snrq_recipe_apply(const char *path, const json_t *recipe, const snrq_options *options,
                              const snrq_model *model, snrq_rules *rules)
{
    const size_t count = json_array_size(recipe);
    snrq_rule *rule = NULL;
    snrq_status status = snrq_allocate(count, sizeof *rule, "rules of a recipe", &rule);
    for (size_t i = 0; status == SNRQ_OK && i < count; i++) {
        const json_t *entry = json_array_get(recipe, i);
        status = check_format(path, i, entry);
        if (status == SNRQ_OK) status = rule_of(path, i, entry, options, &rule[i]);
        rule[i].inputs = rules->rule[0].inputs;
        rule[i].residual_inputs = rules->rule[0].residual_inputs;
        if (status == SNRQ_OK) status = check_matches(path, i, entry, model);
    }
    for (int64_t layer = 0; status == SNRQ_OK && layer < rules->layers; layer++) {
        const snrq_family *f = snrq_model_family(model, layer);
        for (int m = 0; m < f->modules; m++) {
            int64_t entry = entry_of(recipe, layer, f->module[m].name);
            if (entry >= 0) rules->rule[layer * rules->modules + m] = rule[entry];
        }
    }
    for (int t = 0; status == SNRQ_OK && t < SNRQ_TABLES; t++) {
        const int64_t entry = entry_of_table(recipe, t);
        if (entry >= 0 && !rule[entry].keep) rules->table[t] = rule_of_table(&rule[entry]);
    }
    free(rule);
    if (status == SNRQ_OK) status = check_units(path, model, rules);
    return status == SNRQ_OK ? check_kept(path, model, rules) : status;
}

void snrq_recipe_pattern(const snrq_family *f, int module, char *out)
{
    static const char experts[] = ".experts.";
    const size_t size = SNRQ_MODULE_NAME + 2;
    const char *name = f->module[module].name, *number = strstr(name, experts);
    if (number == NULL || f->unit[f->module[module].unit].expert < 0) {
        snprintf(out, size, "%s", name);
        return;
    }
    number += sizeof experts - 1;
    snprintf(out, size, "%.*s*%s", (int)(number - name), name,
             number + strspn(number, "0123456789"));
}

int snrq_recipe_patterns(const snrq_family *f, int step)
{
    int first, end, count = 0;
    snrq_step_modules(f, step, &first, &end);
    for (int m = first; m < end; m++) {
        char own[SNRQ_MODULE_NAME + 2], other[SNRQ_MODULE_NAME + 2] = "";
        int before = first;
        snrq_recipe_pattern(f, m, own);
        for (; before < m && strcmp(own, other) != 0; before++)
            snrq_recipe_pattern(f, before, other);
        count += strcmp(own, other) != 0;
    }
    return count;
}
