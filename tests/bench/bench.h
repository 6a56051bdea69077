/* What the benchmarks share: clocks, lists of numbers, and the sgemm rate of the machine, which is
 * the unit of their figures.
 */
#ifndef SNRQ_BENCH_H
#define SNRQ_BENCH_H

#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mpi/algebra/blas.h"
#include "mpi/status.h"
#include "mpi/timers.h"

enum { BENCH_MOST = 16, BENCH_ROUNDS = 1000, BENCH_GEMM_ORDER = 1024 };

typedef struct bench_list {
    int count, values[BENCH_MOST];
} bench_list;

/* "1,2,4" */
static inline bool bench_read_list(const char *text, bench_list *out)
{
    out->count = 0;
    while (out->count < BENCH_MOST) {
        char *end;
        long value = strtol(text, &end, 10);
        if (end == text || value < 1 || value > 65536) return false;
        out->values[out->count++] = (int)value;
        if (*end == '\0') return true;
        if (*end != ',') return false;
        text = end + 1;
    }
    return false;
}

/* Seconds on the wall, or of CPU time. */
static inline double bench_now(bool cpu)
{
    struct timespec t;
    if (!cpu) return snrq_now();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* In (-1, 1). */
static inline double bench_number(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-52 - 1.0;
}

/* Threads that have no work left spin for a while, and would take processors from what is measured
 * next: those of OpenBLAS for 2^28 cycles. */
static inline void bench_rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
}

/* *rate <- flop/s of BLAS on its own `threads`, for at least as many flops as are given. */
static inline snrq_status bench_gemm_rate(int threads, bool cpu, double flops, double *rate)
{
    const int64_t n = BENCH_GEMM_ORDER;
    const double each = 2.0 * pow((double)n, 3.0), runs = fmax(ceil(flops / each), 1.0);
    float *a = NULL, *c = NULL;
    void (*set_threads)(int) = NULL;
    void *program = dlopen(NULL, RTLD_LAZY);
    void *symbol = program == NULL ? NULL : dlsym(program, "openblas_set_num_threads");
    memcpy(&set_threads, &symbol, sizeof symbol); /* ISO C has no cast to a function pointer */
    SNRQ_TRY(snrq_allocate((size_t)(n * n), sizeof *a, "matrix", &a));
    SNRQ_TRY(snrq_allocate((size_t)(n * n), sizeof *c, "matrix", &c));
    for (int64_t i = 0; i < n * n; i++) a[i] = 1.0f / (float)(1 + i % 64);
    memset(c, 0, (size_t)(n * n) * sizeof *c);
    if (set_threads != NULL) set_threads(threads);
    bench_rest();
    double begin = bench_now(cpu);
    for (double run = 0; run < runs; run++)
        snrq_sgemm(false, false, n, n, n, 1.0f, a, n, a, n, 0.0f, c, n);
    *rate = runs * each / (bench_now(cpu) - begin);
    if (set_threads != NULL) set_threads(1);
    bench_rest();
    free(a);
    free(c);
    if (program != NULL) dlclose(program);
    return SNRQ_OK;
}

/* One figure per round. A machine that others use, too, slows down all that is measured in a round,
 * so what is printed are medians over rounds, also of ratios within a round. */
typedef struct bench_series {
    int count;
    double values[BENCH_ROUNDS];
} bench_series;

static inline void bench_add(bench_series *series, double value)
{
    if (series->count < BENCH_ROUNDS) series->values[series->count++] = value;
}

static inline int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static inline double bench_median(const bench_series *series)
{
    bench_series s = *series;
    qsort(s.values, (size_t)s.count, sizeof *s.values, bench_compare);
    return s.count == 0 ? (double)NAN : (s.values[(s.count - 1) / 2] + s.values[s.count / 2]) / 2.0;
}

#endif
