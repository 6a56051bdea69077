/* Which strength a module would have by its statistics, and which one by tokens that these were not
 * made of.
 *
 * Symbols as in target.h; S = D H^-1 of the fitted tokens, and H', D' of others. The target
 * R(a) = W + a W S is to give the output of the full-precision input: over the others, the error
 *
 *     (2/N) sum || W (X + dX)' - R(a) X' ||^2 = constant - 2 a tr(W D' S' W') + a^2 tr(W S H' S'
 * W')
 *
 * is least at a = tr(W D' S' W') / tr(W S H' S' W'). Source: docs/method.md, "Strengths that an
 * assessment tells".
 */
#ifndef SNRQ_ALPHA_TRIAL_H
#define SNRQ_ALPHA_TRIAL_H

#include "pipeline/rounding/target.h"

/* Of a module. All but the first two are shares of tr(W H W'), the fitted output. */
typedef struct snrq_alpha_trial {
    double corr, held_out; /* a, 0 to 1 */
    double energy;         /* tr(W E W'): of the mismatch */
    double reachable;      /* tr(W D H^-1 D' W'): what of it a change of weights can reach */
    double product, shift; /* tr(W D' S' W') and tr(W S H' S' W') */
} snrq_alpha_trial;

/* out [modules of the stack], the same on all ranks. The rule shifts targets and has alpha corr;
 * `fitted` has H, D and E, of which H is damped here; `other`, in its order, H and D. Collective;
 * agreed. */
snrq_status snrq_alpha_trial_make(const snrq_context *context, const snrq_rule *rule,
                                  snrq_statistics *fitted, const snrq_statistics *other,
                                  const snrq_stack *stack, snrq_alpha_trial *out);

#endif
