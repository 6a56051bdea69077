/* What a planned run can be exported to, and which engines load it; see plan.h. */
#include <string.h>

#include "pipeline/export.h"
#include "pipeline/export/engines.h"
#include "pipeline/plan.h"

static snrq_export_facts facts_of(const snrq_model *m, const snrq_rule *r)
{
    snrq_export_facts planned = snrq_export_facts_planned(m, r->bits, r->group_size, r->symmetric,
                                                          r->permuted_groups, r->scale_type);
    planned.format = r->format;
    return planned;
}

snrq_status snrq_plan_exports(const snrq_model *m, const snrq_rule *r, json_t **rows,
                              int64_t *better)
{
    const snrq_export_facts planned = facts_of(m, r);
    *better = r->format != NULL ? 0 : snrq_export_better_group(m, &planned);
    return snrq_export_forecast(m, &planned, rows);
}

/* What a rule makes impossible, the mixture cannot be exported to. */
static snrq_status add_forecast(const snrq_model *m, const snrq_rule *r, json_t *rows)
{
    json_t *own = NULL, *row;
    int64_t better;
    size_t i;
    SNRQ_TRY(snrq_plan_exports(m, r, &own, &better));
    json_array_foreach(own, i, row) if (!json_is_true(json_object_get(row, "possible")))
        json_array_set(rows, i, row);
    json_decref(own);
    return SNRQ_OK;
}

/* Does a module before this one have the same rule? */
static bool is_repeated(const snrq_rules *rules, const snrq_model *m, int64_t layer, int module)
{
    const snrq_rule *r = snrq_rules_at(rules, layer, module);
    if (module > 0 && snrq_rule_equals(r, snrq_rules_at(rules, layer, module - 1))) return true;
    return layer > 0 && module < snrq_model_family(m, layer - 1)->modules &&
           snrq_rule_equals(r, snrq_rules_at(rules, layer - 1, module));
}

snrq_status snrq_plan_forecast(const snrq_model *m, const snrq_rules *rules, json_t **rows,
                               int64_t *better)
{
    SNRQ_TRY(snrq_plan_exports(m, snrq_rules_first(rules, m), rows, better));
    if (!snrq_rules_differ(rules, m)) return SNRQ_OK;
    *better = 0;
    for (int64_t layer = 0; layer < rules->layers; layer++)
        for (int i = 0; i < snrq_model_family(m, layer)->modules; i++)
            if (!snrq_rules_at(rules, layer, i)->keep && !is_repeated(rules, m, layer, i))
                SNRQ_TRY(add_forecast(m, snrq_rules_at(rules, layer, i), *rows));
    return SNRQ_OK;
}

/* Experts of a block that an engine fuses: vLLM all of their modules, llama.cpp those of a name. */
static snrq_status check_experts(const snrq_model *m, const snrq_rules *rules, int64_t engine,
                                 int64_t layer)
{
    const snrq_family *f = snrq_model_family(m, layer);
    const bool all = snrq_engine_fuses(engine);
    int first = -1;
    for (int u = 0; u < f->units; u++) {
        if (f->unit[u].expert < 0 || (!all && engine != SNRQ_ENGINE_LLAMA_CPP)) continue;
        if (first < 0 || (!all && f->unit[u].step != f->unit[first].step)) first = u;
        const int a = f->unit[first].first, b = f->unit[u].first;
        if (snrq_rule_equals(snrq_rules_at(rules, layer, a), snrq_rules_at(rules, layer, b)))
            continue;
        return snrq_fail(SNRQ_USAGE,
                         "--for %s: block %lld: it fuses %s and %s, which have different settings",
                         snrq_engine_name((snrq_engine)engine), (long long)layer, f->module[a].name,
                         f->module[b].name);
    }
    return SNRQ_OK;
}

/* Modules with one input that vLLM fuses into one: q, k and v; gate and up. */
static snrq_status check_fused(const snrq_model *m, const snrq_rules *rules, int64_t engine,
                               int64_t layer)
{
    const snrq_family *f = snrq_model_family(m, layer);
    for (int u = 0; u < f->units && snrq_engine_fuses(engine); u++) {
        const int first = f->unit[u].first;
        for (int k = first + 1; k < f->unit[u].end && f->unit[u].expert < 0; k++)
            if (!snrq_rule_equals(snrq_rules_at(rules, layer, first),
                                  snrq_rules_at(rules, layer, k)))
                return snrq_fail(SNRQ_USAGE,
                                 "--for %s: block %lld: it fuses %s and %s, which have different "
                                 "settings: give them the same in the recipe",
                                 snrq_engine_name((snrq_engine)engine), (long long)layer,
                                 f->module[first].name, f->module[k].name);
    }
    return SNRQ_OK;
}

/* The first module that the engine does not load in a format, as "FORMAT not block L NAME", or "".
 */
static void find_not_loaded(const snrq_model *m, const snrq_rules *rules, int64_t engine,
                            snrq_format_choice format, size_t room, char *found)
{
    found[0] = '\0';
    for (int64_t layer = 0; layer < rules->layers; layer++)
        for (int i = 0; i < snrq_model_family(m, layer)->modules; i++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, i);
            if (r->keep || is_repeated(rules, m, layer, i)) continue;
            const snrq_export_facts planned = facts_of(m, r);
            if (snrq_export_loads(m, &planned, engine, format)) continue;
            snprintf(found, room, "%s not block %lld %s", snrq_export_read_name(engine, format),
                     (long long)layer, snrq_model_family(m, layer)->module[i].name);
            return;
        }
}

/* One format for all modules: of an export there is one. */
static snrq_status check_one_format(const snrq_model *m, const snrq_rules *rules, int64_t engine)
{
    char all[512] = "", found[128];
    for (int i = 0; i < SNRQ_FORMATS; i++) {
        const snrq_format_choice format = (snrq_format_choice)i;
        const size_t used = strlen(all);
        if (snrq_export_read_name(engine, format) == NULL) continue;
        find_not_loaded(m, rules, engine, format, sizeof found, found);
        if (found[0] == '\0') return SNRQ_OK;
        snprintf(all + used, sizeof all - used, "%s%s", used > 0 ? ", " : "", found);
    }
    return snrq_fail(SNRQ_USAGE,
                     "--for %s: it loads every module in some format, but no format holds all of "
                     "them: %s",
                     snrq_engine_name((snrq_engine)engine), all);
}

snrq_status snrq_plan_check_engine(const snrq_model *m, const snrq_rules *rules, int64_t engine)
{
    if (engine < 0) return SNRQ_OK;
    for (int64_t layer = 0; layer < rules->layers; layer++) {
        SNRQ_TRY(check_experts(m, rules, engine, layer));
        SNRQ_TRY(check_fused(m, rules, engine, layer));
        for (int i = 0; i < snrq_model_family(m, layer)->modules; i++) {
            const snrq_rule *r = snrq_rules_at(rules, layer, i);
            if (r->keep || is_repeated(rules, m, layer, i)) continue;
            const snrq_export_facts planned = facts_of(m, r);
            SNRQ_TRY(snrq_export_check_planned(m, &planned, engine));
        }
    }
    return check_one_format(m, rules, engine);
}
