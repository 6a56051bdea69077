/* How fast the rounding search is, on synthetic layers with correlated inputs.
 *
 * Symbols: a layer has m rows and n columns; the bound is the time in which this machine's sgemm
 * does the m n^2 flops that any column-by-column rounding needs to feed its errors back. Every time
 * is the median of some runs of snrq_search() on one rank. In each round sgemm and all methods take
 * turns, and what is compared is compared within a round: with greedy, and with the bound (100 % is
 * the bound itself), so that figures of different machines can be compared.
 */
#include <math.h>
#include <mpi.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/factor.h"
#include "pipeline/rounding/search.h"
#include "tests/bench/bench.h"

enum { GROUP_SIZE = 128, MOST_FIGURES = BENCH_MOST + 3 };

typedef struct bench {
    int layers, rows[BENCH_MOST], columns[BENCH_MOST];
    bench_list bits, beams, threads;
    int runs;
    double seconds; /* a measurement is not repeated after that long */
    bool json, cpu, methods;
} bench;

static const char usage[] =
    "usage: bench_rounding [--size MxN,...] [--bits B,...] [--beam K,...] [--threads T,...]\n"
    "                      [--runs R] [--seconds S] [--json] [--cpu]\n"
    "                      [--methods]\n"
    "Times the search on synthetic layers (K = 1 is greedy): the median of R rounds, in each of\n"
    "which all K and an sgemm of as many flops take turns, so that what disturbs the machine\n"
    "disturbs all. --methods: rtn, gptq and gptaq, too. --cpu: CPU time instead of wall-clock "
    "time,\n"
    "for comparing one thread on a busy machine.\n";

/* What is measured: a beam of K, or one of these. */
enum { RTN = -3, GPTQ = -2, GPTAQ = -1 };

/* A layer: factor, grid and targets. */
typedef struct layer {
    snrq_process_grid *grid;
    snrq_matrix *h, *l;
    snrq_groups groups;
    snrq_rows rows;
} layer;

/* H = A^T A / n with inputs that share a slow and a fast common part, and some loud columns; in
 * decision order, which is that of the diagonal. */
static snrq_status fill_gram(snrq_matrix *h)
{
    int n = (int)h->columns, tokens = n + n / 2;
    uint64_t state = 1;
    float *a = NULL, *gram = NULL;
    double *column = NULL;
    snrq_status status = snrq_allocate((size_t)tokens * (size_t)n, sizeof *a, "inputs", &a);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)n * (size_t)n, sizeof *gram, "H", &gram);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)n, sizeof *column, "H", &column);
    for (int64_t t = 0; status == SNRQ_OK && t < tokens; t++) {
        double shared = bench_number(&state), wave = 0.0;
        for (int64_t j = 0; j < n; j++) {
            wave = 0.9 * wave + bench_number(&state);
            double loudness = 0.5 + 2.0 * pow((double)j / n, 4.0);
            a[t * n + j] = (float)(loudness * (bench_number(&state) + 0.5 * wave + 0.7 * shared));
        }
    }
    if (status == SNRQ_OK)
        snrq_sgemm(true, false, n, n, tokens, 2.0f / (float)tokens, a, n, a, n, 0.0f, gram, n);
    for (int64_t j = 0; status == SNRQ_OK && j < n; j++) {
        for (int64_t i = 0; i < n; i++)
            column[i] = (double)(i < j ? gram[i * n + j] : gram[j * n + i]);
        snrq_matrix_set_panel(h, j, 1, 0, column);
    }
    free(column);
    free(gram);
    free(a);
    return status;
}

static snrq_status fill_rows(layer *out, int64_t m, int bits)
{
    int64_t n = out->l->columns;
    uint64_t state = 2;
    snrq_rule rule = {
        .bits = bits, .symmetric = true, .grid = SNRQ_QUANT_GRID_MINMAX, .scale_type = SNRQ_F32};
    double *d2 = NULL;
    SNRQ_TRY(snrq_rows_create(m, bits, &out->groups, &out->rows));
    SNRQ_TRY(snrq_allocate((size_t)n, sizeof *d2, "column weights", &d2));
    snrq_status status = SNRQ_OK;
    for (int64_t r = 0; status == SNRQ_OK && r < m; r++) {
        float *target = out->rows.target + r * n;
        for (int64_t k = 0; k < n; k++)
            target[k] =
                (float)(bench_number(&state) + bench_number(&state) + bench_number(&state)) * 0.02f;
        status = snrq_quant_grid_fit(&rule, &out->groups, target, d2,
                                     out->rows.scales + r * out->groups.count,
                                     out->rows.zeros + r * out->groups.count);
    }
    free(d2);
    return status;
}

static snrq_status create_layer(const snrq_context *context, int64_t n, layer *out)
{
    int32_t *order = NULL;
    snrq_factor_report report;
    SNRQ_TRY(snrq_process_grid_create(context, 1, 1, &out->grid));
    SNRQ_TRY(snrq_matrix_create(out->grid, n, n, &out->h));
    SNRQ_TRY(snrq_matrix_create(out->grid, n, n, &out->l));
    SNRQ_TRY(fill_gram(out->h));
    SNRQ_TRY(snrq_factor_cholesky(out->h, 0.01, out->l, &report));
    SNRQ_TRY(snrq_allocate((size_t)n, sizeof *order, "order", &order));
    for (int32_t k = 0; k < n; k++) order[k] = k;
    snrq_status status = snrq_groups_create(order, n, GROUP_SIZE, true, &out->groups);
    free(order);
    return status;
}

static void free_layer(layer *l)
{
    snrq_groups_free(&l->groups);
    snrq_matrix_destroy(&l->l);
    snrq_matrix_destroy(&l->h);
    snrq_process_grid_destroy(&l->grid);
}

static const char *method_name(int what)
{
    return what == RTN     ? "rtn"
           : what == GPTQ  ? "gptq"
           : what == GPTAQ ? "gptaq"
           : what == 1     ? "snrq"
                           : "ksnrq";
}

/* Measurements of a layer on some threads. */
typedef struct figure {
    int what;
    double objective;
    bench_series seconds, shares, times_greedy;
} figure;

static void print_figure(const bench *b, const layer *l, int threads, int bits, const figure *f,
                         double rate)
{
    int64_t m = l->rows.rows, n = l->rows.columns;
    int beam = f->what < 1 ? 1 : f->what;
    printf(b->json ? "{\"rows\": %lld, \"columns\": %lld, \"bits\": %d, \"method\": \"%s\", "
                     "\"beam\": %d, \"threads\": %d, \"rounds\": %d, \"seconds\": %.6f, "
                     "\"gemm_gflops\": %.1f, \"share_of_bound\": %.4f, \"times_greedy\": %.3f, "
                     "\"objective\": %.9g}\n"
                   : "%5lld x %-5lld %4d %-6s %4d %8d %6d %10.4f %8.1f %8.3f %8.2f  %.9g\n",
           (long long)m, (long long)n, bits, method_name(f->what), beam, threads, f->seconds.count,
           bench_median(&f->seconds), rate * 1e-9, bench_median(&f->shares),
           bench_median(&f->times_greedy), f->objective);
    fflush(stdout);
}

static snrq_status search(layer *l, int bits, int what)
{
    const snrq_rule rule = {
        .bits = bits, .symmetric = true, .grid = SNRQ_QUANT_GRID_MINMAX, .scale_type = SNRQ_F32};
    /* gptaq's mismatch may be any matrix: with alpha = 0 it is all work and no effect */
    const snrq_gptq gptq = {.refit = &rule, .a = what == GPTAQ ? l->h : NULL};
    if (what == RTN) return snrq_search(l->l, SNRQ_ROUND_NEAREST, 1, &l->rows);
    if (what < 1) return snrq_search_gptq(l->l, &gptq, &l->rows);
    return snrq_search(l->l, SNRQ_ROUND_FEEDBACK, what, &l->rows);
}

static snrq_status measure(const bench *b, layer *l, int bits, int what, double *seconds,
                           double *objective)
{
    bench_rest();
    double begin = bench_now(b->cpu);
    SNRQ_TRY(search(l, bits, what));
    *seconds = bench_now(b->cpu) - begin;
    *objective = 0.0;
    for (int64_t i = 0; i < l->rows.rows; i++) *objective += l->rows.costs[i];
    return SNRQ_OK;
}

/* gptq and gptaq come last: they change the scales. */
static int list_figures(const bench *b, figure *figures)
{
    int count = 0;
    memset(figures, 0, MOST_FIGURES * sizeof *figures);
    if (b->methods) figures[count++].what = RTN;
    for (int k = 0; k < b->beams.count; k++) figures[count++].what = b->beams.values[k];
    if (b->methods) figures[count++].what = GPTQ;
    if (b->methods) figures[count++].what = GPTAQ;
    return count;
}

/* gptq and gptaq change scales and zeros: `save` takes them, without it they are put back. */
static snrq_status keep_grids(layer *l, bool save, float **scales, uint8_t **zeros)
{
    size_t grids = (size_t)(l->rows.rows * l->rows.groups->count);
    if (save) SNRQ_TRY(snrq_allocate(grids, sizeof **scales, "scales", scales));
    if (save) SNRQ_TRY(snrq_allocate(grids, 1, "zeros", zeros));
    memcpy(save ? *scales : l->rows.scales, save ? l->rows.scales : *scales,
           grids * sizeof **scales);
    memcpy(save ? *zeros : l->rows.zeros, save ? l->rows.zeros : *zeros, grids);
    return SNRQ_OK;
}

/* One round: sgemm, then every figure. */
static snrq_status measure_round(const bench *b, layer *l, int bits, int threads, int count,
                                 figure *figures, bench_series *rates)
{
    double m = (double)l->rows.rows, n = (double)l->rows.columns, flops = m * n * n, rate;
    double seconds[MOST_FIGURES], greedy = NAN;
    SNRQ_TRY(bench_gemm_rate(threads, b->cpu, flops, &rate));
    bench_add(rates, rate);
    for (int i = 0; i < count; i++) {
        SNRQ_TRY(measure(b, l, bits, figures[i].what, &seconds[i], &figures[i].objective));
        if (figures[i].what == 1) greedy = seconds[i];
    }
    for (int i = 0; i < count; i++) {
        bench_add(&figures[i].seconds, seconds[i]);
        bench_add(&figures[i].shares, flops / rate / seconds[i]);
        bench_add(&figures[i].times_greedy, seconds[i] / greedy);
    }
    return SNRQ_OK;
}

static snrq_status measure_layer(const bench *b, layer *l, int bits)
{
    static figure figures[MOST_FIGURES];
    float *scales = NULL;
    uint8_t *zeros = NULL;
    SNRQ_TRY(keep_grids(l, true, &scales, &zeros));
    for (int t = 0; t < b->threads.count; t++) {
        bench_series rates = {0};
        int count = list_figures(b, figures), threads = b->threads.values[t];
        double start = snrq_now(), limit = b->seconds * count;
        omp_set_num_threads(threads);
        for (int run = 0; run < b->runs && (run == 0 || snrq_now() - start < limit); run++) {
            SNRQ_TRY(keep_grids(l, false, &scales, &zeros));
            SNRQ_TRY(measure_round(b, l, bits, threads, count, figures, &rates));
        }
        for (int i = 0; i < count; i++)
            print_figure(b, l, threads, bits, &figures[i], bench_median(&rates));
    }
    free(scales);
    free(zeros);
    return SNRQ_OK;
}

static snrq_status run(const snrq_context *context, const bench *b)
{
    if (!b->json)
        printf("%13s %4s %-6s %4s %8s %6s %10s %8s %8s %8s  %s\n", "size", "bits", "method", "K",
               "threads", "rounds", "seconds", "sgemm", "of bound", "x greedy", "objective");
    for (int i = 0; i < b->layers; i++) {
        layer l = {0};
        snrq_status status = create_layer(context, b->columns[i], &l);
        for (int k = 0; status == SNRQ_OK && k < b->bits.count; k++) {
            status = fill_rows(&l, b->rows[i], b->bits.values[k]);
            if (status == SNRQ_OK) status = measure_layer(b, &l, b->bits.values[k]);
            snrq_rows_free(&l.rows);
        }
        free_layer(&l);
        SNRQ_TRY(status);
    }
    return SNRQ_OK;
}

static bool read_sizes(const char *text, bench *b)
{
    b->layers = 0;
    while (b->layers < BENCH_MOST) {
        int used = 0, i = b->layers;
        if (sscanf(text, "%dx%d%n", &b->rows[i], &b->columns[i], &used) != 2) return false;
        if (b->rows[i] < 1 || b->columns[i] < 1) return false;
        b->layers++;
        if (text[used] == '\0') return true;
        if (text[used] != ',') return false;
        text += used + 1;
    }
    return false;
}

static bool read_arguments(int argc, char **argv, bench *b)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        bool good = true;
        if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "--cpu") == 0 ||
            strcmp(argv[i], "--methods") == 0) {
            *(argv[i][2] == 'j' ? &b->json : argv[i][2] == 'c' ? &b->cpu : &b->methods) = true;
            continue;
        }
        if (strcmp(argv[i], "--size") == 0)
            good = read_sizes(value, b);
        else if (strcmp(argv[i], "--bits") == 0)
            good = bench_read_list(value, &b->bits);
        else if (strcmp(argv[i], "--beam") == 0)
            good = bench_read_list(value, &b->beams);
        else if (strcmp(argv[i], "--threads") == 0)
            good = bench_read_list(value, &b->threads);
        else if (strcmp(argv[i], "--runs") == 0)
            good = (b->runs = atoi(value)) > 0;
        else if (strcmp(argv[i], "--seconds") == 0)
            good = (b->seconds = atof(value)) > 0.0;
        else
            good = false;
        if (!good) return false;
        i++;
    }
    return true;
}

int main(int argc, char **argv)
{
    bench b = {.layers = 7,
               .rows = {288, 768, 1024, 2048, 4096, 4096, 1024},
               .columns = {288, 768, 1024, 2048, 4096, 1024, 4096},
               .bits = {3, {3, 4, 2}},
               .beams = {5, {1, 2, 4, 8, 16}},
               .threads = {2, {1, 2}},
               .runs = 5,
               .seconds = 3.0};
    int provided;
    snrq_context *context = NULL;
    if (!read_arguments(argc, argv, &b)) {
        fputs(usage, stderr);
        return SNRQ_USAGE;
    }
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    snrq_blas_single_thread();
    snrq_status status = snrq_context_create(MPI_COMM_WORLD, &context);
    if (status == SNRQ_OK && context->size > 1)
        status = snrq_fail(SNRQ_USAGE, "the benchmark runs on one rank");
    if (status == SNRQ_OK) status = run(context, &b);
    if (status != SNRQ_OK) fprintf(stderr, "bench_rounding: %s\n", snrq_error_message());
    snrq_context_destroy(&context);
    MPI_Finalize();
    return (int)status;
}
