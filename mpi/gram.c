/* Exact Gram sums; see gram.h.
 *
 * G is computed in the natural order of columns, in panels of columns; `order` only decides where
 * an element is stored. A panel is a table of 64-bit sums, [width, n - first_row] with the rows of
 * G contiguous. It is added up over ranks, in the background, while the next panel is computed.
 *
 * The unit of arithmetic is a tile of G and a chunk of tokens of one sequence. Its shape depends on
 * n and the number of tokens alone, so that its fp32 GEMM gives the same bits on every rank and
 * thread. Activations are packed tile by tile for it: GEMMs on columns of the full table are slowed
 * by its long stride.
 *
 * Fixed point: ||A_i|| <= 2^ea_i, ||B_j|| <= 2^eb_j, and G_ij counts units of 2^(ea_i + eb_j - 61).
 * By Cauchy-Schwarz over all sequences, every partial sum is at most 2^61 units, but for the
 * rounding of norms and fp32 products (a share of at most tokens * 2^-24), for which two bits are
 * left.
 */
#include "mpi/gram.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/blas.h"

enum {
    SMALL_N = 1024,         /* up to here one panel and small tiles, */
    SMALL_TILE = 128,       /* [128, 128] elements; */
    LARGE_TILE = 256,       /* above it large ones, and */
    PANELS = 2,             /* at least so many panels, so that some of the reduction is hidden, */
    PANEL_ITEMS = 1 << 23,  /* each of at most 64 MiB, or one tile wide */
    STRIP_TILES = 4,        /* tiles of a panel that one thread computes from one packing of A */
    CHUNK_TOKENS = 512,     /* tokens of one GEMM */
    BATCH_ITEMS = 1 << 23,  /* 32 MiB of B are packed at a time, or one sequence */
    REDUCE_ITEMS = 1 << 23, /* per MPI call */
    ROW_BITS = 31,          /* ea_i is worth 31 bits and */
    COLUMN_BITS = 30,       /* eb_j 30: together the 61 above */
    NORM_BITS = 62,
    NORM_COLUMNS = 512 /* columns of one unit of work of the norms */
};

static const double SUM_LIMIT = 0x1p62; /* no contribution within its bound comes near */

/* ---- column norms ---- */

/* sums[j] <- sum over tokens of x_j^2 for columns [begin, end) of sequence s, token by token. */
static void add_squares(const snrq_activations *a, const snrq_activations *minus, int64_t s,
                        int64_t begin, int64_t end, double *sums)
{
    for (int64_t t = 0; t < a->tokens; t++) {
        size_t at = (size_t)((s * a->tokens + t) * a->columns);
        const float *x = a->data + at;
        const float *y = minus == NULL ? NULL : minus->data + at;
        for (int64_t j = begin; j < end; j++) {
            double value = y == NULL ? x[j] : x[j] - y[j];
            sums[j] += value * value;
        }
    }
}

/* sums [sequences, n] <- scale_s^2 sum_t x_tj^2. Fails if one is not finite. */
static snrq_status sum_squares(const snrq_activations *a, const snrq_activations *minus,
                               const double *scale, double *sums)
{
    int64_t n = a->columns, parts = (n + NORM_COLUMNS - 1) / NORM_COLUMNS;
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < a->sequences * parts; unit++) {
        int64_t s = unit / parts, begin = unit % parts * NORM_COLUMNS;
        int64_t end = begin + NORM_COLUMNS < n ? begin + NORM_COLUMNS : n;
        double *row = sums + s * n, factor = scale == NULL ? 1 : scale[s] * scale[s];
        add_squares(a, minus, s, begin, end, row);
        for (int64_t j = begin; j < end; j++) row[j] *= factor;
    }
    for (int64_t at = 0; at < a->sequences * n; at++)
        if (!isfinite(sums[at]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "the activations of input column %lld are not finite (NaN or Inf) in "
                             "sequence %lld of this rank",
                             (long long)(at % n), (long long)(at / n));
    return SNRQ_OK;
}

/* norms[j] <- sum over all sequences of sums[s][j], added as integers of a unit that all ranks
 * agree on. */
static snrq_status add_sequences(const snrq_context *context, int64_t sequences, int64_t n,
                                 const double *sums, int64_t *fixed, double *norms)
{
    int64_t total = sequences;
    int guard = 0;
    SNRQ_TRY(snrq_sum_int64(context, &total, 1));
    while (((int64_t)1 << guard) < total) guard++;
    memset(norms, 0, (size_t)n * sizeof *norms);
    for (int64_t at = 0; at < sequences * n; at++)
        if (sums[at] > norms[at % n]) norms[at % n] = sums[at];
    SNRQ_TRY(snrq_max_double(context, norms, n));
    for (int64_t at = 0; at < sequences * n; at++) {
        int exponent; /* the largest sum of a sequence is below 2^exponent */
        frexp(norms[at % n], &exponent);
        fixed[at % n] += llrint(ldexp(sums[at], NORM_BITS - guard - exponent));
    }
    SNRQ_TRY(snrq_sum_int64(context, fixed, n));
    for (int64_t j = 0; j < n; j++) {
        int exponent;
        frexp(norms[j], &exponent);
        norms[j] = ldexp((double)fixed[j], exponent + guard - NORM_BITS);
    }
    return SNRQ_OK;
}

snrq_status snrq_gram_norms(const snrq_context *context, const snrq_activations *a,
                            const snrq_activations *minus, const double *scale, double *norms)
{
    double *sums = NULL;
    int64_t *fixed = NULL;
    snrq_status status =
        snrq_allocate((size_t)(a->sequences * a->columns), sizeof *sums, "column sums", &sums);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)a->columns, sizeof *fixed, "column sums", &fixed);
    if (status == SNRQ_OK) status = sum_squares(a, minus, scale, sums);
    status = snrq_agree(context, status);
    if (status == SNRQ_OK)
        status = add_sequences(context, a->sequences, a->columns, sums, fixed, norms);
    free(sums);
    free(fixed);
    return status;
}

/* ---- the Gram ---- */

/* Columns [begin, begin + width) of G, rows [first_row, n): sums[j - begin][i - first_row]. */
typedef struct panel {
    int64_t begin, width, first_row;
    int64_t *sums;
} panel;

typedef struct gram {
    const snrq_gram_request *request;
    snrq_matrix *out;
    int64_t n, tokens, sequences; /* of this rank */
    int64_t tile, panel_width, batch;
    double *row_units,
        *column_units; /* [n] each: 2^(31 - ea_i), 2^(30 - eb_j); 0 if the norm is 0 */
    double *row_values, *column_values; /* [n] each: their reciprocals, 0 if the norm is 0 */
    int64_t *sums[2];                   /* two panels: one computed, one in flight */
    float *packed;                      /* [batch sequences, tiles of a panel, tokens, tile] of B */
    int threads;
    float *scratch; /* [threads]: a chunk of A, [chunk, tile], and a tile of G, [tile, tile] */
    int32_t *rows;  /* [local rows of out] the column of A that each stands for */
    MPI_Request *requests;
    int in_flight;
    int64_t bad_column; /* of G, where a product was not finite; n: none */
} gram;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t chunk_tokens(const gram *g)
{
    return least(g->tokens, CHUNK_TOKENS);
}

static int64_t scratch_items(const gram *g)
{
    return (chunk_tokens(g) + g->tile) * g->tile;
}

/* Shapes: functions of n and tokens only, but for the batch, which does not touch the arithmetic.
 */
static void choose_shapes(gram *g)
{
    g->tile = g->n <= SMALL_N ? SMALL_TILE : LARGE_TILE;
    int64_t width =
        g->n <= SMALL_N ? g->n : least(PANEL_ITEMS / g->n, (g->n + PANELS - 1) / PANELS);
    int64_t tiles = g->n <= SMALL_N ? (width + g->tile - 1) / g->tile : width / g->tile;
    g->panel_width = least((tiles > 1 ? tiles : 1) * g->tile, g->n);
    int64_t items = g->tokens * g->panel_width;
    g->batch = items > 0 && BATCH_ITEMS / items > 1 ? BATCH_ITEMS / items : 1;
    g->batch = least(g->batch, g->sequences);
}

static snrq_status choose_units(int64_t n, const double *norms, int bits, double *units,
                                double *values)
{
    for (int64_t j = 0; j < n; j++) {
        int exponent;
        if (!isfinite(norms[j]) || norms[j] < 0)
            return snrq_fail(SNRQ_INTERNAL, "the norm of column %lld is %g", (long long)j,
                             norms[j]);
        frexp(sqrt(norms[j]), &exponent);
        if (norms[j] == 0) continue; /* and both stay 0 */
        units[j] = ldexp(1, bits - exponent);
        values[j] = ldexp(1, exponent - bits);
    }
    return SNRQ_OK;
}

static snrq_status check_request(const snrq_gram_request *r, const snrq_matrix *out)
{
    const snrq_activations *all[] = {r->a, r->b, r->a_minus, r->b_minus};
    for (int k = 0; k < 4; k++)
        if (all[k] != NULL &&
            (all[k]->columns != out->rows || all[k]->columns != out->columns ||
             all[k]->tokens != r->a->tokens || all[k]->sequences != r->a->sequences))
            return snrq_fail(
                SNRQ_INTERNAL,
                "Gram: activations of %lld sequences, %lld tokens, %lld columns do not "
                "go with %lld, %lld and a %lld x %lld result",
                (long long)all[k]->sequences, (long long)all[k]->tokens, (long long)all[k]->columns,
                (long long)r->a->sequences, (long long)r->a->tokens, (long long)out->rows,
                (long long)out->columns);
    return SNRQ_OK;
}

static snrq_status prepare(gram *g)
{
    const snrq_gram_request *r = g->request;
    SNRQ_TRY(check_request(r, g->out));
    choose_shapes(g);
    size_t n = (size_t)g->n, items = (size_t)(g->panel_width * g->n);
    size_t packed = (size_t)(g->batch * g->tokens * g->panel_width);
    SNRQ_TRY(snrq_allocate(n, sizeof(double), "Gram units", &g->row_units));
    SNRQ_TRY(snrq_allocate(n, sizeof(double), "Gram units", &g->column_units));
    SNRQ_TRY(snrq_allocate(n, sizeof(double), "Gram units", &g->row_values));
    SNRQ_TRY(snrq_allocate(n, sizeof(double), "Gram units", &g->column_values));
    SNRQ_TRY(snrq_allocate(items, sizeof(int64_t), "Gram panel", &g->sums[0]));
    if (g->panel_width < g->n)
        SNRQ_TRY(snrq_allocate(items, sizeof(int64_t), "Gram panel", &g->sums[1]));
    SNRQ_TRY(snrq_allocate(packed, sizeof(float), "packed activations", &g->packed));
    SNRQ_TRY(snrq_allocate((size_t)(g->threads * scratch_items(g)), sizeof(float), "Gram tiles",
                           &g->scratch));
    SNRQ_TRY(snrq_allocate((size_t)g->out->local_rows, sizeof(int32_t), "Gram rows", &g->rows));
    SNRQ_TRY(snrq_allocate(items / REDUCE_ITEMS + 1, sizeof(MPI_Request), "Gram requests",
                           &g->requests));
    for (int64_t k = 0; k < g->out->local_rows; k++)
        g->rows[k] = r->order[snrq_matrix_global_row(g->out, k)];
    SNRQ_TRY(choose_units(g->n, r->a_norms, ROW_BITS, g->row_units, g->row_values));
    return choose_units(g->n, r->b_norms, COLUMN_BITS, g->column_units, g->column_values);
}

/* out [tokens, width] <- columns [column, column + width) of (x - minus) from token `token` of
 * sequence s on. */
static void pack(const snrq_activations *x, const snrq_activations *minus, int64_t s, int64_t token,
                 int64_t tokens, int64_t column, int64_t width, float *out)
{
    for (int64_t t = 0; t < tokens; t++, out += width) {
        size_t at = (size_t)((s * x->tokens + token + t) * x->columns + column);
        memcpy(out, x->data + at, (size_t)width * sizeof *out);
        if (minus != NULL)
            for (int64_t j = 0; j < width; j++) out[j] -= minus->data[at + (size_t)j];
    }
}

/* Packs the panel's columns of B for sequences [first, first + count). */
static void pack_batch(const gram *g, const panel *p, int64_t first, int64_t count)
{
    int64_t tiles = (p->width + g->tile - 1) / g->tile;
#pragma omp parallel for schedule(static)
    for (int64_t unit = 0; unit < count * tiles; unit++) {
        int64_t s = unit / tiles, at = unit % tiles * g->tile;
        pack(g->request->b, g->request->b_minus, first + s, 0, g->tokens, p->begin + at,
             least(g->tile, p->width - at), g->packed + (s * p->width + at) * g->tokens);
    }
}

/* sums[i] += x[i] in fixed point; false if one is not finite or beyond its bound. */
static bool add_fixed(int64_t count, const float *x, const double *row_units, double column_unit,
                      int64_t *sums)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        double value = (double)x[i] * column_unit * row_units[i];
        bool good = fabs(value) <= SUM_LIMIT;
        bad += !good;
        sums[i] += (int64_t)rint(good ? value : 0);
    }
    return bad == 0;
}

/* Adds one fp32 tile [columns, rows] of G at (row, column), from a sequence of the given scale. */
static void add_tile(gram *g, const panel *p, const float *tile, int64_t row, int64_t rows,
                     int64_t column, int64_t columns, double scale)
{
    for (int64_t j = 0; j < columns; j++) {
        int64_t *sums =
            p->sums + (column + j - p->begin) * (g->n - p->first_row) + row - p->first_row;
        if (add_fixed(rows, tile + j * rows, g->row_units + row,
                      scale * g->column_units[column + j], sums))
            continue;
#pragma omp critical(snrq_gram_bad_column)
        g->bad_column = least(g->bad_column, column + j);
    }
}

/* Adds sequences [first, first + count) to the tiles of rows [row, row + tile) and columns [begin,
 * end). */
static void add_strip(gram *g, const panel *p, int64_t first, int64_t count, int64_t row,
                      int64_t begin, int64_t end, float *scratch)
{
    const snrq_gram_request *r = g->request;
    int64_t rows = least(g->tile, g->n - row);
    float *a = scratch, *tile = scratch + chunk_tokens(g) * g->tile;
    for (int64_t s = 0; s < count; s++)
        for (int64_t token = 0; token < g->tokens; token += CHUNK_TOKENS) {
            int64_t tokens = least(CHUNK_TOKENS, g->tokens - token);
            pack(r->a, r->a_minus, first + s, token, tokens, row, rows, a);
            for (int64_t column = begin; column < end; column += g->tile) {
                int64_t columns = least(g->tile, end - column), at = column - p->begin;
                const float *b = g->packed + (s * p->width + at) * g->tokens + token * columns;
                snrq_sgemm(true, false, columns, rows, tokens, 1, b, columns, a, rows, 0, tile,
                           rows);
                add_tile(g, p, tile, row, rows, column, columns,
                         r->scale == NULL ? 1 : r->scale[first + s]);
            }
        }
}

/* Adds a batch of sequences to the panel. A unit of work is a strip: one row of tiles, STRIP_TILES
 * long. */
static void add_batch(gram *g, const panel *p, int64_t first, int64_t count)
{
    int64_t width = STRIP_TILES * g->tile, strips = (p->width + width - 1) / width;
    int64_t row_tiles = (g->n - p->first_row + g->tile - 1) / g->tile;
    pack_batch(g, p, first, count);
#pragma omp parallel for schedule(dynamic) num_threads(g->threads)
    for (int64_t unit = 0; unit < strips * row_tiles; unit++) {
        /* From the last row up: in a symmetric Gram that is from long to short. */
        int64_t row = p->first_row + (row_tiles - 1 - unit / strips) * g->tile;
        int64_t begin = p->begin + unit % strips * width;
        int64_t end = least(begin + width, p->begin + p->width);
        if (g->request->symmetric) end = least(end, row + g->tile);
        if (begin < end)
            add_strip(g, p, first, count, row, begin, end,
                      g->scratch + omp_get_thread_num() * scratch_items(g));
    }
}

static snrq_status make_progress(gram *g)
{
    int done;
    if (g->in_flight == 0) return SNRQ_OK;
    return snrq_mpi_check(MPI_Testall(g->in_flight, g->requests, &done, MPI_STATUSES_IGNORE),
                          "MPI_Testall");
}

static snrq_status compute_panel(gram *g, const panel *p)
{
    memset(p->sums, 0, (size_t)(p->width * (g->n - p->first_row)) * sizeof *p->sums);
    for (int64_t first = 0; first < g->sequences; first += g->batch) {
        add_batch(g, p, first, least(g->batch, g->sequences - first));
        SNRQ_TRY(make_progress(g));
    }
    return SNRQ_OK;
}

static snrq_status start_reduction(gram *g, const panel *p)
{
    const snrq_context *c = g->out->grid->context;
    int64_t items = p->width * (g->n - p->first_row);
    for (int64_t at = 0; at < items && c->size > 1; at += REDUCE_ITEMS) {
        SNRQ_TRY(snrq_mpi_check(MPI_Iallreduce(MPI_IN_PLACE, p->sums + at,
                                               (int)least(REDUCE_ITEMS, items - at), MPI_INT64_T,
                                               MPI_SUM, c->comm, &g->requests[g->in_flight]),
                                "MPI_Iallreduce"));
        g->in_flight++;
    }
    return SNRQ_OK;
}

static snrq_status wait_reduction(gram *g)
{
    int count = g->in_flight;
    g->in_flight = 0;
    return snrq_mpi_check(MPI_Waitall(count, g->requests, MPI_STATUSES_IGNORE), "MPI_Waitall");
}

/* G_ij from its panel, for 0 <= i - first_row, 0 <= j - begin < width. */
static double element(const gram *g, const panel *p, int64_t i, int64_t j)
{
    double units = (double)p->sums[(j - p->begin) * (g->n - p->first_row) + i - p->first_row];
    return units * g->row_values[i] * g->column_values[j] * g->request->factor;
}

/* Stores what this rank owns of a reduced panel: element (i, j) of G at the places where `order`
 * has i and j. Of a symmetric G, the panel has the elements with i >= j; each is stored at (i, j)
 * and (j, i). */
static void store_panel(gram *g, const panel *p)
{
    snrq_matrix *out = g->out;
    int64_t end = p->begin + p->width;
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t l = 0; l < out->local_columns; l++) {
        int64_t j = g->request->order[snrq_matrix_global_column(out, l)];
        bool inside = j >= p->begin && j < end;
        double *to = out->local + l * out->local_rows;
        if (!g->request->symmetric) {
            for (int64_t k = 0; k < out->local_rows && inside; k++)
                to[k] = element(g, p, g->rows[k], j);
            continue;
        }
        for (int64_t k = 0; k < out->local_rows && j >= p->begin; k++) {
            int64_t i = g->rows[k];
            if (i >= j && inside)
                to[k] = element(g, p, i, j);
            else if (i < j && i >= p->begin && i < end)
                to[k] = element(g, p, j, i);
        }
    }
}

static snrq_status reduce_panels(gram *g)
{
    panel last = {0};
    int turn = 0;
    for (int64_t begin = 0; begin < g->n; begin += g->panel_width, turn = 1 - turn) {
        panel p = {.begin = begin,
                   .width = least(g->panel_width, g->n - begin),
                   .first_row = g->request->symmetric ? begin : 0,
                   .sums = g->sums[turn]};
        SNRQ_TRY(compute_panel(g, &p));
        SNRQ_TRY(wait_reduction(g));
        SNRQ_TRY(start_reduction(g, &p));
        if (last.sums != NULL) store_panel(g, &last);
        last = p;
    }
    SNRQ_TRY(wait_reduction(g));
    store_panel(g, &last);
    return SNRQ_OK;
}

static snrq_status check_finite(const gram *g)
{
    if (g->bad_column == g->n) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "the products of input column %lld with other columns are too large for fp32: "
                     "its activations are not finite or beyond 1e18",
                     (long long)g->bad_column);
}

snrq_status snrq_gram_reduce(const snrq_gram_request *request, snrq_matrix *out)
{
    const snrq_context *context = out->grid->context;
    gram g = {.request = request,
              .out = out,
              .n = request->a->columns,
              .tokens = request->a->tokens,
              .sequences = request->a->sequences,
              .threads = omp_get_max_threads(),
              .bad_column = request->a->columns};
    snrq_status status = snrq_agree(context, prepare(&g));
    if (status == SNRQ_OK) status = reduce_panels(&g);
    if (status == SNRQ_OK) status = snrq_agree(context, check_finite(&g));
    free(g.row_units);
    free(g.column_units);
    free(g.row_values);
    free(g.column_values);
    free(g.sums[0]);
    free(g.sums[1]);
    free(g.packed);
    free(g.scratch);
    free(g.rows);
    free(g.requests);
    return status;
}

/* x - minus at (sequence, token, column), subtracted in fp32 as the fast path does. */
static float reference_item(const snrq_activations *x, const snrq_activations *minus, int64_t s,
                            int64_t t, int64_t column)
{
    size_t at = (size_t)((s * x->tokens + t) * x->columns + column);
    return minus == NULL ? x->data[at] : x->data[at] - minus->data[at];
}

void snrq_gram_reference(const snrq_gram_request *r, double *out)
{
    int64_t n = r->a->columns;
    for (int64_t l = 0; l < n; l++)
        for (int64_t k = 0; k < n; k++) {
            double sum = 0;
            for (int64_t s = 0; s < r->a->sequences; s++) {
                double part = 0;
                for (int64_t t = 0; t < r->a->tokens; t++)
                    part += (double)reference_item(r->a, r->a_minus, s, t, r->order[k]) *
                            (double)reference_item(r->b, r->b_minus, s, t, r->order[l]);
                sum += (r->scale == NULL ? 1 : r->scale[s]) * part;
            }
            out[l * n + k] = r->factor * sum;
        }
}
