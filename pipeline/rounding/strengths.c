/* Choice of the strengths; see strengths.h. */
#include "pipeline/rounding/strengths.h"

#include <math.h>

/* Found on stories3M with 16 and 128 sequences and on SmolLM2-135M with 16; measured on more
 * (docs/method.md). */
static const double LEAST_SHRINK = 0.1, SHRINK_PER_COLUMN = 2.0, LEVEL_PER_COLUMN = 1.0;
static const double MOST_STRENGTH = 0.7;
static const double INPUTS_HALVE = 0.12;   /* of a: as 1 / (1 + this times inputs per token), */
static const double MOST_INPUTS = 3.0;     /* of which no more than these count */
static const double RESIDUAL_HALVES = 0.5; /* of b: as 1 / (1 + its fourth power) */

snrq_strengths snrq_strengths_choose(const snrq_rule *rule, int64_t columns, int64_t tokens)
{
    double per_token = tokens > 0 ? 1.0 / (double)tokens : 0.0;
    snrq_strengths s = {rule->shrink, 0.0, rule->alpha_value, rule->compensate};
    if (rule->shrink == SNRQ_AUTO) {
        s.shrink = LEAST_SHRINK + SHRINK_PER_COLUMN * (double)columns * per_token;
        s.level = LEVEL_PER_COLUMN * (double)columns * per_token;
    }
    if (rule->alpha_mode == SNRQ_ALPHA_AUTO)
        s.alpha =
            MOST_STRENGTH / (1.0 + INPUTS_HALVE * fmin(rule->inputs * per_token, MOST_INPUTS));
    if (rule->compensate == SNRQ_AUTO) {
        double fitted = RESIDUAL_HALVES * rule->residual_inputs * per_token;
        s.compensation = MOST_STRENGTH / (1.0 + fitted * fitted * fitted * fitted);
    }
    if (!snrq_rule_compensates(rule)) s.compensation = 0.0;
    return s;
}
