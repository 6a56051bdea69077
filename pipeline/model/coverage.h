/* How many calibration tokens each expert of a block has.
 *
 * An expert with too few tokens is topped up with those whose score for it comes next: it is
 * calibrated on them, but they do not get its output.
 *
 * Source: docs/method.md, "Experts".
 */
#ifndef SNRQ_COVERAGE_H
#define SNRQ_COVERAGE_H

#include "mpi/context.h"
#include "pipeline/model/router.h"

/* How the tokens of the fitted sequences are spread over the experts of a block. */
typedef struct snrq_coverage {
    int experts;
    int64_t tokens;              /* of all fitted sequences, each sent to several experts */
    int64_t least, median, most; /* of an expert, before it was topped up */
    int64_t topped_up;           /* experts that got more */
    int64_t short_of;            /* of these, experts that have too few even so */
    int64_t *sent;               /* [experts] tokens of each, before; owned */
} snrq_coverage;

void snrq_coverage_free(snrq_coverage *coverage);

/* Adds to `tokens`, which this rank's `routes` send to the experts, what experts lack that are sent
 * fewer than `least` of all ranks' fitted tokens; with a weight of 0. The rank's fitted tokens are
 * its first `fitted_tokens`, `first_token` is the number of the first among all ranks' tokens;
 * all_tokens: fitted ones of all ranks. The same choice on any number of ranks. Collective;
 * agreed. The coverage is to be freed even after a failure. */
snrq_status snrq_experts_top_up(const snrq_context *context, const snrq_routes *routes,
                                int64_t first_token, int64_t fitted_tokens, int64_t all_tokens,
                                int64_t least, snrq_expert_tokens *tokens, snrq_coverage *coverage);

#endif
