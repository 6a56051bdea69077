/* Rounding modules that share an input, once its statistics are gathered.
 *
 * The steps are those of the method page, called in this order:
 *
 *     shift     factorize H, put the targets' parts together, choose a
 *     fit       R, and the quantization grids for it; find numerical trouble
 *     search    round; refine; fit the scales anew and round again
 *     measure   objective, output error, clipped codes, next a
 *
 * The rows of the modules (q, k, v of one block, say) are stacked; every rank owns a run of whole
 * tiles of them.
 */
#ifndef SNRQ_ROUNDING_H
#define SNRQ_ROUNDING_H

#include "pipeline/rounding/trouble.h"

/* What is known about a rounded module. */
typedef struct snrq_rounded_module {
    double alpha, alpha_next;                /* alpha_next: NaN unless alpha is chained */
    double objective, output_error, clipped; /* as in snrq_module_record */
    double weighted; /* tr(G E H E^T); NaN where rows do not know of each other */
} snrq_rounded_module;

typedef struct snrq_rounding {
    const snrq_context *context; /* borrowed, as the next three */
    const snrq_rule *rule;
    snrq_statistics *statistics;
    const snrq_stack *stack;
    snrq_range mine; /* stacked rows of this rank */
    snrq_target_parts target;
    snrq_kept_panels panels; /* of L, for the searches after the first; empty: not kept */
    double *d2;              /* [columns] weights of the columns in the objective, L_jj^2 */
    snrq_groups groups;      /* owned */
    snrq_rows rows;          /* this rank's R, codes, scales, zeros, in decision order; owned */
    double *weighted;        /* [rows] each row's share of tr(G E H E^T), or NULL; owned */
    snrq_rounded_module *modules; /* [count] the same on all ranks; owned */
    snrq_trouble_list troubles;   /* the same on all ranks */
} snrq_rounding;

/* Stacked rows of a rank: whole tiles. Not collective. */
snrq_range snrq_rounding_share(int64_t rows, int size, int rank);

/* Allocates. The four arguments are borrowed until snrq_rounding_free(), which may be called after
 * a failure, too. Collective; agreed. */
snrq_status snrq_rounding_create(const snrq_context *context, const snrq_rule *rule,
                                 snrq_statistics *statistics, const snrq_stack *stack,
                                 snrq_rounding *out);

/* The steps. H in the statistics becomes the damped matrix. All are collective and agreed; messages
 * name the module. measure releases what only the steps need: groups, rows and figures stay. */
snrq_status snrq_rounding_shift(snrq_rounding *rounding);
snrq_status snrq_rounding_fit(snrq_rounding *rounding);
snrq_status snrq_rounding_search(snrq_rounding *rounding);
snrq_status snrq_rounding_measure(snrq_rounding *rounding);

void snrq_rounding_free(snrq_rounding *rounding);

#endif
