/* Trials: how fast ranks compute, send, write and read; see machine.h. */
#include "pipeline/machine.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/file.h"
#include "mpi/collective.h"
#include "mpi/placement.h"
#include "mpi/timers.h"
#include "pipeline/model/attention.h"
#include "pipeline/model/linear.h"
#include "pipeline/phase.h"
#include "pipeline/rounding/rounding.h"

enum { LEAST_COLUMNS = 256, FEW_ROWS = 64, ROWS = 512, TOKENS = 512 };
/* What a rank measures: rates, fits of formats, and its time for all of it. */
enum { FITS = SNRQ_RATES, TIME = FITS + SNRQ_WEIGHT_FORMATS, NUMBERS };

/* ---- a unit ---- */

/* A number in (-1, 1) that depends on its place alone. */
static float number_at(int64_t i)
{
    uint64_t z = (uint64_t)i * 0x9e3779b97f4a7c15u + 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z ^= z >> 31;
    return (float)(int32_t)(z >> 32) * 0x1p-31f;
}

static void trial_row(const void *source, int64_t row, float *out)
{
    int64_t columns = *(const int64_t *)source;
    for (int64_t j = 0; j < columns; j++) out[j] = 0.02f * number_at(row * columns + j);
}

typedef struct trial {
    int64_t rows, columns, sequences, tokens; /* tokens of a sequence */
    double seconds[SNRQ_PHASES];
} trial;

/* Inputs as models have them: all tokens share something, and few columns are loud. How many rows a
 * search improves depends on it. */
static void fill_activations(int64_t tokens, int64_t columns, float *x, float *xf)
{
    for (int64_t t = 0; t < tokens; t++) {
        const float first = number_at(2 * t), second = number_at(2 * t + 1);
        for (int64_t j = 0; j < columns; j++) {
            const int64_t at = t * columns + j, place = tokens * columns + at;
            const bool loud = j % 509 == 3;
            const float shared = first * number_at(-j - 1) + second * (loud ? 1.0f : 0.3f);
            const float size = loud ? 15.0f : 0.6f + 0.4f * number_at(-columns - j - 1);
            x[at] = size * (number_at(at) + shared);
            xf[at] = x[at] + 0.3f * size * number_at(place);
        }
    }
}

static snrq_status gather_trial(const snrq_context *c, const snrq_rule *rule, const trial *t,
                                const float *data, snrq_statistics *statistics)
{
    int64_t count = t->sequences * t->tokens * t->columns;
    const snrq_activations x = {t->sequences, t->tokens, t->columns, data, NULL, NULL};
    const snrq_activations xf = {t->sequences, t->tokens, t->columns, data + count, NULL, NULL};
    const snrq_unit_input input = {&x, &xf, t->sequences, NULL, 0, NULL, NULL, 1.0};
    const snrq_team all = snrq_team_of_all(c);
    return snrq_statistics_gather(c, &all, rule, (snrq_process_shape){0, 0}, &input, statistics);
}

static snrq_status round_trial(const snrq_context *c, const snrq_rule *rule, trial *t,
                               snrq_statistics *statistics)
{
    const int64_t first[2] = {0, t->rows};
    const double before = 0.5;
    static const char name[] = "trial";
    const char *const names[1] = {name};
    const snrq_stack stack = {.count = 1,
                              .first = first,
                              .names = names,
                              .together = name,
                              .alpha_before = &before,
                              .row = trial_row,
                              .source = &t->columns};
    snrq_rounding rounding = {0};
    snrq_status status = snrq_rounding_create(c, rule, statistics, &stack, &rounding);
    double started = snrq_now();
    if (status == SNRQ_OK) status = snrq_rounding_shift(&rounding);
    t->seconds[SNRQ_PHASE_FACTOR] = snrq_now() - started;
    started = snrq_now();
    if (status == SNRQ_OK) status = snrq_rounding_fit(&rounding);
    t->seconds[SNRQ_PHASE_GRID] = snrq_now() - started;
    started = snrq_now();
    if (status == SNRQ_OK) status = snrq_rounding_search(&rounding);
    if (status == SNRQ_OK) status = snrq_rounding_measure(&rounding);
    t->seconds[SNRQ_PHASE_SEARCH] = snrq_now() - started;
    snrq_rounding_free(&rounding);
    return status;
}

/* Times a unit, by this rank alone. */
static snrq_status run_trial(const snrq_context *alone, const snrq_rule *rule, trial *t)
{
    snrq_statistics statistics = {0};
    float *data = NULL;
    const int64_t count = t->sequences * t->tokens * t->columns;
    SNRQ_TRY(snrq_allocate((size_t)(2 * count), sizeof *data, "activations of a trial", &data));
    fill_activations(t->sequences * t->tokens, t->columns, data, data + count);
    double started = snrq_now();
    snrq_status status = gather_trial(alone, rule, t, data, &statistics);
    t->seconds[SNRQ_PHASE_GRAM] = snrq_now() - started;
    if (status == SNRQ_OK) status = round_trial(alone, rule, t, &statistics);
    snrq_statistics_free(&statistics);
    free(data);
    return status;
}

/* The faster of two runs: what disturbs a trial makes it slower. */
static snrq_status run_twice(const snrq_context *alone, const snrq_rule *rule, trial *t)
{
    trial again = *t;
    SNRQ_TRY(run_trial(alone, rule, t));
    SNRQ_TRY(run_trial(alone, rule, &again));
    for (int p = 0; p < SNRQ_PHASES; p++) t->seconds[p] = fmin(t->seconds[p], again.seconds[p]);
    return SNRQ_OK;
}

/* ---- the forward pass ---- */

static snrq_status time_product(const snrq_weight *w, const float *x, float *y, double *rate)
{
    enum { RUNS = 3 };
    double best = INFINITY;
    for (int i = 0; i <= RUNS; i++) {
        double started = snrq_now();
        SNRQ_TRY(snrq_linear_apply(w, 1, x, TOKENS, y, w->rows));
        if (i > 0) best = fmin(best, snrq_now() - started);
    }
    *rate = best / ((double)TOKENS * (double)w->rows * (double)w->columns);
    return SNRQ_OK;
}

static snrq_status time_attention(double *rate)
{
    enum { HEADS = 8, DIMENSION = 64, RUNS = 3 };
    static snrq_config config;
    double best = INFINITY;
    float *qkv = NULL, *out = NULL;
    config = (snrq_config){.heads = HEADS,
                           .kv_heads = HEADS,
                           .head_dim = DIMENSION,
                           .value_dim = DIMENSION,
                           .attention_scale = 0.125};
    const snrq_attention_settings settings = {.config = &config};
    size_t width = (size_t)snrq_attention_width(&config);
    snrq_status status = snrq_allocate(TOKENS * width, sizeof *qkv, "attention", &qkv);
    if (status == SNRQ_OK)
        status = snrq_allocate(TOKENS * HEADS * DIMENSION, sizeof *out, "attention", &out);
    for (size_t i = 0; status == SNRQ_OK && i < TOKENS * width; i++) qkv[i] = number_at((int64_t)i);
    for (int i = 0; status == SNRQ_OK && i <= RUNS; i++) {
        double started = snrq_now();
        status = snrq_attention(&settings, qkv, 1, TOKENS, out);
        if (i > 0) best = fmin(best, snrq_now() - started);
    }
    free(qkv);
    free(out);
    *rate = best / (0.5 * TOKENS * TOKENS * HEADS * 2.0 * DIMENSION);
    return status;
}

static snrq_status time_forward(int64_t n, double *seconds)
{
    const int64_t rows = 2 * ROWS, groups = (n + 127) / 128;
    unsigned char *dense = NULL;
    uint8_t *codes = NULL, *zeros = NULL;
    float *scales = NULL, *x = NULL, *y = NULL;
    int32_t *g_idx = NULL;
    snrq_status status = snrq_allocate((size_t)(rows * n), 2, "weights", &dense);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)(rows * n), 1, "codes", &codes);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)(rows * groups), 1, "zeros", &zeros);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)(rows * groups), sizeof *scales, "scales", &scales);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)n, sizeof *g_idx, "groups", &g_idx);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)(TOKENS * n), sizeof *x, "inputs", &x);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)(TOKENS * rows), sizeof *y, "outputs", &y);
    if (status == SNRQ_OK) {
        for (int64_t i = 0; i < TOKENS * n; i++) x[i] = number_at(i);
        for (int64_t j = 0; j < n; j++) g_idx[j] = (int32_t)(j / 128);
        const snrq_weight full = {.rows = rows, .columns = n, .dtype = SNRQ_BF16, .dense = dense};
        const snrq_weight rounded = {.rows = rows,
                                     .columns = n,
                                     .codes = codes,
                                     .scales = scales,
                                     .zeros = zeros,
                                     .g_idx = g_idx,
                                     .groups = groups};
        status = time_product(&full, x, y, &seconds[SNRQ_RATE_FORWARD_DENSE]);
        if (status == SNRQ_OK)
            status = time_product(&rounded, x, y, &seconds[SNRQ_RATE_FORWARD_CODES]);
    }
    free(dense);
    free(codes);
    free(zeros);
    free(scales);
    free(g_idx);
    free(x);
    free(y);
    return status == SNRQ_OK ? time_attention(&seconds[SNRQ_RATE_ATTENTION]) : status;
}

/* ---- terms ---- */

/* The part of `later` that `earlier` does not explain, but at least a share of it: noise must not
 * make a term negative. */
static double difference(double later, double earlier, double least_share)
{
    return fmax(later - earlier, least_share * later);
}

static snrq_status time_units(const snrq_context *alone, const snrq_rule *rule, int64_t n,
                              double *seconds)
{
    /* Warms up; whole; with few rows, in short sequences; with half of the columns. */
    trial t[] = {{FEW_ROWS, n / 2, 1, TOKENS, {0}},
                 {ROWS, n, 4, TOKENS, {0}},
                 {FEW_ROWS, n, 16, TOKENS / 4, {0}},
                 {ROWS, n / 2, 2, TOKENS, {0}}};
    const double m = ROWS, few = FEW_ROWS, columns = (double)n, square = columns * columns;
    const double passes = snrq_rule_needs_e(rule) ? 2.0 : snrq_rule_needs_d(rule) ? 1.5 : 0.5;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) SNRQ_TRY(run_twice(alone, rule, &t[i]));
    const double *whole = t[1].seconds, *short_rows = t[2].seconds, *narrow = t[3].seconds;
    /* gram: 2048 tokens in 4 pieces, and in 16. */
    double twelve = difference(short_rows[SNRQ_PHASE_GRAM], whole[SNRQ_PHASE_GRAM], 0.02);
    seconds[SNRQ_RATE_GRAM_PIECES] = twelve / (12.0 * passes * square);
    double products = difference(whole[SNRQ_PHASE_GRAM], twelve / 3.0, 0.2);
    seconds[SNRQ_RATE_GRAM_TOKENS] = products / (4.0 * TOKENS * passes * square);
    double rows = difference(whole[SNRQ_PHASE_FACTOR], short_rows[SNRQ_PHASE_FACTOR], 0.1);
    seconds[SNRQ_RATE_FACTOR_ROWS] = rows / ((m - few) * square);
    double cube = difference(short_rows[SNRQ_PHASE_FACTOR], rows * few / (m - few), 0.1);
    seconds[SNRQ_RATE_FACTOR_CUBE] = cube / (columns * square);
    seconds[SNRQ_RATE_GRID] = whole[SNRQ_PHASE_GRID] / (m * columns);
    /* search: a n^2 + b n, at n and n / 2. */
    double a = difference(whole[SNRQ_PHASE_SEARCH], 2.0 * narrow[SNRQ_PHASE_SEARCH], 0.1) /
               (m * square / 2.0);
    seconds[SNRQ_RATE_SEARCH_ROWS] = a;
    seconds[SNRQ_RATE_SEARCH_CELLS] =
        fmax(whole[SNRQ_PHASE_SEARCH] - a * m * square, 0.0) / (m * columns);
    return SNRQ_OK;
}

/* Of integers, the trial of a unit says it, with all that goes with it; but not where it was one of
 * a format. */
static snrq_status time_fits(const snrq_rule *rule, unsigned formats, double *mine)
{
    double integers = 0.0;
    SNRQ_TRY(snrq_machine_time_fits(rule, formats, &integers, mine + FITS));
    if (rule->format != NULL) mine[SNRQ_RATE_GRID] = integers;
    return SNRQ_OK;
}

/* ---- network ---- */

static snrq_status time_network(const snrq_context *c, snrq_machine *m)
{
    enum { ITEMS = 1 << 20, SHORT_RUNS = 200, RUNS = 4 };
    int64_t *data = NULL;
    double rounds = ceil(log2((double)c->size)), shares = 2.0 * (c->size - 1) / (double)c->size;
    m->latency = 2e-6;
    m->bandwidth = 12.5e9;
    if (c->size == 1) return SNRQ_OK;
    SNRQ_TRY(snrq_agree(c, snrq_allocate(ITEMS, sizeof *data, "messages", &data)));
    snrq_status status = snrq_sum_int64(c, data, 1);
    double started = snrq_now();
    for (int i = 0; status == SNRQ_OK && i < SHORT_RUNS; i++) status = snrq_sum_int64(c, data, 1);
    m->latency = (snrq_now() - started) / SHORT_RUNS / rounds;
    if (status == SNRQ_OK) status = snrq_sum_int64(c, data, ITEMS);
    started = snrq_now();
    for (int i = 0; status == SNRQ_OK && i < RUNS; i++) status = snrq_sum_int64(c, data, ITEMS);
    m->bandwidth = RUNS * shares * ITEMS * (double)sizeof *data / (snrq_now() - started);
    m->network_measured = c->nodes > 1;
    free(data);
    return status;
}

/* Rates of this rank, and in the end the seconds of its trials. Ranks that share cores take turns,
 * for in a run they work on the same matrices, and here each would push those of the others out of
 * the caches; rates are those of a rank with its part of a core. */
static snrq_status time_in_turns(const snrq_context *c, const snrq_context *alone,
                                 const snrq_rule *rule, unsigned formats, int64_t n, double *mine)
{
    snrq_placement placement;
    SNRQ_TRY(snrq_placement_find(c, omp_get_max_threads(), &placement));
    const int64_t cores = placement.node_cores;
    const int turns = (int)((placement.node_threads + cores - 1) / cores);
    snrq_status status = SNRQ_OK;
    for (int turn = 0; turn < turns; turn++) {
        double started = snrq_now();
        if (status == SNRQ_OK && c->node_rank % turns == turn) {
            status = time_forward(n, mine);
            if (status == SNRQ_OK) status = time_units(alone, rule, n, mine);
            if (status == SNRQ_OK) status = time_fits(rule, formats, mine);
            mine[TIME] = snrq_now() - started;
        }
        SNRQ_TRY(snrq_barrier(c));
    }
    for (int k = 0; k < NUMBERS; k++) mine[k] *= turns;
    return snrq_agree(c, status);
}

/* The widest matrix of a trial: with half of its columns, rows are whole super-blocks. */
static int64_t trial_columns(const snrq_rule *rule, int64_t columns)
{
    const int64_t block = rule->format != NULL ? rule->format->super_block : 0;
    const int64_t unit = 2 * block > 128 ? 2 * block : 128;
    const int64_t n = columns / unit * unit, least = unit > LEAST_COLUMNS ? unit : LEAST_COLUMNS;
    return n > SNRQ_MACHINE_COLUMNS ? SNRQ_MACHINE_COLUMNS : n < least ? least : n;
}

snrq_status snrq_machine_measure(const snrq_context *c, const snrq_rule *rule, unsigned formats,
                                 int64_t columns, snrq_machine *out)
{
    const int64_t n = trial_columns(rule, columns);
    snrq_rule single = *rule; /* cost.c knows what coupled rows take */
    snrq_context *alone = NULL;
    double *all = NULL, sums[2] = {0.0, 0.0};
    *out = (snrq_machine){.ranks = c->size,
                          .nodes = c->nodes,
                          .threads = omp_get_max_threads(),
                          .cores = omp_get_num_procs()};
    size_t places = (size_t)c->size * NUMBERS;
    snrq_status status = snrq_context_split(c, c->rank, &alone);
    if (status == SNRQ_OK) status = snrq_allocate(places, sizeof *all, "rates", &all);
    SNRQ_TRY(snrq_agree(c, status));
    single.weighs_outputs = false;
    status = time_in_turns(c, alone, &single, formats, n, all + (size_t)c->rank * NUMBERS);
    snrq_context_destroy(&alone);
    if (status == SNRQ_OK) status = snrq_collect(c, all, (int64_t)places);
    for (int r = 0; status == SNRQ_OK && r < c->size; r++) {
        const double *of = all + (size_t)r * NUMBERS;
        for (int k = 0; k < SNRQ_RATES; k++) out->seconds[k] = fmax(out->seconds[k], of[k]);
        for (int f = 0; f < SNRQ_WEIGHT_FORMATS; f++)
            out->fits[f] = fmax(out->fits[f], of[FITS + f]);
        if (r == 0 || of[TIME] < sums[0]) sums[0] = of[TIME];
        if (of[TIME] > sums[1]) out->slowest = r;
        sums[1] = fmax(sums[1], of[TIME]);
    }
    out->spread = sums[0] > 0.0 ? sums[1] / sums[0] : 1.0;
    free(all);
    return status == SNRQ_OK ? time_network(c, out) : status;
}

/* ---- files ---- */

/* A rank of each node writes a file, and reads it when the system has forgotten it. */
static snrq_status time_file(const char *path, double *write, double *read)
{
    enum { PIECE = 4 << 20, PIECES = 32 };
    unsigned char *data = NULL;
    SNRQ_TRY(snrq_allocate(PIECE, 1, "a file's piece", &data));
    for (int i = 0; i < PIECE; i++) data[i] = (unsigned char)(i * 131 >> 3);
    FILE *f = fopen(path, "wb+");
    snrq_status status =
        f != NULL ? SNRQ_OK : snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be written", path);
    double started = snrq_now();
    for (int i = 0; status == SNRQ_OK && i < PIECES; i++)
        if (fwrite(data, 1, PIECE, f) != PIECE)
            status = snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be written", path);
    if (status == SNRQ_OK && (fflush(f) != 0 || fsync(fileno(f)) != 0))
        status = snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be written", path);
    *write = (double)PIECE * PIECES / (snrq_now() - started);
    if (status == SNRQ_OK) {
        snrq_file_forget(fileno(f));
        rewind(f);
        started = snrq_now();
        for (int i = 0; status == SNRQ_OK && i < PIECES; i++)
            if (fread(data, 1, PIECE, f) != PIECE)
                status = snrq_fail(SNRQ_IO_ERROR, "%s: cannot be read", path);
        *read = (double)PIECE * PIECES / (snrq_now() - started);
    }
    if (f != NULL) fclose(f);
    remove(path);
    free(data);
    return status;
}

snrq_status snrq_machine_measure_files(const snrq_context *c, const char *directory,
                                       snrq_machine *m)
{
    char path[4096];
    double rates[2] = {INFINITY, INFINITY};
    snrq_status status = SNRQ_OK;
    if (c->node_rank == 0) {
        snprintf(path, sizeof path, "%s/snrq-bench-%d.tmp", directory, c->rank);
        status = time_file(path, &rates[0], &rates[1]);
    }
    SNRQ_TRY(snrq_agree(c, status));
    for (int i = 0; i < 2; i++) rates[i] = -rates[i];
    SNRQ_TRY(snrq_max_double(c, rates, 2)); /* the slowest node */
    m->write = -rates[0];
    m->read = -rates[1];
    return SNRQ_OK;
}
