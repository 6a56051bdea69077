/* The plan of a run; see plan.h. */
#include "pipeline/plan.h"

#include <math.h>
#include <stdio.h>

#include "mpi/gram.h"
#include "pipeline/report.h"
#include "pipeline/search.h"
#include "pipeline/statistics.h"
#include "pipeline/stream.h"

double snrq_plan_stage_work(const snrq_options *o, const snrq_family *f, snrq_stage stage,
                            int64_t sequences, int64_t length)
{
    double tokens = (double)sequences * (double)length;
    double m = (double)f->stage_rows[stage], n = (double)f->stage_columns[stage];
    double beams = o->method == SNRQ_KSNRQ && o->beam > 1 ? 1.5 + 0.25 * (double)o->beam : 1.0;
    double grams = snrq_uses_mismatch_energy(o) ? 2.0 : snrq_uses_mismatch(o) ? 1.5 : 0.5;
    /* fp64 work counts double. */
    double factor = n * n * n / 3.0 * 2.0 + (snrq_uses_mismatch(o) ? 4.0 : 2.0) * m * n * n;
    double fit = (o->grid == SNRQ_GRID_MINMAX ? 2.0 : 1000.0) * m * n;
    return 2.0 * tokens * m * n + grams * tokens * n * n + factor + fit +
           (beams / 2.0 + (double)o->refine) * m * n * n * (1.0 + (double)o->regrid);
}

/* Bytes of weights of a block: full precision, and as codes with scales and zeros in memory. */
static void block_bytes(const snrq_options *o, const snrq_model *m, double *full, double *codes,
                        double *stored)
{
    *full = *codes = *stored = 0.0;
    for (int i = 0; i < m->family.modules; i++) {
        double rows = (double)m->family.module[i].rows,
               columns = (double)m->family.module[i].columns;
        double groups = o->group_size > 0 ? columns / (double)o->group_size : 1.0;
        *full += rows * columns * (double)snrq_dtype_size(m->config.dtype);
        *codes += rows * columns + rows * groups * 5.0;
        *stored += rows * columns * (double)o->bits / 8.0 +
                   rows * groups * (1.0 + (double)snrq_dtype_size((snrq_dtype)o->scale_type));
    }
}

/* A process with its libraries, before it has any data (measured). */
static const double process_bytes = 40e6;

/* Largest stage of a rank: both streams with a stage's input, the next one and a batch of outputs;
 * Grams; targets and search. */
static double rank_bytes(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                         const snrq_windows *w)
{
    snrq_range mine = snrq_share(w->count, 1, c->size, 0);
    double tokens = (double)((mine.end - mine.begin) * w->length), most = 0.0;
    double batch = (double)(snrq_stream_batch(mine.end - mine.begin, w->length) * w->length);
    double hidden = 8.0 * tokens * (double)m->config.hidden;
    for (int s = 0; s < SNRQ_STAGES; s++) {
        double n = (double)m->family.stage_columns[s],
               next = s < 3 ? (double)m->family.stage_columns[s + 1] : 0;
        snrq_range r = snrq_share(m->family.stage_rows[s], SNRQ_TILE_ROWS, c->size, 0);
        double rows = (double)(r.end - r.begin), shifted = snrq_uses_mismatch(o) ? 1.0 : 0.0;
        int grid_rows = o->factor_rows, grid_columns = o->factor_columns;
        if (grid_rows == 0) snrq_grid_shape((int64_t)n, c->size, &grid_rows, &grid_columns);
        double share = 1.0 / (grid_rows * grid_columns);
        double panels = n < 8192.0 * 1024.0 / n ? 16.0 * n * n : 128.0 * 1048576.0;
        double packed = 4.0 * fmin((double)w->length, 1024.0) * (n + panels / (16.0 * n));
        double gram = 8.0 * tokens * n + panels + packed + n * n * 8.0 * (1.0 + shifted) * share;
        double search = 8.0 * tokens * n + n * n * 8.0 * (2.0 + shifted) * share +
                        rows * n * (25.0 + 16.0 * shifted) +
                        16.0 * n * (double)m->family.stage_rows[s] * share;
        double groups = o->group_size > 0 ? ceil(n / (double)o->group_size) : 1.0;
        if (o->regrid > 0) search += rows * (8.0 * groups * groups + 5.0 * n);
        double forward =
            8.0 * tokens * (n + next) + 4.0 * batch * (n + 2.0 * (double)m->family.stage_rows[s]);
        double stage = gram > search ? gram : search;
        stage = stage > forward ? stage : forward;
        most = stage > most ? stage : most;
    }
    return process_bytes + hidden + most;
}

/* Says so where the factorization's grid is smaller than the matrices ask for, because its bits
 * depend on it. */
static void print_grid(const snrq_context *c, const snrq_options *o, const snrq_model *m)
{
    int rows, columns, wanted_rows, wanted_columns;
    int64_t n = m->family.max_columns;
    snrq_grid_shape(n, c->size, &rows, &columns);
    snrq_grid_shape(n, 1 << 20, &wanted_rows, &wanted_columns);
    if (o->factor_rows > 0 || (rows == wanted_rows && columns == wanted_columns)) return;
    snrq_note(c,
              "factor grid  %dx%d for matrices of order %lld; on %d or more ranks it would be "
              "%dx%d, and the last "
              "bits would differ (--factor-grid %dx%d keeps them)",
              rows, columns, (long long)n, wanted_rows * wanted_columns, wanted_rows,
              wanted_columns, rows, columns);
}

void snrq_plan_print(const snrq_context *c, const snrq_options *o, const snrq_model *m,
                     const snrq_windows *w)
{
    double full, codes, stored;
    const snrq_config *k = &m->config;
    block_bytes(o, m, &full, &codes, &stored);
    double table = (double)(k->vocabulary * k->hidden) * (double)snrq_dtype_size(k->dtype);
    double rest = table * (k->tied_embeddings ? 1.0 : 2.0);
    const char *const *stage = m->family.stage_name;
    snrq_note(c,
              "model        %s: %s, %lld blocks of %lld modules [%s] [%s] [%s] [%s], hidden %lld, "
              "intermediate %lld",
              m->path, k->architecture, (long long)k->layers, (long long)m->family.modules,
              stage[SNRQ_STAGE_QKV], stage[SNRQ_STAGE_O], stage[SNRQ_STAGE_GATE_UP],
              stage[SNRQ_STAGE_DOWN], (long long)k->hidden, (long long)k->intermediate);
    snrq_note(c, "calibration  %lld windows of %lld tokens", (long long)w->count,
              (long long)w->length);
    char groups[64] = "per channel";
    if (o->group_size > 0)
        snprintf(groups, sizeof groups, "groups of %lld %s columns", (long long)o->group_size,
                 o->permuted_groups ? "permuted" : "original");
    snrq_note(
        c,
        "method       %s, beam %lld, %lld bits %s, %s, alpha %s, grid %s, refine %lld, regrid %lld",
        snrq_method_name(o->method), o->method == SNRQ_KSNRQ ? (long long)o->beam : 1LL,
        (long long)o->bits, o->asymmetric ? "asymmetric" : "symmetric", groups, o->alpha_text,
        snrq_grid_name(o->grid), (long long)o->refine, (long long)o->regrid);
    snrq_note(c, "memory       about %.0f MB per rank, and %.0f MB per node for weights",
              rank_bytes(c, o, m, w) / 1e6, (full + codes > table ? full + codes : table) / 1e6);
    snrq_note(c, "output       %.1f MB in %lld files", ((double)k->layers * stored + rest) / 1e6,
              (long long)k->layers + 1);
    print_grid(c, o, m);
}
