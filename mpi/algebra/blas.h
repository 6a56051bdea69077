/* The BLAS that is called from C, by its Fortran names, and one row-major helper over it.
 *
 * BLAS always runs on one thread here: its results depend on its thread count, and ours must not.
 * Parallelism inside a rank is OpenMP over units of fixed shape, each of which calls BLAS for
 * itself.
 */
#ifndef SNRQ_BLAS_H
#define SNRQ_BLAS_H

#include <stdbool.h>
#include <stdint.h>

/* C [m, n] <- alpha * op(A) op(B) + beta * C, all row-major fp32; op(A) is [m, k], op(B) is [k, n];
 * lda, ldb and ldc are the row strides of A, B and C as stored. beta = 0 does not read C. Any size
 * is right; one that does not fit BLAS's int is slow. Not collective; may be called from many
 * threads at a time. */
void snrq_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                int64_t ldc);

/* Between these two, a BLAS library that takes its thread count from OpenMP sees one thread. Around
 * calls of BLAS or ScaLAPACK outside OpenMP regions; `threads` is what begin returned. Not
 * collective. */
int snrq_blas_begin(void);
void snrq_blas_end(int threads);

/* Makes the BLAS library of this process use one thread, if it is one that can be told so
 * (OpenBLAS, MKL, BLIS). Call once at the start of main(). Not collective. */
void snrq_blas_single_thread(void);

/* The CPU for which the BLAS library chose its kernels, in its own words ("Haswell"), or "" if it
 * does not tell (all but OpenBLAS). Not collective. */
const char *snrq_blas_kernels(void);

#endif
