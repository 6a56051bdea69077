/* Rules from options; see rules.h. */
#include "pipeline/rules.h"

#include <stdlib.h>
#include <string.h>

#include "pipeline/model/kept.h"
#include "pipeline/options/preset.h"
#include "pipeline/recipe.h"

snrq_rule snrq_options_rule(const snrq_options *o)
{
    snrq_rule rule = {.method = (snrq_method)o->method,
                      .bits = (int)o->bits,
                      .group_size = o->group_size,
                      .symmetric = !o->asymmetric,
                      .permuted_groups = o->permuted_groups != 0,
                      .natural_order = o->natural_order != 0,
                      .scale_type = (snrq_dtype)o->scale_type,
                      .grid = (snrq_quant_grid_kind)o->grid,
                      .either_sign = o->either_sign != 0,
                      .alpha_mode = o->alpha_mode,
                      .alpha_value = o->alpha_value,
                      .beam = (int)o->beam,
                      .refine = (int)o->refine,
                      .regrid = (int)o->regrid,
                      .damp = o->damp,
                      .weighs_outputs = o->sensitivity != NULL,
                      .weighted_tokens = o->weighted_experts != 0,
                      .shrink = o->shrink,
                      .compensate = o->compensate};
    if (o->weight_format >= 0) snrq_rule_set_format(&rule, &snrq_weight_formats[o->weight_format]);
    return rule;
}

/* Inputs of the model's units, as a token sees them: of experts, those that it is sent to. */
static void count_inputs(const snrq_model *m, snrq_rule *rule)
{
    for (int64_t layer = 0; layer < m->config.layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int u = 0; u < f->units; u++) {
            rule->inputs += f->unit[u].share * (double)f->unit[u].columns;
            if (snrq_unit_writes_residual(f, u))
                rule->residual_inputs += (double)f->unit[u].columns;
        }
    }
}

/* Gives a module, called so, whose rows are not made of whole blocks of its format the narrow one.
 */
static snrq_status fit_format(const snrq_model *m, const char *name, int64_t columns,
                              snrq_rule *rule)
{
    if (rule->format == NULL || rule->keep) return SNRQ_OK;
    const snrq_weight_format *format = snrq_weight_format_for(rule->format, columns);
    if (format == NULL)
        return snrq_fail(SNRQ_USAGE,
                         "%s: %s has %lld inputs, and %s has groups of %lld: quantize with "
                         "--bits %d",
                         m->path, name, (long long)columns, rule->format->name,
                         (long long)rule->format->group, rule->format->bits);
    snrq_rule_set_format(rule, format);
    return SNRQ_OK;
}

static snrq_status fit_formats(const snrq_model *m, snrq_rules *rules)
{
    for (int64_t layer = 0; layer < rules->layers; layer++) {
        const snrq_family *f = snrq_model_family(m, layer);
        for (int i = 0; i < f->modules; i++) {
            snrq_rule *rule = &rules->rule[layer * rules->modules + i];
            SNRQ_TRY(fit_format(m, f->module[i].name, f->module[i].columns, rule));
        }
    }
    for (int t = 0; t < SNRQ_TABLES; t++) {
        SNRQ_TRY(fit_format(m, snrq_table_names[t], m->config.hidden, &rules->table[t]));
        const snrq_weight_format *format = rules->table[t].format;
        if (!rules->table[t].keep && format != NULL &&
            (strcmp(format->name, "nvfp4") == 0 || strcmp(format->name, "fp8_block") == 0))
            return snrq_fail(SNRQ_USAGE, "%s cannot be of %s: no export holds it",
                             snrq_table_names[t], format->name);
        if (!rules->table[t].keep && rules->tune > 0)
            return snrq_fail(
                SNRQ_USAGE,
                "--tune does not know quantized embeddings and heads (%s) yet; leave one "
                "of the two out",
                snrq_table_names[t]);
    }
    return SNRQ_OK;
}

/* --table-format: rules behind those of the recipe, which count first. */
static snrq_status add_tables(const snrq_options *o, const snrq_model *m, json_t **recipe)
{
    const int count = m->config.tied_embeddings ? 1 : SNRQ_TABLES;
    int failed = 0;
    if (*recipe == NULL) *recipe = json_array();
    for (int t = 0; t < count; t++)
        failed |= json_array_append_new(
            *recipe, json_pack("{s:s, s:s}", "modules", snrq_table_names[t], "format",
                               snrq_weight_formats[o->table_format].name));
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for a recipe");
}

snrq_status snrq_rules_create(const snrq_options *options, const snrq_model *model, snrq_rules *out)
{
    int64_t layers = model->config.layers, count = layers * snrq_model_max_modules(model);
    *out = (snrq_rules){.layers = layers,
                        .modules = snrq_model_max_modules(model),
                        .expert_tokens = options->expert_tokens,
                        .tune = options->tune};
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof *out->rule, "rules", &out->rule));
    snrq_rule rule = snrq_options_rule(options);
    count_inputs(model, &rule);
    for (int64_t i = 0; i < count; i++) out->rule[i] = rule;
    for (int t = 0; t < SNRQ_TABLES; t++) out->table[t] = (snrq_rule){.keep = true};
    const bool budget = options->target_bits > 0.0 || options->target_bytes > 0;
    const char *from = budget                    ? options->assessment
                       : options->recipe != NULL ? options->recipe
                       : options->preset >= 0    ? "--preset"
                                                 : "--table-format";
    if (budget)
        SNRQ_TRY(snrq_budget_rules(options, model, &out->recipe, &out->budget));
    else if (options->recipe != NULL)
        SNRQ_TRY(snrq_recipe_read(options->recipe, &out->recipe));
    else if (options->preset >= 0)
        SNRQ_TRY(snrq_preset_rules((int)options->preset, model, &out->recipe));
    if (options->table_format >= 0) SNRQ_TRY(add_tables(options, model, &out->recipe));
    if (out->recipe != NULL) SNRQ_TRY(snrq_recipe_apply(from, out->recipe, options, model, out));
    return fit_formats(model, out);
}

void snrq_rules_free(snrq_rules *rules)
{
    free(rules->rule);
    json_decref(rules->recipe);
    *rules = (snrq_rules){0};
}

snrq_status snrq_rules_mark_kept(const snrq_rules *rules, snrq_model *model)
{
    for (int64_t layer = 0; layer < rules->layers; layer++)
        for (int m = 0; m < snrq_model_family(model, layer)->modules; m++)
            if (snrq_rules_at(rules, layer, m)->keep) SNRQ_TRY(snrq_model_keep(model, layer, m));
    for (int t = 0; t < SNRQ_TABLES; t++) model->coded[t] = !rules->table[t].keep;
    return SNRQ_OK;
}

const snrq_rule *snrq_rules_first(const snrq_rules *rules, const snrq_model *model)
{
    for (int64_t layer = 0; layer < rules->layers; layer++)
        for (int m = 0; m < snrq_model_family(model, layer)->modules; m++)
            if (!snrq_rules_at(rules, layer, m)->keep) return snrq_rules_at(rules, layer, m);
    return snrq_rules_at(rules, 0, 0);
}

bool snrq_rules_differ(const snrq_rules *rules, const snrq_model *model)
{
    const snrq_rule *first = snrq_rules_first(rules, model);
    for (int64_t layer = 0; layer < rules->layers; layer++)
        for (int m = 0; m < snrq_model_family(model, layer)->modules; m++) {
            const snrq_rule *rule = snrq_rules_at(rules, layer, m);
            if (!rule->keep && !snrq_rule_equals(rule, first)) return true;
        }
    return false;
}

const snrq_rule *snrq_rules_at(const snrq_rules *rules, int64_t layer, int module)
{
    return &rules->rule[layer * rules->modules + module];
}

void snrq_rules_cut_units(const snrq_rules *rules, snrq_model *model)
{
    for (int64_t layer = 0; layer < rules->layers; layer++) {
        snrq_family *f =
            snrq_model_family(model, layer) == &model->sparse ? &model->sparse : &model->dense;
        for (int m = 1; m < f->modules; m++)
            if (f->module[m].part == f->module[m - 1].part &&
                !snrq_rule_equals(snrq_rules_at(rules, layer, m - 1),
                                  snrq_rules_at(rules, layer, m)))
                snrq_family_cut(f, m);
    }
}

snrq_status snrq_rules_of_part(const snrq_rules *rules, const snrq_family *f, int64_t layer,
                               int part, const snrq_rule **rule)
{
    const snrq_part_shape *u = &f->part[part];
    *rule = snrq_rules_at(rules, layer, u->first);
    for (int m = u->first + 1; m < u->end; m++)
        if (!snrq_rule_equals(*rule, snrq_rules_at(rules, layer, m)))
            return snrq_fail(SNRQ_INTERNAL,
                             "block %lld: %s and %s are rounded together, but have different rules",
                             (long long)layer, f->module[u->first].name, f->module[m].name);
    return SNRQ_OK;
}
