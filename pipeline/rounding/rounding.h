/* Rounding modules that share an input, once its statistics are gathered.
 *
 * The steps are those of the method page: factorize H, shift the target, choose a, fit the grid,
 * round, refine, measure. The rows of the modules (q, k, v of one block, say) are stacked; every
 * rank owns a run of whole tiles of them.
 */
#ifndef SNRQ_ROUNDING_H
#define SNRQ_ROUNDING_H

#include "mpi/timers.h"
#include "pipeline/rounding/trouble.h"

/* Where the time of a run goes. */
typedef enum snrq_phase {
    SNRQ_PHASE_READ,
    SNRQ_PHASE_FORWARD,
    SNRQ_PHASE_GRAM,
    SNRQ_PHASE_FACTOR,
    SNRQ_PHASE_GRID,
    SNRQ_PHASE_SEARCH,
    SNRQ_PHASE_WRITE,
    SNRQ_PHASES
} snrq_phase;

/* Names of the phases, for reports; "rest" beyond the last. Borrowed. */
const char *snrq_phase_name(int phase);

/* What is known about a rounded module. */
typedef struct snrq_rounded_module {
    double alpha, alpha_next;                /* alpha_next: NaN unless alpha is chained */
    double objective, output_error, clipped; /* as in snrq_module_record */
} snrq_rounded_module;

typedef struct snrq_rounded {
    snrq_range mine;              /* stacked rows of this rank */
    snrq_groups groups;           /* owned */
    snrq_rows rows;               /* this rank's codes, scales, zeros, in decision order; owned */
    snrq_rounded_module *modules; /* [count] the same on all ranks; owned */
    snrq_factor_report factor;
    snrq_trouble_list troubles; /* the same on all ranks */
} snrq_rounded;

/* Does --regrid apply? Not to rtn, and not to methods that fit their grids on the way. Not
 * collective. */
bool snrq_regrids(const snrq_options *options);

/* Stacked rows of a rank: whole tiles. Not collective. */
snrq_range snrq_rounding_share(int64_t rows, int size, int rank);

/* Rounds the modules. H in `statistics` becomes the damped matrix. With --strict, any trouble
 * (trouble.h) is SNRQ_BAD_DATA before the search. Collective; agreed; messages name the module. */
snrq_status snrq_round_modules(const snrq_context *context, const snrq_options *options,
                               snrq_timers *timers, snrq_statistics *statistics,
                               const snrq_modules *modules, snrq_rounded *out);
void snrq_rounded_free(snrq_rounded *rounded);

#endif
