/* The rules of a run: how each module of each block is rounded (rounding/rule.h).
 *
 * Made once, from the options; everything below gets the rule of its module and never sees the
 * options.
 */
#ifndef SNRQ_RULES_H
#define SNRQ_RULES_H

#include <jansson.h>

#include "pipeline/budget.h"
#include "pipeline/model/model.h"
#include "pipeline/options/options.h"

typedef struct snrq_rules {
    int64_t layers;
    int modules;                  /* of a block, at most */
    snrq_rule *rule;              /* [layers, modules] owned */
    snrq_rule table[SNRQ_TABLES]; /* of embeddings and head; kept unless a recipe names them */
    int64_t expert_tokens;        /* --expert-tokens; 0: auto */
    int64_t tune;                 /* epochs of tuning behind it; 0: none */
    json_t *recipe;               /* that some of them are from, or NULL; owned */
    snrq_budget budget;           /* that the recipe was made for, or zeros */
} snrq_rules;

/* The rule that the options ask for. They hold what is done where a method does not use one: one
 * beam, no passes. */
snrq_rule snrq_options_rule(const snrq_options *options);

/* Gives every module the options' rule, but for what --recipe says, or what is best
 * within --target-bits or --target-size. SNRQ_BAD_DATA or SNRQ_USAGE
 * for a bad recipe. Not collective. */
snrq_status snrq_rules_create(const snrq_options *options, const snrq_model *model,
                              snrq_rules *out);
void snrq_rules_free(snrq_rules *rules);

/* Tells the model which modules stay as they are, and which tables do not. SNRQ_USAGE if one
 * cannot. */
snrq_status snrq_rules_mark_kept(const snrq_rules *rules, snrq_model *model);

/* The rule of the first module that is quantized. Borrowed. */
const snrq_rule *snrq_rules_first(const snrq_rules *rules, const snrq_model *model);

/* Do modules that are quantized have different rules? */
bool snrq_rules_differ(const snrq_rules *rules, const snrq_model *model);

/* The rule of a module. Borrowed. */
const snrq_rule *snrq_rules_at(const snrq_rules *rules, int64_t layer, int module);

/* Cuts units of the model into parts where modules that share an input have different rules in
 * some block. Not collective. */
void snrq_rules_cut_units(const snrq_rules *rules, snrq_model *model);

/* The one rule of a part, whose modules are rounded together. SNRQ_INTERNAL if they have several.
 * *rule is borrowed. */
snrq_status snrq_rules_of_part(const snrq_rules *rules, const snrq_family *family, int64_t layer,
                               int part, const snrq_rule **rule);

#endif
