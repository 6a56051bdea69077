/* Cholesky factorization of a damped Gram, and a solve with its factor (fp64).
 *
 * Symbols: H [n, n] the Gram (permuted, dead diagonal already 1), L its lower Cholesky factor after
 * damping. All threads of a rank take part; the bits of L and of a solution depend neither on their
 * number nor on the process grid.
 */
#ifndef SNRQ_FACTOR_H
#define SNRQ_FACTOR_H

#include "mpi/algebra/matrix.h"

typedef struct snrq_factor_report {
    double damping;  /* lambda that was added to the diagonal */
    double residual; /* ||L L^T - H||_F / ||H||_F, measured with a random vector: ||L L^T x - H x||
                        / ||H x|| */
    int attempts;    /* 1: the first damping worked */
} snrq_factor_report;

/* H <- H + lambda I with lambda = damp * mean(diag H), then L (out, [n, n], strict upper part
 * zero). If the factorization fails, or its residual exceeds 1e-10, damp is multiplied by 10 and
 * tried again, up to four times; after that SNRQ_BAD_DATA. H keeps the damped matrix that was
 * factorized. Collective. */
snrq_status snrq_factor_cholesky(snrq_matrix *h, double damp, snrq_matrix *l,
                                 snrq_factor_report *report);

/* x <- x L^-T, x [n, n]. Collective; agreed. */
snrq_status snrq_factor_solve_right(const snrq_matrix *l, snrq_matrix *x);

/* Bytes that these need on a rank besides their matrices, at most: two panels, and what brings one.
 * Not collective. */
int64_t snrq_factor_bytes(int64_t n);

#endif
