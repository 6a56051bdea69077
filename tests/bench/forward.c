/* How fast a transformer block is passed through, and its Gram matrices are summed up, on random
 * weights and activations.
 *
 * Symbols: T tokens, n columns of the stage [q,k,v]. Every time is the median of some runs on one
 * rank, and is also given as share of the time this machine's sgemm, measured before each of them,
 * needs for the flops that cannot be avoided: 2 T per weight for the modules and the block (to
 * which causal attention adds its own), n^2 T for the symmetric H = X^T X and E = dX^T dX, 2 n^2 T
 * for D = dX^T X.
 */
#include <mpi.h>
#include <omp.h>
#include <stdio.h>

#include "mpi/algebra/gram.h"
#include "pipeline/model/block.h"
#include "tests/bench/bench.h"

/* A block as its checkpoint describes it, and how much goes through at a time. */
typedef struct shape {
    const char *name;
    int64_t hidden, intermediate, heads, kv_heads, head_dim;
    int64_t tokens, sequences, gram_sequences;
} shape;

static const shape shapes[] = {
    {"llama-3-8b", 4096, 14336, 32, 8, 128, 2048, 1, 8},
    {"stories3m", 192, 512, 6, 2, 32, 256, 8, 64},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct bench {
    const char *shape, *part; /* the only one, or NULL */
    bench_list threads;
    int64_t tokens; /* instead of the shape's; 0: the shape's */
    int runs;
    double seconds; /* a measurement is not repeated after that long */
    bool json, cpu;
} bench;

static const char usage[] =
    "usage: bench_forward [--shape NAME] [--part NAME] [--tokens T] [--threads N,...]\n"
    "                     [--runs R] [--seconds S] [--json] [--cpu]\n"
    "Times the linear modules of a block, the whole block, and its Gram matrices: the median of R\n"
    "runs, each beside an sgemm of as many flops. Shapes: llama-3-8b, stories3m; parts: modules,\n"
    "block, H, D, E. --cpu: CPU time instead of wall-clock time, for comparing one thread on a "
    "busy\n"
    "machine.\n";

/* One block with everything that its passes need. */
typedef struct subject {
    const snrq_context *context;
    snrq_config config;
    snrq_family family;
    snrq_ropes ropes;
    snrq_block block;
    int64_t tokens, sequences;
    unsigned char *weights; /* bf16 */
    snrq_weight *module;
    const float **vector;
    float *ones;           /* the weights of both norms */
    snrq_span *span;       /* [sequences] */
    float *h;              /* [sequences, tokens, hidden] */
    snrq_unit_arrays x, y; /* inputs and outputs of the units */
    float *a, *b;          /* [gram sequences, tokens, hidden]: X and Xf */
    double *norms, *mismatch_norms;
    int32_t *order;
    snrq_process_grid *grid;
    snrq_matrix *gram;
    snrq_activations quantized, full;
} subject;

static void fill(float *x, int64_t count, uint64_t seed)
{
    for (int64_t i = 0; i < count; i++) x[i] = (float)bench_number(&seed);
}

static snrq_status fill_weights(subject *s)
{
    size_t count = 0;
    uint64_t state = 1;
    for (int m = 0; m < s->family.modules; m++)
        count += (size_t)(s->family.module[m].rows * s->family.module[m].columns);
    SNRQ_TRY(snrq_allocate(count, 2, "weights", &s->weights));
    for (size_t i = 0; i < count; i++) {
        uint16_t bits = snrq_float_to_bf16((float)(0.05 * bench_number(&state)));
        memcpy(s->weights + 2 * i, &bits, 2);
    }
    unsigned char *next = s->weights;
    for (int m = 0; m < s->family.modules; m++) {
        int64_t rows = s->family.module[m].rows, columns = s->family.module[m].columns;
        s->module[m] =
            (snrq_weight){.rows = rows, .columns = columns, .dtype = SNRQ_BF16, .dense = next};
        next += 2 * rows * columns;
    }
    return SNRQ_OK;
}

static snrq_status create_block(const shape *p, subject *s)
{
    s->config = (snrq_config){
        .hidden = p->hidden,
        .intermediate = p->intermediate,
        .heads = p->heads,
        .kv_heads = p->kv_heads,
        .head_dim = p->head_dim,
        .rms_norm_eps = 1e-5,
        .value_dim = p->head_dim,
        .embedding_scale = 1.0,
        .residual_scale = 1.0,
        .attention_scale = 1.0 / sqrt((double)p->head_dim),
        .rope = {.theta = 500000.0, .dimensions = p->head_dim, .attention_factor = 1.0}};
    SNRQ_TRY(snrq_family_create(&s->config, false, &s->family));
    SNRQ_TRY(snrq_allocate((size_t)s->family.modules, sizeof *s->module, "modules", &s->module));
    SNRQ_TRY(snrq_allocate((size_t)s->family.vectors, sizeof *s->vector, "vectors", &s->vector));
    SNRQ_TRY(snrq_ropes_create(&s->config, s->tokens, &s->ropes));
    SNRQ_TRY(snrq_allocate((size_t)p->hidden, sizeof(float), "norms", &s->ones));
    for (int64_t i = 0; i < p->hidden; i++) s->ones[i] = 1.0f;
    s->vector[SNRQ_ATTENTION_NORM] = s->vector[SNRQ_MLP_NORM] = s->ones;
    s->block = (snrq_block){.config = &s->config,
                            .family = &s->family,
                            .rope = &s->ropes.whole,
                            .module = s->module,
                            .vector = s->vector};
    SNRQ_TRY(fill_weights(s));
    SNRQ_TRY(snrq_allocate((size_t)s->sequences, sizeof *s->span, "spans", &s->span));
    snrq_spans_fill(s->sequences, s->tokens, s->span);
    int64_t tokens = s->sequences * s->tokens;
    SNRQ_TRY(snrq_allocate_scratch((size_t)(tokens * p->hidden), sizeof(float), "h", &s->h));
    SNRQ_TRY(snrq_unit_arrays_create(&s->family, 0, s->family.steps, tokens, true, &s->x));
    return snrq_unit_arrays_create(&s->family, 0, s->family.steps, tokens, false, &s->y);
}

static snrq_status create_activations(const shape *p, subject *s)
{
    int64_t count = p->gram_sequences * s->tokens * p->hidden;
    size_t n = (size_t)p->hidden;
    SNRQ_TRY(snrq_allocate_scratch((size_t)count, sizeof(float), "X", &s->a));
    SNRQ_TRY(snrq_allocate_scratch((size_t)count, sizeof(float), "Xf", &s->b));
    SNRQ_TRY(snrq_allocate(n, sizeof(double), "norms", &s->norms));
    SNRQ_TRY(snrq_allocate(n, sizeof(double), "norms", &s->mismatch_norms));
    SNRQ_TRY(snrq_allocate(n, sizeof(int32_t), "order", &s->order));
    for (int32_t k = 0; k < p->hidden; k++) s->order[k] = k;
    fill(s->a, count, 3);
    fill(s->b, count, 4);
    s->quantized = (snrq_activations){p->gram_sequences, s->tokens, p->hidden, s->a, NULL, NULL};
    s->full = (snrq_activations){p->gram_sequences, s->tokens, p->hidden, s->b, NULL, NULL};
    SNRQ_TRY(snrq_gram_norms(s->context, &s->quantized, NULL, NULL, s->norms));
    SNRQ_TRY(snrq_gram_norms(s->context, &s->full, &s->quantized, NULL, s->mismatch_norms));
    SNRQ_TRY(snrq_process_grid_create(s->context, 1, 1, &s->grid));
    return snrq_matrix_create(s->grid, p->hidden, p->hidden, &s->gram);
}

static void free_subject(subject *s)
{
    void *owned[] = {s->weights, s->module, s->vector,         s->ones,  s->h,   s->a,
                     s->b,       s->norms,  s->mismatch_norms, s->order, s->span};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    snrq_unit_arrays_free(&s->x);
    snrq_unit_arrays_free(&s->y);
    snrq_family_free(&s->family);
    snrq_ropes_free(&s->ropes);
    snrq_matrix_destroy(&s->gram);
    snrq_process_grid_destroy(&s->grid);
}

static snrq_status run_modules(subject *s)
{
    for (int unit = 0; unit < s->family.units; unit++)
        SNRQ_TRY(snrq_block_apply(&s->block, unit, s->sequences * s->tokens, s->x.data, s->y.data));
    return SNRQ_OK;
}

static snrq_status run_block(subject *s)
{
    const snrq_layout layout = {s->sequences * s->tokens, s->sequences, s->span};
    return snrq_block_forward(&s->block, &layout, s->h, &s->x, &s->y);
}

static snrq_status run_gram(subject *s, bool a_mismatch, bool b_mismatch)
{
    snrq_gram_request request = {.a = a_mismatch ? &s->full : &s->quantized,
                                 .a_minus = a_mismatch ? &s->quantized : NULL,
                                 .b = b_mismatch ? &s->full : &s->quantized,
                                 .b_minus = b_mismatch ? &s->quantized : NULL,
                                 .a_norms = a_mismatch ? s->mismatch_norms : s->norms,
                                 .b_norms = b_mismatch ? s->mismatch_norms : s->norms,
                                 .factor = 1.0,
                                 .row_order = s->order,
                                 .column_order = s->order,
                                 .symmetric = a_mismatch == b_mismatch};
    return snrq_gram_reduce(&request, s->gram);
}

static snrq_status run_h(subject *s)
{
    return run_gram(s, false, false);
}

static snrq_status run_d(subject *s)
{
    return run_gram(s, true, false);
}

static snrq_status run_e(subject *s)
{
    return run_gram(s, true, true);
}

typedef struct part {
    const char *name;
    snrq_status (*run)(subject *s);
    double tokens, flops;
} part;

static snrq_status measure(const bench *b, const shape *p, subject *s, const part *work,
                           int threads)
{
    bench_series seconds = {0}, rates = {0}, shares = {0};
    double start = snrq_now();
    omp_set_num_threads(threads);
    fill(s->h, s->sequences * s->tokens * p->hidden, 2);
    fill(s->x.data, s->sequences * s->tokens * s->family.max_columns, 2);
    for (int run = 0; run < b->runs && (run == 0 || snrq_now() - start < b->seconds); run++) {
        double rate;
        SNRQ_TRY(bench_gemm_rate(threads, b->cpu, work->flops, &rate));
        double begin = bench_now(b->cpu);
        SNRQ_TRY(work->run(s));
        double spent = bench_now(b->cpu) - begin;
        bench_add(&seconds, spent);
        bench_add(&rates, rate);
        bench_add(&shares, work->flops / spent / rate);
    }
    double time = bench_median(&seconds);
    printf(b->json ? "{\"shape\": \"%s\", \"part\": \"%s\", \"threads\": %d, \"runs\": %d, "
                     "\"seconds\": %.6f, \"tokens_per_second\": %.1f, \"gflops\": %.1f, "
                     "\"gemm_gflops\": %.1f, \"share_of_gemm\": %.4f}\n"
                   : "%-11s %-8s %7d %6d %10.4f %11.0f %8.1f %8.1f %9.4f\n",
           p->name, work->name, threads, seconds.count, time, work->tokens / time,
           work->flops / time * 1e-9, bench_median(&rates) * 1e-9, bench_median(&shares));
    fflush(stdout);
    return SNRQ_OK;
}

static snrq_status measure_shape(const bench *b, const shape *p, subject *s)
{
    double tokens = (double)(s->sequences * s->tokens), weights = 0.0;
    double gram_tokens = (double)(p->gram_sequences * s->tokens), n = (double)p->hidden;
    for (int m = 0; m < s->family.modules; m++)
        weights += (double)(s->family.module[m].rows * s->family.module[m].columns);
    double attention = 2.0 * tokens * (double)(s->tokens + 1) * (double)(p->heads * p->head_dim);
    const part parts[] = {
        {"modules", run_modules, tokens, 2.0 * tokens * weights},
        {"block", run_block, tokens, 2.0 * tokens * weights + attention},
        {"H", run_h, gram_tokens, n * n * gram_tokens},
        {"D", run_d, gram_tokens, 2.0 * n * n * gram_tokens},
        {"E", run_e, gram_tokens, n * n * gram_tokens},
    };
    for (int t = 0; t < b->threads.count; t++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (b->part == NULL || strcmp(b->part, parts[i].name) == 0)
                SNRQ_TRY(measure(b, p, s, &parts[i], b->threads.values[t]));
    return SNRQ_OK;
}

static snrq_status run(const snrq_context *context, const bench *b)
{
    if (!b->json)
        printf("%-11s %-8s %7s %6s %10s %11s %8s %8s %9s\n", "shape", "part", "threads", "runs",
               "seconds", "tokens/s", "GF/s", "sgemm", "share");
    for (int i = 0; i < SHAPES; i++) {
        const shape *p = &shapes[i];
        if (b->shape != NULL && strcmp(b->shape, p->name) != 0) continue;
        subject s = {.context = context,
                     .tokens = b->tokens > 0 ? b->tokens : p->tokens,
                     .sequences = p->sequences};
        snrq_status status = create_block(p, &s);
        if (status == SNRQ_OK) status = create_activations(p, &s);
        if (status == SNRQ_OK) status = measure_shape(b, p, &s);
        free_subject(&s);
        SNRQ_TRY(status);
    }
    return SNRQ_OK;
}

static bool read_arguments(int argc, char **argv, bench *b)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        bool good = true;
        if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "--cpu") == 0) {
            *(argv[i][2] == 'j' ? &b->json : &b->cpu) = true;
            continue;
        }
        if (strcmp(argv[i], "--shape") == 0)
            b->shape = value;
        else if (strcmp(argv[i], "--part") == 0)
            b->part = value;
        else if (strcmp(argv[i], "--tokens") == 0)
            good = (b->tokens = atoi(value)) > 0;
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
    bench b = {.threads = {2, {1, 2}}, .runs = BENCH_ROUNDS, .seconds = 4.0};
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
    if (status != SNRQ_OK) fprintf(stderr, "bench_forward: %s\n", snrq_error_message());
    snrq_context_destroy(&context);
    MPI_Finalize();
    return (int)status;
}
