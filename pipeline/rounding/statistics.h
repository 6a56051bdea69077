/* What a stage's modules are calibrated on: the Grams of their common input.
 *
 * Symbols:
 *   X, Xf [tokens, n]          the input in the quantized and in the full-precision stream
 *   dX = Xf - X, N             the mismatch; the number of sequences
 *   H = (2/N) sum X^T X        D = (2/N) sum dX^T X
 *   E = (2/N) sum dX^T dX      only for alpha corr
 * all [n, n], block-cyclic, rows and columns in decision order: p = indices of diag(H) ascending,
 * ties by index. Dead inputs (H_jj = 0) get H_jj = 1 and no share in D and E. Source:
 * docs/method.md.
 */
#ifndef SNRQ_STATISTICS_H
#define SNRQ_STATISTICS_H

#include "mpi/algebra/gram.h"
#include "pipeline/options.h"

typedef struct snrq_statistics {
    int64_t columns, dead_inputs;
    int64_t tokens;      /* that were gathered, on all ranks; 0: unknown */
    int32_t *order;      /* [columns] original column at decision position k; owned */
    unsigned char *dead; /* [columns] by decision position; owned */
    snrq_grid *grid;     /* owned */
    snrq_matrix *h;      /* owned */
    snrq_matrix *d, *e;  /* owned; NULL where they are not needed */
} snrq_statistics;

/* Does this method shift its target? Does it need D (as gptaq does, too)? Does it need E? */
bool snrq_shifts_target(const snrq_options *options);
bool snrq_uses_mismatch(const snrq_options *options);
bool snrq_uses_mismatch_energy(const snrq_options *options);

/* Gathers the statistics of x (quantized stream) and xf (full-precision stream). sequences_global:
 * N. alphas: [local sequences] of alpha sampled, else NULL. Collective; agreed. */
snrq_status snrq_statistics_gather(const snrq_context *context, const snrq_options *options,
                                   const snrq_activations *x, const snrq_activations *xf,
                                   int64_t sequences_global, const double *alphas,
                                   snrq_statistics *out);
void snrq_statistics_free(snrq_statistics *statistics);

/* The two steps that do not need activations, for statistics that come from elsewhere. order:
 * allocates and fills order and dead from diag(H) [columns] (columns set before). grid: makes the
 * process grid for matrices of this order; collective. */
snrq_status snrq_statistics_order(const snrq_options *options, const double *diagonal,
                                  snrq_statistics *statistics);
snrq_status snrq_statistics_grid(const snrq_context *context, const snrq_options *options,
                                 snrq_statistics *statistics);

/* Per-sequence strengths of alpha sampled:B (SNRQ-S): u ~ Beta(B, B), a = min(u, 1 - u); a function
 * of (seed, sequence) only. alphas [range of sequences]. */
void snrq_sampled_alphas(double beta, uint64_t seed, snrq_range sequences, double *alphas);

#endif
