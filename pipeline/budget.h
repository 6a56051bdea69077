/* Bits within a budget: a width for each step of each block, so that the divergence that an
 * assessment (assess.h) predicts is smallest. Source: docs/method.md, "Bits within a budget".
 */
#ifndef SNRQ_BUDGET_H
#define SNRQ_BUDGET_H

#include <jansson.h>

#include "pipeline/model/model.h"
#include "pipeline/options.h"

/* What was made of it. */
typedef struct snrq_budget {
    double bits_per_weight; /* of the modules, scales and zeros counted; 0: no budget is given */
    double kl;              /* predicted, in nats per token */
} snrq_budget;

/* Bits per weight of all modules with so many bits each, in groups of the options' size. Not
 * collective. */
double snrq_uniform_bits(const snrq_options *options, const snrq_model *model, int bits);

/* *rules <- the rules of a recipe for --target-bits or --target-size; the caller releases them.
 * SNRQ_USAGE if the budget is too small, or the assessment is of another model or of other
 * settings; SNRQ_BAD_DATA if it is damaged. Not collective. */
snrq_status snrq_budget_rules(const snrq_options *options, const snrq_model *model, json_t **rules,
                              snrq_budget *out);

#endif
