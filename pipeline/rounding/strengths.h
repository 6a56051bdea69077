/* How much of what the calibration tokens show is believed.
 *
 * H, D and C are sums over a sample. Each unit fits its target on the same tokens, and so do the
 * units before it, which made the streams that it sees. The more is fitted per token, the more of
 * the mismatch that is seen there is chance. What is chosen here falls with these ratios, and with
 * many tokens reaches what was best where tokens are plenty. Derivation and measurements:
 * docs/method.md, "How much the tokens support".
 */
#ifndef SNRQ_STRENGTHS_H
#define SNRQ_STRENGTHS_H

#include "pipeline/rounding/rule.h"

typedef struct snrq_strengths {
    double shrink;       /* delta of H + delta diag(H) */
    double level;        /* more damping, as a share of mean(diag H); only with shrink auto */
    double alpha;        /* a; only of the rule's modes fixed and auto */
    double compensation; /* b */
} snrq_strengths;

/* For a unit of so many columns. tokens: distinct ones that were gathered; 0: unknown, taken as
 * plenty. Not collective. */
snrq_strengths snrq_strengths_choose(const snrq_rule *rule, int64_t columns, int64_t tokens);

#endif
