/* What modules that read the same input are calibrated on: the Grams of that input.
 *
 * Symbols:
 *   X, Xf [tokens, n]          the input in the quantized and in the full-precision stream
 *   dX = Xf - X, N             the mismatch; the number of sequences
 *   H = (2/N) sum X^T X        D = (2/N) sum dX^T X
 *   E = (2/N) sum dX^T dX      only for alpha corr
 *   h, hf [tokens, m], C       the residual stream that the outputs are added to; C = (2/N) sum
 *                              (hf - h)^T X [m, n], only of units that write to it
 * H, D, E are [n, n], block-cyclic, rows and columns in decision order: p = indices of diag(H)
 * ascending, ties by index. Dead inputs (H_jj = 0) get H_jj = 1 and no share in D and E. Source:
 * docs/method.md.
 */
#ifndef SNRQ_STATISTICS_H
#define SNRQ_STATISTICS_H

#include "mpi/algebra/gram.h"
#include "mpi/team.h"
#include "pipeline/rounding/strengths.h"

typedef struct snrq_statistics {
    int64_t columns, dead_inputs;
    bool reused;                     /* other modules are rounded with them later: D stays */
    int64_t tokens;                  /* distinct ones that were gathered; 0: unknown */
    double per_token;                /* N / (2 tokens), all counted: times H is the mean of x x^T */
    int32_t *order;                  /* [columns] original column at decision position k; owned */
    unsigned char *dead;             /* [columns] by decision position; owned */
    snrq_process_grid *process_grid; /* owned; NULL on ranks of another team */
    snrq_matrix *h;                  /* owned */
    snrq_matrix *d, *e;              /* owned; NULL where they are not needed */
    snrq_matrix *c;                  /* C^T [n, m], rows in decision order, or NULL; owned */
    snrq_strengths strengths;        /* by how many tokens there are */
} snrq_statistics;

/* Shape of the process grid that factorizes; zeros: by the size of the matrix. */
typedef struct snrq_process_shape {
    int rows, columns;
} snrq_process_shape;

/* The input of a unit: both streams of this rank's sequences, which hold the same tokens. */
typedef struct snrq_unit_input {
    const snrq_activations *x, *xf;
    int64_t sequences_global; /* N */
    const double *alphas;     /* [local sequences] of alpha sampled, else NULL */
    int64_t distinct_global;  /* positions of the text that the tokens are from; 0: all differ */
    const snrq_activations *h, *hf; /* of a unit that writes to the residual stream, else NULL */
    double residual_scale;          /* of what it writes there */
} snrq_unit_input;

/* Gathers the statistics that `rule` needs of the input of all ranks, for a team of them: H, D, E
 * and C are NULL on the others. shape: where the team has all ranks. Collective over the context;
 * agreed. */
snrq_status snrq_statistics_gather(const snrq_context *context, const snrq_team *team,
                                   const snrq_rule *rule, snrq_process_shape shape,
                                   const snrq_unit_input *input, snrq_statistics *out);
/* The same of other tokens of a unit, in the order of its statistics `like`, and with dead inputs
 * as they are (H_jj may be 0): to judge what was made of those. Collective; agreed. */
snrq_status snrq_statistics_gather_like(const snrq_context *context, const snrq_team *team,
                                        const snrq_rule *rule, snrq_process_shape shape,
                                        const snrq_unit_input *input, const snrq_statistics *like,
                                        snrq_statistics *out);
void snrq_statistics_free(snrq_statistics *statistics);

/* The two steps that do not need activations, for statistics that come from elsewhere. order:
 * allocates and fills order and dead from diag(H) [columns] (columns set before). start: makes the
 * process grid for matrices of this order; collective. */
snrq_status snrq_statistics_order(const snrq_rule *rule, const double *diagonal,
                                  snrq_statistics *statistics);
snrq_status snrq_statistics_start(const snrq_context *context, snrq_process_shape shape,
                                  snrq_statistics *statistics);

/* Per-sequence strengths of alpha sampled:B (SNRQ-S): u ~ Beta(B, B), a = min(u, 1 - u); a function
 * of (seed, sequence) only. alphas [range of sequences]. */
void snrq_sampled_alphas(double beta, uint64_t seed, snrq_range sequences, double *alphas);

#endif
