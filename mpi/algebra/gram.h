/* Gram matrices of activations, summed over sequences and ranks exactly.
 *
 * For sequences s with activations A_s [tokens_s, m] and B_s [tokens_s, n] this computes G = sum_s
 * A_s^T B_s, column panel by column panel. The contribution of a chunk of tokens of one sequence is
 * an fp32 product, summed in a fixed order, hence the same bits on any rank. It is turned into
 * 64-bit fixed point with a power-of-two unit per (row, column) that comes from agreed column norms
 * (|G_ij| <= ||A_i||
 * ||B_j||, Cauchy-Schwarz), summed as integers with MPI_Allreduce, and turned back. Integer sums
 * are associative: the result does not depend on the number of ranks, on the order of sequences or
 * on the reduction algorithm. The unit is 2^-61 of that bound. Columns are scaled by powers of two
 * for the product, so that no fp32 product overflows or vanishes.
 */
#ifndef SNRQ_GRAM_H
#define SNRQ_GRAM_H

#include <stdbool.h>

#include "mpi/algebra/matrix.h"

/* Activations of this rank's sequences, one after the other. Sequences have the same number of
 * tokens, or each its own: those of its tokens that a unit reads. */
typedef struct snrq_activations {
    int64_t sequences;    /* on this rank; may be 0 */
    int64_t tokens;       /* per sequence, the same everywhere; not used with `first` */
    int64_t columns;      /* n, the same everywhere */
    const float *data;    /* [tokens of all sequences, columns] fp32, row-major; borrowed */
    const int64_t *first; /* [sequences + 1] row of data where each sequence begins, and the end;
                             NULL: all are of `tokens`. Borrowed */
    const float *factor;  /* [tokens of all sequences] or NULL: 1. The columns of a token are taken
                             times this, the same in all activations of a request. Borrowed */
} snrq_activations;

/* Row of data where sequence s begins; of s = sequences: the number of rows. */
static inline int64_t snrq_activations_begin(const snrq_activations *a, int64_t s)
{
    return a->first != NULL ? a->first[s] : s * a->tokens;
}

/* Tokens of this rank. */
static inline int64_t snrq_activations_tokens(const snrq_activations *a)
{
    return snrq_activations_begin(a, a->sequences);
}

/* norms[j] = sum over all sequences of all ranks of x_j^2 (exact fixed-point sum of per-sequence
 * fp64 sums; the same bits on any number of ranks). If `minus` is not NULL, x = a - minus. scale
 * [sequences] or NULL multiplies the sum of a sequence by scale^2. Collective. A NaN or Inf is
 * SNRQ_BAD_DATA and says which column. */
snrq_status snrq_gram_norms(const snrq_context *context, const snrq_activations *a,
                            const snrq_activations *minus, const double *scale, double *norms);

/* One Gram [m, n] of the form G = factor * sum_s scale_s * (A_s - M_s)^T (B_s - N_s): G[k][l]
 * belongs to column row_order[k] of A and column_order[l] of B. */
typedef struct snrq_gram_request {
    const snrq_activations *a, *a_minus; /* a_minus may be NULL */
    const snrq_activations *b, *b_minus; /* b_minus may be NULL */
    const double *scale;                 /* [local sequences] or NULL: 1 */
    const double *a_norms, *b_norms;     /* [m], [n] from snrq_gram_norms, with the scale applied to
                                            one as |scale| <= 1 allows (an upper bound is enough) */
    double factor;                       /* 2 / N */
    const int32_t *row_order;            /* [m]; NULL: as the columns of A are */
    const int32_t *column_order;         /* [n]; NULL: as the columns of B are */
    bool symmetric;              /* a == b: only rows >= column are computed, then mirrored */
    const snrq_context *context; /* whose sequences are summed; NULL: of the ranks of the result */
    int first; /* the first rank of the team that gets the result (mpi/team.h), in that context */
} snrq_gram_request;

/* Computes the request into `out` [m, n] (block-cyclic); NULL on ranks that get no part of the
 * result. Collective over the ranks whose sequences are summed. A product that is not finite, or
 * larger than the norms allow, is SNRQ_BAD_DATA and says which column. */
snrq_status snrq_gram_reduce(const snrq_gram_request *request, snrq_matrix *out);

/* Bytes that a request needs on a rank of so many sequences, besides its result: tables of sums and
 * packed activations. Not collective. */
int64_t snrq_gram_bytes(int64_t rows, int64_t columns, int64_t tokens, int64_t sequences);

/* How many 64-bit sums of a request are added up over the ranks. Not collective. */
int64_t snrq_gram_sums(int64_t rows, int64_t columns, bool symmetric);

/* Twin of snrq_gram_reduce on one rank: plain fp64 loops, out [m, n] column-major. For tests. */
void snrq_gram_reference(const snrq_gram_request *request, double *out);

#endif
