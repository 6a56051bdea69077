/* Rows of a dense fp32 table times a distributed matrix, and solves with its Cholesky factor.
 *
 * Symbols: X [rows, n] this rank's rows, row-major, each rank with others, possibly none; A, H, L
 * [n, n] as in matrix.h and factor.h; f a power of two.
 *
 * Panels of the matrix go to all ranks in turn and are rounded to fp32; each rank multiplies its
 * own rows, on all of its threads. The bits of a row follow from that row and the matrix alone:
 * they do not depend on the number of ranks or threads, or on which rows a rank has.
 *
 * Accuracy, with u = 2^-24: a product is good to some u |x| |A| per element. A solve is good in the
 * metric of H, where it counts: ||dx L|| <= c u sqrt(cond H) ||x L||, c about sqrt(n) at most; it
 * goes through L, hence the square root. Factors f keep numbers in the range of fp32 and are exact.
 */
#ifndef SNRQ_ROW_PRODUCTS_H
#define SNRQ_ROW_PRODUCTS_H

#include "mpi/algebra/matrix.h"

/* out [rows, n] <- f X A. Collective over A's context; agreed. */
snrq_status snrq_row_multiply(const snrq_matrix *a, double f, int64_t rows, const float *x,
                              float *out);

/* forms [rows] <- f x A x^T for each row x. A is symmetric: only its lower triangle is read.
 * Collective; agreed. */
snrq_status snrq_row_forms(const snrq_matrix *a, double f, int64_t rows, const float *x,
                           double *forms);

/* X <- X (f^2 H)^-1 with H = L L^T, and forms [rows] <- x (f^2 H)^-1 x^T for each row x that was
 * given. Collective; agreed. */
snrq_status snrq_row_solve(const snrq_matrix *l, double f, int64_t rows, float *x, double *forms);

/* Bytes that these need on a rank besides their arguments. Not collective. */
int64_t snrq_row_bytes(int64_t columns);

#endif
