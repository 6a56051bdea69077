/* Bits within a budget: a width for each step of each block, so that the divergence that an
 * assessment (assess.h) predicts is smallest. Source: docs/method.md, "Bits within a budget".
 */
#ifndef SNRQ_BUDGET_H
#define SNRQ_BUDGET_H

#include <jansson.h>

#include "pipeline/model/model.h"
#include "pipeline/options/options.h"

/* What was made of it. */
typedef struct snrq_budget {
    double bits_per_weight; /* of the modules, scales and zeros counted; 0: no budget is given */
    double kl;              /* predicted, in nats per token */
    double bytes;           /* of the modules */
} snrq_budget;

/* *rules <- the rules of a recipe for --target-bits or --target-size; the caller releases them.
 * With
 * --for, only choices that the engine loads, all of them in one format; what it fuses has one
 * choice. SNRQ_USAGE if the budget is too small, or there is no such choice, or the assessment is
 * of another model or of other settings; SNRQ_BAD_DATA if it is damaged. Not collective. */
snrq_status snrq_budget_rules(const snrq_options *options, const snrq_model *model, json_t **rules,
                              snrq_budget *out);

/* The same by what options->assessment, a path for messages, would hold. */
snrq_status snrq_budget_rules_of(const snrq_options *options, const snrq_model *model,
                                 const json_t *assessment, json_t **rules, snrq_budget *out);

#endif
