/* How long a whole transformer block of a named shape takes, phase by phase.
 *
 * The block is read from a checkpoint with random weights; the activations that enter it are
 * random, too, with loud columns and directions that all tokens share, so that H is as far from
 * white as that of a model. What is timed are the calls of pipeline/quantize.c, in its order, with
 * the timers of a run.
 *
 * Forward pass and Gram sums grow with the tokens, nothing else does: their times are extrapolated
 * to full calibration, 128 windows of 2048 tokens. rounding_share is what everything else takes
 * there, as a share of these two. Seconds are wall-clock time, the mean over the ranks; cpu is the
 * CPU time of all threads and ranks, for a machine that others use, too (it counts threads that
 * spin while they wait, not those that sleep).
 *
 * Shares of sgemm are of flops that cannot be avoided: 2 per weight and token of each stream, with
 * causal attention; n^2 per token for H (and E), 2 n^2 for D; n^3 / 3 for the factorization, twice
 * because it is fp64, m n^2 for W H W^T and 4 m n^2 for W D H^-1; m n^2 for each search, of which
 * there are 1 + regrid. The grids have none.
 */
#include <mpi.h>
#include <omp.h>

#include "io/checkpoint/output.h"
#include "mpi/placement.h"
#include "pipeline/model/read_ahead.h"
#include "pipeline/model/stream.h"
#include "pipeline/phase.h"
#include "pipeline/plan.h"
#include "pipeline/unit.h"
#include "pipeline/work.h"
#include "tests/bench/block_model.h"

static const double full_tokens = 128.0 * 2048.0;
enum { MOST_OPTIONS = 64, MOST_STEPS = 8, PHASES = SNRQ_PHASES + 1 };

typedef struct bench {
    const block_shape *shape;
    const char *step; /* the only one that is rounded, or NULL */
    int64_t tokens;   /* instead of the shape's; 0: the shape's */
    int splits, ranks[BENCH_MOST], threads[BENCH_MOST];
    bool json, row_feedback;
    snrq_options options; /* of `snrq quantize` */
} bench;

static const char usage[] =
    "usage: [mpirun -n P] bench_block --shape tiny|1B|3B|8B|70B [--tokens T] [--split RxT,...]\n"
    "                                 [--step q,k,v|o|gate,up|down] [--json] [--row-feedback]\n"
    "                                 [OPTION of quantize]\n"
    "Times every phase of a block of that shape, on R ranks of T threads each (R up to P; "
    "default:\n"
    "all ranks with OMP_NUM_THREADS threads), and extrapolates to 128 x 2048 tokens.\n"
    "--step: rounds only the modules of one step. --row-feedback: as with --sensitivity. Options "
    "of quantize say how modules are "
    "rounded;\n"
    "without any: --bits 3 --group-size 128, and the defaults. Its files are in TMPDIR.\n";

/* Times of a step: wall-clock time, the mean over the ranks, and CPU time, their sum. */
typedef struct step_times {
    double seconds[PHASES], cpu[PHASES];
} step_times;

/* One measurement. */
typedef struct subject {
    const bench *b;
    const snrq_context *context;
    const char *folder;
    snrq_model *model;
    snrq_rules rules;
    snrq_windows windows;
    snrq_ropes ropes;
    snrq_output *output;
    snrq_loaded_block full, quantized;
    snrq_stream x, xf;
    snrq_module_record *records;
    double *alpha_before, *measures, *alphas;
    snrq_timers timers;
    double cpu[PHASES], cpu_before; /* this rank's; in the last one, what is in no phase */
    step_times times[MOST_STEPS]; /* and, in the last one, of the whole block's reading and writing
                                   */
    double rate, peak;
} subject;

static void enter(subject *s, int phase)
{
    double now = bench_now(true);
    s->cpu[s->timers.running < 0 ? SNRQ_PHASES : s->timers.running] += now - s->cpu_before;
    s->cpu_before = now;
    snrq_timers_enter(&s->timers, phase);
}

static void start_times(subject *s)
{
    snrq_timers_reset(&s->timers, SNRQ_PHASES);
    memset(s->cpu, 0, sizeof s->cpu);
    s->cpu_before = bench_now(true);
}

/* Brings the times since the last call together, as means over the ranks. */
static snrq_status take_times(subject *s, step_times *out)
{
    snrq_phase_report report[PHASES];
    double total;
    enter(s, -1);
    SNRQ_TRY(snrq_timers_report(s->context, &s->timers, report, &total));
    for (int p = 0; p < PHASES; p++) {
        double cpu[1024] = {0};
        cpu[s->context->rank] = s->cpu[p];
        SNRQ_TRY(snrq_collect(s->context, cpu, s->context->size));
        for (int r = 0; r < s->context->size; r++) out->cpu[p] += cpu[r];
        out->seconds[p] += report[p].mean;
    }
    start_times(s);
    return SNRQ_OK;
}

/* ---- activations ---- */

/* A stream's h of one sequence: what all tokens share in part, loud columns, noise. */
static void fill_sequence(const snrq_stream *stream, int64_t sequence, float mismatch, float *h)
{
    uint64_t state = (uint64_t)sequence * 2654435761u + 7;
    for (int64_t t = 0; t < stream->tokens; t++) {
        double first = bench_number(&state), second = bench_number(&state);
        for (int64_t j = 0; j < stream->hidden; j++) {
            uint64_t column = (uint64_t)j * 40503u + 1;
            double loud = j % 509 == 3 ? 15.0 : 0.6 + 0.4 * bench_number(&column);
            double shared = first * bench_number(&column) + second * (j % 509 == 3 ? 1.0 : 0.3);
            double noise = bench_number(&state), other = bench_number(&state);
            h[t * stream->hidden + j] = (float)(loud * (noise + shared + (double)mismatch * other));
        }
    }
}

/* Both streams are alike, as after a few blocks of a run. */
static snrq_status start_streams(subject *s)
{
    snrq_range mine = snrq_stream_share(s->context, &s->windows);
    int64_t length = s->windows.length, hidden = s->model->config.hidden;
    snrq_status status = snrq_stream_create(mine, &s->windows, hidden, &s->x);
    if (status == SNRQ_OK) status = snrq_stream_create(mine, &s->windows, hidden, &s->xf);
    if (status == SNRQ_OK) status = snrq_ropes_create(&s->model->config, length, &s->ropes);
    SNRQ_TRY(snrq_agree(s->context, status));
    for (int64_t i = mine.begin; i < mine.end; i++) {
        int64_t at = (i - mine.begin) * length * hidden;
        fill_sequence(&s->x, i, 0.1f, s->x.h + at);
        fill_sequence(&s->xf, i, 0.0f, s->xf.h + at);
    }
    return SNRQ_OK;
}

/* ---- the block, as pipeline/quantize.c does it ---- */

static snrq_status round_unit(subject *s, int unit, snrq_rounding *rounding)
{
    const snrq_family *f = snrq_model_family(s->model, 0);
    const snrq_team all = snrq_team_of_all(s->context);
    enter(s, SNRQ_PHASE_FACTOR);
    SNRQ_TRY(snrq_rounding_shift(rounding));
    enter(s, SNRQ_PHASE_GRID);
    SNRQ_TRY(snrq_rounding_fit(rounding));
    enter(s, SNRQ_PHASE_SEARCH);
    SNRQ_TRY(snrq_rounding_search(rounding));
    SNRQ_TRY(snrq_rounding_measure(rounding));
    SNRQ_TRY(snrq_part_publish(s->context, &all, rounding, &s->quantized, unit));
    for (int m = f->unit[unit].first; m < f->unit[unit].end; m++)
        s->records[m] = snrq_rounded_record(rounding, f, 0, m);
    return SNRQ_OK;
}

/* Outputs that are worth the more alike the closer their rows are. */
static snrq_status make_grams(const subject *s, int unit, snrq_part_stack *rows)
{
    const snrq_range mine = snrq_rounding_share(snrq_model_family(s->model, 0)->unit[unit].rows,
                                                s->context->size, s->context->rank);
    const int64_t tiles = (mine.end - mine.begin + SNRQ_TILE_ROWS - 1) / SNRQ_TILE_ROWS;
    if (!s->b->row_feedback) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)(tiles * SNRQ_TILE_ROWS * SNRQ_TILE_ROWS), sizeof *rows->grams,
                           "sensitivities", &rows->grams));
    for (int64_t i = 0; i < tiles * SNRQ_TILE_ROWS; i++)
        for (int64_t j = 0; j < SNRQ_TILE_ROWS; j++)
            rows->grams[i * SNRQ_TILE_ROWS + j] =
                powf(0.7f, fabsf((float)(i % SNRQ_TILE_ROWS - j)));
    rows->stack.row_grams = rows->grams;
    rows->stack.row_gram_tokens = 1 << 18;
    return SNRQ_OK;
}

static snrq_status quantize_unit(subject *s, int unit)
{
    const snrq_family *f = snrq_model_family(s->model, 0);
    int in_step = unit - f->step[f->unit[unit].step].first;
    snrq_activations x = snrq_stream_activations(&s->x, in_step);
    snrq_activations xf = snrq_stream_activations(&s->xf, in_step);
    const snrq_unit_input input = {
        &x, &xf, s->windows.count, s->alphas, s->windows.distinct, NULL, NULL, 1.0};
    const snrq_process_shape shape = {s->b->options.factor_rows, s->b->options.factor_columns};
    const snrq_team all = snrq_team_of_all(s->context);
    const snrq_rule *rule = NULL;
    snrq_statistics statistics = {0};
    snrq_part_stack rows = {0};
    snrq_rounding rounding = {0};
    SNRQ_TRY(snrq_rules_of_part(&s->rules, f, 0, unit, &rule));
    enter(s, SNRQ_PHASE_GRAM);
    snrq_status status = snrq_statistics_gather(s->context, &all, rule, shape, &input, &statistics);
    if (status == SNRQ_OK)
        status = snrq_agree(
            s->context, snrq_part_stack_create(&s->full.block, 0, unit, s->alpha_before, &rows));
    if (status == SNRQ_OK) status = snrq_agree(s->context, make_grams(s, unit, &rows));
    if (status == SNRQ_OK)
        status = snrq_rounding_create(s->context, rule, &statistics, &rows.stack, &rounding);
    if (status == SNRQ_OK) status = round_unit(s, unit, &rounding);
    snrq_rounding_free(&rounding);
    snrq_part_stack_free(&rows);
    snrq_statistics_free(&statistics);
    return status;
}

static bool is_rounded(const subject *s, int step)
{
    return s->b->step == NULL ||
           strcmp(snrq_model_family(s->model, 0)->step[step].name, s->b->step) == 0;
}

/* A step that is not rounded has its original weights in both streams. */
static snrq_status run_step(subject *s, int step)
{
    const snrq_family *f = snrq_model_family(s->model, 0);
    snrq_status status = SNRQ_OK;
    for (int u = f->step[step].first; is_rounded(s, step) && u < f->step[step].end; u++)
        SNRQ_TRY(quantize_unit(s, u));
    enter(s, SNRQ_PHASE_FORWARD);
    status = snrq_streams_advance(&s->x, is_rounded(s, step) ? &s->quantized.block : &s->full.block,
                                  &s->xf, &s->full.block, step, s->windows.count, s->measures);
    status = snrq_agree(s->context, status);
    return status == SNRQ_OK ? take_times(s, &s->times[step]) : status;
}

static snrq_status read_block(subject *s)
{
    const snrq_family *f = snrq_model_family(s->model, 0);
    snrq_part_groups groups[16] = {{0}};
    snrq_read_ahead *ahead = NULL;
    if (s->context->rank == 0) forget_block_model(s->folder);
    SNRQ_TRY(snrq_barrier(s->context));
    start_times(s);
    enter(s, SNRQ_PHASE_READ);
    snrq_read_ahead_start(s->context, s->model, 0, &ahead);
    snrq_status status = snrq_model_load_block(s->context, s->model, 0, &s->ropes, &s->full);
    snrq_read_ahead_stop(&ahead);
    SNRQ_TRY(status);
    for (int u = 0; u < f->units; u++)
        groups[u].count =
            snrq_rule_groups(snrq_rules_at(&s->rules, 0, f->unit[u].first), f->unit[u].columns);
    SNRQ_TRY(
        snrq_quantized_block_create(s->context, s->model, 0, groups, &s->ropes, &s->quantized));
    return take_times(s, &s->times[MOST_STEPS - 1]);
}

static snrq_status write_block(subject *s)
{
    const snrq_family *f = snrq_model_family(s->model, 0);
    snrq_module_rows modules[16];
    char name[32];
    snrq_block_file_name(0, name);
    for (int m = 0; m < f->modules; m++) {
        const snrq_weight *w = &s->quantized.block.module[m];
        snrq_range rows = snrq_module_rows_of_rank(s->context, f, m);
        modules[m] = (snrq_module_rows){.record = s->records[m],
                                        .rows = rows,
                                        .codes = w->codes + rows.begin * w->columns,
                                        .scales = w->scales + rows.begin * w->groups,
                                        .zeros = w->zeros + rows.begin * w->groups,
                                        .g_idx = w->g_idx};
    }
    enter(s, SNRQ_PHASE_WRITE);
    SNRQ_TRY(snrq_block_file_write(s->context, snrq_output_temporary(s->output, name), 0, modules,
                                   f->modules));
    SNRQ_TRY(snrq_output_commit(s->output, s->context, name, NULL));
    return take_times(s, &s->times[MOST_STEPS - 1]);
}

static snrq_status run_block(subject *s)
{
    const snrq_family *f = snrq_model_family(s->model, 0);
    SNRQ_TRY(read_block(s));
    enter(s, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_stream_begin(&s->x, &s->full.block);
    if (status == SNRQ_OK) status = snrq_stream_begin(&s->xf, &s->full.block);
    SNRQ_TRY(snrq_agree(s->context, status));
    for (int step = 0; step < f->steps; step++) SNRQ_TRY(run_step(s, step));
    if (s->b->step == NULL) SNRQ_TRY(write_block(s));
    s->peak = snrq_peak_memory();
    return snrq_max_double(s->context, &s->peak, 1);
}

/* ---- report ---- */

/* Flops of a phase in a step. */
static double phase_flops(const subject *s, int step, int phase)
{
    const snrq_family *f = snrq_model_family(s->model, 0);
    const snrq_config *c = &s->model->config;
    double tokens = (double)(s->windows.count * s->windows.length), flops = 0.0;
    for (int u = f->step[step].first; u < f->step[step].end; u++) {
        const snrq_rule *r = snrq_rules_at(&s->rules, 0, f->unit[u].first);
        double m = (double)f->unit[u].rows, n = (double)f->unit[u].columns;
        if (phase == SNRQ_PHASE_FORWARD) flops += 4.0 * tokens * m * n;
        if (!is_rounded(s, step)) continue;
        if (phase == SNRQ_PHASE_GRAM)
            flops +=
                tokens * n * n *
                (1.0 + (snrq_rule_needs_d(r) ? 2.0 : 0.0) + (snrq_rule_needs_e(r) ? 1.0 : 0.0));
        if (phase == SNRQ_PHASE_FACTOR)
            flops += 2.0 * n * n * n / 3.0 + (snrq_rule_shifts_target(r) ? 5.0 : 1.0) * m * n * n;
        if (phase == SNRQ_PHASE_SEARCH) flops += m * n * n * (1.0 + (double)r->regrid);
    }
    if (phase == SNRQ_PHASE_FORWARD && f->step[step].kind == SNRQ_STEP_ATTENTION)
        flops += 4.0 * tokens * (double)(s->windows.length + 1) * (double)(c->heads * c->head_dim);
    return flops;
}

/* Bytes of the block as they are on disk. */
static double disk_bytes(const subject *s, int phase)
{
    char path[4400], name[32];
    struct stat facts;
    double bytes = 0.0;
    const snrq_family *f = snrq_model_family(s->model, 0);
    for (int m = 0; phase == SNRQ_PHASE_READ && m < f->modules; m++)
        bytes += 2.0 * (double)(f->module[m].rows * f->module[m].columns);
    snrq_block_file_name(0, name);
    snprintf(path, sizeof path, "%s/OUT/%s", s->folder, name);
    if (phase == SNRQ_PHASE_WRITE && stat(path, &facts) == 0) bytes = (double)facts.st_size;
    return bytes;
}

/* Sums over steps and phases. */
typedef struct block_figures {
    double seconds[PHASES], cpu[PHASES], flops[PHASES];
    double scaled, other; /* at full calibration: forward and Gram; everything else */
    double cpu_scaled, cpu_other;
} block_figures;

static block_figures add_up(const subject *s)
{
    block_figures sum = {0};
    int steps = snrq_model_family(s->model, 0)->steps;
    double growth = full_tokens / (double)(s->windows.count * s->windows.length);
    for (int p = 0; p < PHASES; p++) {
        bool grows = p == SNRQ_PHASE_FORWARD || p == SNRQ_PHASE_GRAM;
        for (int i = 0; i < MOST_STEPS; i++) sum.seconds[p] += s->times[i].seconds[p];
        for (int i = 0; i < MOST_STEPS; i++) sum.cpu[p] += s->times[i].cpu[p];
        for (int i = 0; i < steps && p < SNRQ_PHASES; i++) sum.flops[p] += phase_flops(s, i, p);
        *(grows ? &sum.scaled : &sum.other) += sum.seconds[p] * (grows ? growth : 1.0);
        *(grows ? &sum.cpu_scaled : &sum.cpu_other) += sum.cpu[p] * (grows ? growth : 1.0);
    }
    return sum;
}

static void print_json(const subject *s, int ranks, int threads, const block_figures *sum)
{
    const snrq_rule *r = s->rules.rule;
    const snrq_family *f = snrq_model_family(s->model, 0);
    printf("{\"shape\": \"%s\", \"ranks\": %d, \"threads\": %d, \"sequences\": %lld, "
           "\"length\": %lld, \"method\": \"%s\", \"beam\": %d, \"bits\": %d, "
           "\"group_size\": %lld, \"gemm_gflops\": %.1f, \"peak_rank_bytes\": %.0f, ",
           s->b->shape->name, ranks, threads, (long long)s->windows.count,
           (long long)s->windows.length, snrq_method_name(r->method), r->beam, r->bits,
           (long long)r->group_size, s->rate * 1e-9, s->peak);
    for (int p = 0; p < PHASES; p++) {
        double bytes = disk_bytes(s, p);
        printf("%s\"%s\": {\"seconds\": %.4f, \"cpu\": %.4f", p > 0 ? ", " : "\"phases\": {",
               snrq_phase_name(p), sum->seconds[p], sum->cpu[p]);
        if (sum->flops[p] > 0.0)
            printf(", \"flops\": %.4g, \"share_of_gemm\": %.4f", sum->flops[p],
                   sum->flops[p] / sum->seconds[p] / s->rate);
        if (bytes > 0.0)
            printf(", \"bytes\": %.0f, \"bytes_per_second\": %.4g", bytes, bytes / sum->seconds[p]);
        for (int i = 0; i < f->steps && sum->flops[p] > 0.0; i++)
            printf(", \"%s\": %.4f", f->step[i].name, s->times[i].seconds[p]);
        printf("}");
    }
    printf("}, \"full_forward_and_gram_seconds\": %.3f, \"full_other_seconds\": %.3f, "
           "\"full_forward_and_gram_cpu\": %.3f, \"full_other_cpu\": %.3f, ",
           sum->scaled, sum->other, sum->cpu_scaled, sum->cpu_other);
    if (s->b->step == NULL)
        printf("\"rounding_share\": %.4f, \"cpu_rounding_share\": %.4f}\n",
               sum->other / sum->scaled, sum->cpu_other / sum->cpu_scaled);
    else
        printf("\"step\": \"%s\"}\n", s->b->step);
}

static void print_text(const subject *s, int ranks, int threads, const block_figures *sum)
{
    const snrq_rule *r = s->rules.rule;
    const snrq_family *f = snrq_model_family(s->model, 0);
    printf("%s, %lld x %lld tokens, %s, K = %d, %d bits, %d x %d: sgemm %.1f GF/s, peak of a rank "
           "%.0f MB\n%-8s %9s %9s %7s %9s",
           s->b->shape->name, (long long)s->windows.count, (long long)s->windows.length,
           snrq_method_name(r->method), r->beam, r->bits, ranks, threads, s->rate * 1e-9,
           s->peak * 1e-6, "phase", "seconds", "cpu", "share", "GF/s,MB/s");
    for (int i = 0; i < f->steps; i++) printf(" %18s", f->step[i].name);
    printf("\n");
    for (int p = 0; p < PHASES; p++) {
        double bytes = disk_bytes(s, p), work = bytes > 0.0 ? bytes * 1e-6 : sum->flops[p] * 1e-9;
        double seconds = fmax(sum->seconds[p], 1e-9);
        printf("%-8s %9.3f %9.3f %7.3f %9.1f", snrq_phase_name(p), sum->seconds[p], sum->cpu[p],
               sum->flops[p] / seconds / s->rate, work / seconds);
        for (int i = 0; i < f->steps; i++)
            printf(" %9.3f %8.3f", s->times[i].seconds[p], s->times[i].cpu[p]);
        printf("\n");
    }
    printf("at 128 x 2048 tokens: forward and Gram %.1f s (cpu %.1f), everything else %.1f s "
           "(cpu %.1f)",
           sum->scaled, sum->cpu_scaled, sum->other, sum->cpu_other);
    if (s->b->step == NULL)
        printf(": share %.4f (cpu %.4f)", sum->other / sum->scaled,
               sum->cpu_other / sum->cpu_scaled);
    printf("\n");
}

/* ---- start ---- */

static snrq_status make_windows(const bench *b, snrq_windows *w)
{
    int64_t tokens = b->tokens > 0 ? b->tokens : b->shape->tokens;
    int64_t length = b->shape->length < tokens ? b->shape->length : tokens;
    *w = (snrq_windows){.count = tokens / length, .length = length};
    w->total_tokens = w->distinct = w->count * w->length;
    return SNRQ_OK;
}

/* Refuses, before anything is written, a shape that does not fit. */
static snrq_status check_memory(const snrq_context *context, const bench *b)
{
    snrq_model model = {.config = block_config(b->shape)};
    snrq_windows windows;
    snrq_rules rules = {0};
    snrq_plan plan;
    snrq_layer_groups groups = {0};
    SNRQ_TRY(make_windows(b, &windows));
    snrq_status status = snrq_model_create_families(&model);
    if (status == SNRQ_OK) status = snrq_rules_create(&b->options, &model, &rules);
    if (status == SNRQ_OK) status = snrq_work_groups(&rules, &model, &windows, 1, &groups);
    if (status == SNRQ_OK)
        status = snrq_plan_make(context, &b->options, &model, &rules, &windows, &groups, &plan);
    snrq_layer_groups_free(&groups);
    status = snrq_agree(context, status);
    bool check = !b->options.ignore_memory;
    if (status == SNRQ_OK && check) status = snrq_check_memory(context, plan.node_bytes);
    if (status == SNRQ_OK && check) status = snrq_check_shared_memory(context, plan.shared_bytes);
    if (status == SNRQ_OK && context->rank == 0)
        fprintf(stderr, "bench_block: %s needs about %.1f GB on %d ranks\n", b->shape->name,
                plan.node_bytes * 1e-9, context->size);
    snrq_rules_free(&rules);
    snrq_model_free_families(&model);
    return status;
}

static snrq_status make_folder(const snrq_context *context, const bench *b, char *folder,
                               size_t size)
{
    const snrq_config config = block_config(b->shape);
    const char *where = getenv("TMPDIR");
    snrq_family family = {0};
    snrq_status status = SNRQ_OK;
    if (context->rank == 0) {
        snprintf(folder, size, "%s/bench_block-XXXXXX", where == NULL ? "/tmp" : where);
        if (mkdtemp(folder) == NULL)
            status = snrq_fail(SNRQ_CANNOT_WRITE, "no folder can be made in %s", folder);
        if (status == SNRQ_OK) status = snrq_family_create(&config, false, &family);
        if (status == SNRQ_OK) status = write_block_model(folder, b->shape, &family);
        snrq_family_free(&family);
    }
    SNRQ_TRY(snrq_agree(context, status));
    return snrq_broadcast(context, folder, size);
}

static snrq_status open_subject(subject *s)
{
    const bench *b = s->b;
    char out[4300];
    json_t *configuration = json_object();
    snprintf(out, sizeof out, "%s/OUT", s->folder);
    if (s->context->rank == 0) remove_folder(out);
    snrq_status status = snrq_model_open(s->context, s->folder, &s->model);
    if (status == SNRQ_OK) status = snrq_output_open(s->context, out, configuration, &s->output);
    json_decref(configuration);
    SNRQ_TRY(status);
    const snrq_family *f = snrq_model_family(s->model, 0);
    status = make_windows(b, &s->windows);
    if (status == SNRQ_OK) status = snrq_rules_create(&b->options, s->model, &s->rules);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->modules, sizeof *s->records, "records", &s->records);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)f->modules, sizeof *s->alpha_before, "strengths",
                               &s->alpha_before);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)(SNRQ_MEASURES * f->modules) * (size_t)s->windows.count,
                               sizeof *s->measures, "measures", &s->measures);
    SNRQ_TRY(snrq_agree(s->context, status));
    for (int m = 0; m < f->modules; m++) s->alpha_before[m] = 0.5;
    SNRQ_TRY(start_streams(s));
    snrq_range mine = s->x.range;
    if (b->options.alpha_mode != SNRQ_ALPHA_SAMPLED) return SNRQ_OK;
    SNRQ_TRY(snrq_agree(s->context, snrq_allocate((size_t)(mine.end - mine.begin),
                                                  sizeof *s->alphas, "alphas", &s->alphas)));
    snrq_sampled_alphas(b->options.alpha_value, 0, mine, s->alphas);
    return SNRQ_OK;
}

static void close_subject(subject *s)
{
    snrq_loaded_block_free(&s->quantized);
    snrq_loaded_block_free(&s->full);
    snrq_stream_free(&s->x);
    snrq_stream_free(&s->xf);
    snrq_ropes_free(&s->ropes);
    snrq_output_close(&s->output);
    snrq_rules_free(&s->rules);
    snrq_model_close(&s->model);
    free(s->records);
    free(s->alpha_before);
    free(s->measures);
    free(s->alphas);
}

/* The ranks of a measurement; all of them measure sgemm at the same time. */
static snrq_status measure(const snrq_context *context, const bench *b, const char *folder,
                           int threads)
{
    subject s = {.b = b, .context = context, .folder = folder};
    double rates[1024] = {0};
    omp_set_num_threads(threads);
    SNRQ_TRY(snrq_barrier(context));
    SNRQ_TRY(bench_gemm_rate(threads, false, 2e10, &rates[context->rank]));
    SNRQ_TRY(snrq_collect(context, rates, context->size));
    for (int r = 0; r < context->size; r++) s.rate += rates[r];
    snrq_status status = open_subject(&s);
    if (status == SNRQ_OK) status = run_block(&s);
    if (status == SNRQ_OK && context->rank == 0) {
        block_figures sum = add_up(&s);
        (b->json ? print_json : print_text)(&s, context->size, threads, &sum);
        fflush(stdout);
    }
    close_subject(&s);
    return status;
}

/* Ranks that have no part in a measurement sleep until the others are done. */
static void wait_for_others(void)
{
    MPI_Request request;
    int done = 0;
    MPI_Ibarrier(MPI_COMM_WORLD, &request);
    while (!done) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    }
}

static snrq_status run_split(const snrq_context *context, const bench *b, const char *folder,
                             int ranks, int threads)
{
    snrq_context *group = NULL;
    SNRQ_TRY(snrq_context_split(context, context->rank < ranks ? 0 : -1, &group));
    snrq_status status = group == NULL ? SNRQ_OK : measure(group, b, folder, threads);
    wait_for_others();
    snrq_context_destroy(&group);
    return snrq_agree(context, status);
}

static snrq_status run(const snrq_context *context, bench *b)
{
    char folder[4096] = "";
    if (b->splits == 0) {
        b->ranks[0] = context->size;
        b->threads[b->splits++] = omp_get_max_threads();
    }
    for (int i = 0; i < b->splits; i++)
        if (b->ranks[i] > context->size || context->size > 1024)
            return snrq_fail(SNRQ_USAGE, "--split %dx%d: %d ranks were started", b->ranks[i],
                             b->threads[i], context->size);
    SNRQ_TRY(check_memory(context, b));
    snrq_status status = make_folder(context, b, folder, sizeof folder);
    for (int i = 0; status == SNRQ_OK && i < b->splits; i++)
        status = run_split(context, b, folder, b->ranks[i], b->threads[i]);
    if (context->rank == 0) remove_folder(folder);
    return status;
}

static bool read_splits(const char *text, bench *b)
{
    for (b->splits = 0; b->splits < BENCH_MOST; text++) {
        int used = 0, i = b->splits;
        if (sscanf(text, "%dx%d%n", &b->ranks[i], &b->threads[i], &used) != 2) return false;
        if (b->ranks[i] < 1 || b->threads[i] < 1) return false;
        b->splits++;
        text += used;
        if (*text == '\0') return true;
        if (*text != ',') return false;
    }
    return false;
}

/* What is no option of the benchmark is one of quantize, which has a word to say about it. */
static snrq_status read_arguments(int argc, char **argv, bench *b)
{
    char *options[MOST_OPTIONS + 12] = {"snrq", "quantize", "-", "--token-file", "-", "-o", "-"};
    char *usual[] = {"--bits", "3", "--group-size", "128"}, *text = NULL;
    int count = 7;
    bool bits = false;
    for (int i = 1; i < argc && count < MOST_OPTIONS; i++) {
        char *value = i + 1 < argc ? argv[i + 1] : "";
        bool good = true, taken = true;
        if (strcmp(argv[i], "--row-feedback") == 0) {
            b->row_feedback = true;
            continue;
        }
        if (strcmp(argv[i], "--json") == 0) {
            b->json = true;
            continue;
        }
        if (strcmp(argv[i], "--shape") == 0) {
            for (int s = 0; s < BLOCK_SHAPES; s++)
                if (strcmp(value, block_shapes[s].name) == 0) b->shape = &block_shapes[s];
            good = b->shape != NULL;
        } else if (strcmp(argv[i], "--tokens") == 0)
            good = (b->tokens = atoi(value)) > 0;
        else if (strcmp(argv[i], "--split") == 0)
            good = read_splits(value, b);
        else if (strcmp(argv[i], "--step") == 0)
            b->step = value;
        else
            taken = false;
        if (!good) return snrq_fail(SNRQ_USAGE, "%s %s?\n%s", argv[i], value, usage);
        if (taken)
            i++;
        else
            options[count++] = argv[i];
        bits = bits || (!taken && strcmp(argv[i], "--bits") == 0);
    }
    for (int i = 0; !bits && i < 4; i++) options[count++] = usual[i];
    if (b->shape == NULL) return snrq_fail(SNRQ_USAGE, "--shape is missing\n%s", usage);
    snrq_status status = snrq_options_parse(count, options, &b->options, &text);
    if (b->row_feedback) b->options.sensitivity = "random";
    free(text);
    return status;
}

int main(int argc, char **argv)
{
    static bench b;
    int provided, rank = 0;
    snrq_context *context = NULL;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    snrq_blas_single_thread();
    snrq_status status = read_arguments(argc, argv, &b);
    if (status == SNRQ_OK) status = snrq_context_create(MPI_COMM_WORLD, &context);
    if (status == SNRQ_OK) status = run(context, &b);
    if (status != SNRQ_OK && rank == 0) fprintf(stderr, "bench_block: %s\n", snrq_error_message());
    snrq_context_destroy(&context);
    snrq_options_free(&b.options);
    MPI_Finalize();
    return (int)status;
}
