/* A unit rounded from the statistics of its input: as an assessment's block has it, and with every
 * choice.
 */
#ifndef SNRQ_ASSESS_UNIT_H
#define SNRQ_ASSESS_UNIT_H

#include <jansson.h>

#include "pipeline/assess/choices.h"
#include "pipeline/unit.h"

/* The unit whose modules are rounded. All borrowed. */
typedef struct snrq_assess_unit {
    const snrq_context *context;
    const snrq_loaded_block *full;
    const snrq_loaded_block *quantized; /* gets the codes */
    int64_t layer;
    int unit;
} snrq_assess_unit;

/* The strengths of its modules by the statistics of fitted and of other tokens
 * (rounding/alpha_trial.h), in *list: an object for each; a new reference. `fitted` is used up.
 * Collective; agreed. */
snrq_status snrq_assess_alphas(const snrq_assess_unit *unit, const snrq_rule *rule,
                               snrq_statistics *fitted, const snrq_statistics *other,
                               json_t **list);

/* Rounds it by a rule. The statistics are used up. Collective; agreed. */
snrq_status snrq_assess_round(const snrq_assess_unit *unit, const snrq_rule *rule,
                              snrq_statistics *statistics);

/* The same with the rule's width; and with every choice greedily and to nearest, for the figures
 * alone. *modules is a list with an object for each, *inputs an object about the input; new
 * references. Collective; agreed. */
snrq_status snrq_assess_choices(const snrq_assess_unit *unit, const snrq_choices *choices,
                                const snrq_rule *rule, snrq_statistics *statistics,
                                json_t **modules, json_t **inputs);

#endif
