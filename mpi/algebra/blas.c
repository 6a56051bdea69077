/* Row-major GEMM over Fortran BLAS, and its thread count; see blas.h. */
#include "mpi/algebra/blas.h"

#include <dlfcn.h>
#include <limits.h>
#include <omp.h>
#include <stddef.h>
#include <string.h>

/* The trailing lengths are how Fortran compilers pass the length of a character argument; libraries
 * that are written in C ignore them. */
void sgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
            const float *alpha, const float *a, const int *lda, const float *b, const int *ldb,
            const float *beta, float *c, const int *ldc, size_t transa_length,
            size_t transb_length);

int snrq_blas_begin(void)
{
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return threads;
}

void snrq_blas_end(int threads)
{
    omp_set_num_threads(threads);
}

static bool fits_int(int64_t a, int64_t b, int64_t c)
{
    return a <= INT_MAX && b <= INT_MAX && c <= INT_MAX;
}

/* The definition itself, for sizes that cannot be handed to BLAS. */
static void sgemm_plain(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                        float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                        float beta, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (transpose_a ? a[l * lda + i] : a[i * lda + l]) *
                       (transpose_b ? b[j * ldb + l] : b[l * ldb + j]);
            c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
        }
}

void snrq_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                int64_t ldc)
{
    if (m <= 0 || n <= 0) return;
    if (!fits_int(m, n, k) || !fits_int(lda, ldb, ldc)) {
        sgemm_plain(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        return;
    }
    /* Row-major C is column-major C^T = op(B)^T op(A)^T. */
    int m_ = (int)m, n_ = (int)n, k_ = (int)k, lda_ = (int)lda, ldb_ = (int)ldb, ldc_ = (int)ldc;
    int threads = snrq_blas_begin();
    sgemm_(transpose_b ? "T" : "N", transpose_a ? "T" : "N", &n_, &m_, &k_, &alpha, b, &ldb_, a,
           &lda_, &beta, c, &ldc_, 1, 1);
    snrq_blas_end(threads);
}

/* The function of that name in the libraries that are loaded, or NULL. */
static void find(void *program, const char *name, void *function, size_t size)
{
    void *symbol = program == NULL ? NULL : dlsym(program, name);
    memcpy(function, &symbol, size); /* ISO C has no cast from an object to a function pointer */
}

void snrq_blas_single_thread(void)
{
    void (*set_int)(int) = NULL;
    void (*set_int64)(int64_t) = NULL;
    void *program = dlopen(NULL, RTLD_LAZY);
    int threads =
        snrq_blas_begin(); /* libraries built on OpenMP set its thread count too: undone below */
    find(program, "openblas_set_num_threads", &set_int, sizeof set_int);
    if (set_int != NULL) set_int(1);
    find(program, "MKL_Set_Num_Threads", &set_int, sizeof set_int);
    if (set_int != NULL) set_int(1);
    find(program, "bli_thread_set_num_threads", &set_int64, sizeof set_int64);
    if (set_int64 != NULL) set_int64(1);
    snrq_blas_end(threads);
    if (program != NULL) dlclose(program);
}

const char *snrq_blas_kernels(void)
{
    const char *(*get_name)(void) = NULL;
    void *program = dlopen(NULL, RTLD_LAZY);
    find(program, "openblas_get_corename", &get_name, sizeof get_name);
    const char *name = get_name != NULL ? get_name() : NULL;
    if (program != NULL) dlclose(program);
    return name != NULL ? name : "";
}
