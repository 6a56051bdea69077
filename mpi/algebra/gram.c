/* Exact Gram sums; see gram.h.
 *
 * G is computed in the natural order of columns, in panels of columns; `order` only decides where
 * an element is stored. A panel is a table of 64-bit sums, [width, high - first_row] with the rows
 * of G contiguous. It is added up over ranks, in the background, while the next panel is computed.
 *
 * The unit of arithmetic is a chunk of tokens of one sequence: its share of an element of G is one
 * fp32 sum (mpi/algebra/product.h), and the same bits on every rank and thread, since chunks begin
 * at fixed tokens. Chunks are packed for the product some at a time, A and B each once for a panel.
 *
 * Fixed point: ||A_i|| <= 2^ea_i and ||B_j|| <= 2^eb_j, from the norms. Packing multiplies by
 * 2^-ea_i and 2^-eb_j, which is exact and keeps every product far from the ends of fp32, and G_ij
 * counts units of 2^(ea_i + eb_j - 61). By Cauchy-Schwarz over all sequences, every partial sum is
 * at most 2^61 units, but for the rounding of norms and fp32 products (a share of at most 2048 *
 * 2^-24), for which two bits are left.
 */
#include "mpi/algebra/gram.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/product.h"

enum {
    SLAB = SNRQ_PRODUCT_SLAB,
    SMALL_N = 512,          /* up to here one panel, of each thread, and small units of work, */
    SMALL_TILE = SLAB,      /* [48, 96] elements; */
    LARGE_TILE = 2 * SLAB,  /* above it large ones, [192, 192], and */
    PANELS = 2,             /* at least so many panels, so that some of the reduction is hidden, */
    PANEL_ITEMS = 1 << 23,  /* each of at most 64 MiB, or one tile wide */
    SMALL_CHUNK = 512,      /* tokens of one fp32 sum, */
    LARGE_CHUNK = 2048,     /* so many that few are added to the panel, which is far away */
    PACK_TOKENS = 16,       /* packed together: what was just written is slow to read */
    BATCH_ITEMS = 1 << 17,  /* 512 KiB of A and B are packed at a time, or one chunk */
    REDUCE_ITEMS = 1 << 23, /* per MPI call */
    STORE_COLUMNS = 32,     /* columns of the result that are stored together */
    UNIT_BITS = 61,
    ROW_BITS = 31,         /* the part of them that belongs to the row */
    LEAST_EXPONENT = -126, /* 2^-ea_i is an fp32 number; no column of fp32 numbers needs more */
    MOST_EXPONENT = 149,
    SOURCES = 4 /* of a Gram: A, B, and what is subtracted from them */
};

static const double CONTRIBUTION_LIMIT = 2; /* of the bound; rounding stays far below */

/* Columns [begin, begin + width) of G, rows [first_row, high): sums[j - begin][i - first_row]. */
typedef struct panel {
    int64_t begin, width, first_row;
    int64_t *sums;
} panel;

/* Tokens of a sequence of this rank: a chunk, or a piece of one. */
typedef struct chunk {
    int64_t sequence, token, tokens; /* token: row of the activations */
} chunk;

typedef struct gram {
    const snrq_gram_request *request;
    const snrq_context *context; /* of the ranks whose sequences are summed */
    snrq_matrix *out;            /* NULL: other ranks get the result */
    int64_t high, wide;          /* rows and columns of G: columns of A and of B */
    int64_t longest;             /* tokens of this rank's longest sequence */
    int64_t chunks;              /* of this rank's sequences */
    chunk *chunk;                /* [chunks] in order */
    bool apart;                  /* small: threads have tables of their own */
    int64_t tile, unit_columns, panel_width, batch;
    float *a_units, *b_units; /* [high], [wide]: 2^-ea_i, 2^-eb_j; 0 if the norm is 0 */
    double *a_values,
        *b_values;    /* [high], [wide]: 2^(ea_i - 31), 2^(eb_j - 30); 0 if the norm is 0 */
    int64_t *sums[2]; /* two panels: one computed, one in flight */
    float *a, *b; /* [batch of chunks][pieces][strips][tokens][width] packed rows, columns of G */
    int32_t *rows, *columns; /* [local rows, columns of out] the column of A, of B it stands for */
    MPI_Request *requests;
    int in_flight;
    int64_t bad_column; /* of G, where a product was not finite; wide: none */
    struct {
        const float *next;
        int64_t left; /* floats */
    } ahead[SOURCES]; /* what the next batch will read; only of threads apart */
} gram;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t padded(int64_t columns)
{
    return snrq_product_padded(columns, SLAB);
}

static bool is_small(const gram *g)
{
    return g->high <= SMALL_N && g->wide <= SMALL_N;
}

/* Tokens of a chunk, but for the last of a sequence. A function of the shape, but where all
 * sequences are shorter, which then are one chunk each. */
static int64_t chunk_tokens(const gram *g)
{
    return least(g->longest, is_small(g) ? SMALL_CHUNK : LARGE_CHUNK);
}

/* Chunks of a sequence of so many tokens. */
static int64_t chunks_of(const gram *g, int64_t tokens)
{
    return tokens == 0 ? 0 : (tokens + chunk_tokens(g) - 1) / chunk_tokens(g);
}

/* Functions of the shape, but for the batch, which does not touch the arithmetic either. */
static void choose_shapes(gram *g)
{
    bool small = is_small(g);
    g->tile = small ? SMALL_TILE : LARGE_TILE;
    g->unit_columns = small ? SMALL_TILE / 2 : LARGE_TILE;
    int64_t width = small ? g->wide : least(PANEL_ITEMS / g->high, (g->wide + PANELS - 1) / PANELS);
    g->panel_width =
        least(width > g->tile ? snrq_product_padded(width, g->tile) : g->tile, g->wide);
    g->apart = small;
    int64_t items = chunk_tokens(g) * (padded(g->high) + padded(g->panel_width));
    g->batch = items > 0 && BATCH_ITEMS / items > 1 ? BATCH_ITEMS / items : 1;
    g->batch = least(g->batch, g->chunks);
}

int64_t snrq_gram_bytes(int64_t rows, int64_t columns, int64_t tokens, int64_t sequences)
{
    gram g = {.high = rows, .wide = columns, .longest = tokens};
    g.chunks = sequences * chunks_of(&g, tokens);
    choose_shapes(&g);
    int64_t table = g.panel_width * g.high * (int64_t)sizeof(int64_t);
    int64_t packed = g.batch * chunk_tokens(&g) * (padded(g.high) + padded(g.panel_width)) *
                     (int64_t)sizeof(float);
    if (g.apart) return table + omp_get_max_threads() * (table + packed);
    return table * (g.panel_width < g.wide ? 2 : 1) + packed;
}

int64_t snrq_gram_sums(int64_t rows, int64_t columns, bool symmetric)
{
    gram g = {.high = rows, .wide = columns};
    int64_t sums = 0;
    choose_shapes(&g);
    for (int64_t begin = 0; begin < columns; begin += g.panel_width)
        sums += least(g.panel_width, columns - begin) * (rows - (symmetric ? begin : 0));
    return sums;
}

static snrq_status choose_units(int64_t n, const double *norms, int bits, float *units,
                                double *values)
{
    for (int64_t j = 0; j < n; j++) {
        int exponent;
        if (!isfinite(norms[j]) || norms[j] < 0)
            return snrq_fail(SNRQ_INTERNAL, "the norm of column %lld is %g", (long long)j,
                             norms[j]);
        if (norms[j] == 0) continue; /* and both stay 0 */
        frexp(sqrt(norms[j]), &exponent);
        if (exponent < LEAST_EXPONENT) exponent = LEAST_EXPONENT;
        if (exponent > MOST_EXPONENT) exponent = MOST_EXPONENT;
        units[j] = ldexpf(1, -exponent);
        values[j] = ldexp(1, exponent - bits);
    }
    return SNRQ_OK;
}

/* Have two sets of sequences the same tokens? */
static bool same_layout(const snrq_activations *a, const snrq_activations *b)
{
    bool same = a->sequences == b->sequences;
    for (int64_t s = 0; same && s <= a->sequences; s++)
        same = snrq_activations_begin(a, s) == snrq_activations_begin(b, s);
    return same;
}

static snrq_status check_request(const gram *g)
{
    const snrq_gram_request *r = g->request;
    const int64_t rows = g->out != NULL ? g->out->rows : g->high;
    const int64_t columns = g->out != NULL ? g->out->columns : g->wide;
    const snrq_activations *all[] = {r->a, r->b, r->a_minus, r->b_minus};
    for (int k = 0; k < 4; k++)
        if (all[k] != NULL &&
            (!same_layout(all[k], r->a) || all[k]->columns != (k % 2 == 0 ? rows : columns)))
            return snrq_fail(
                SNRQ_INTERNAL,
                "Gram: activations of %lld sequences, %lld tokens, %lld columns do not "
                "go with %lld, %lld and a %lld x %lld result",
                (long long)all[k]->sequences, (long long)snrq_activations_tokens(all[k]),
                (long long)all[k]->columns, (long long)r->a->sequences,
                (long long)snrq_activations_tokens(r->a), (long long)rows, (long long)columns);
    return SNRQ_OK;
}

/* Cuts this rank's sequences into chunks. */
static snrq_status cut_sequences(gram *g)
{
    const snrq_activations *a = g->request->a;
    for (int64_t s = 0; s < a->sequences; s++) {
        int64_t tokens = snrq_activations_begin(a, s + 1) - snrq_activations_begin(a, s);
        g->longest = g->longest > tokens ? g->longest : tokens;
    }
    for (int64_t s = 0; s < a->sequences; s++)
        g->chunks += chunks_of(g, snrq_activations_begin(a, s + 1) - snrq_activations_begin(a, s));
    SNRQ_TRY(snrq_allocate((size_t)g->chunks, sizeof *g->chunk, "Gram chunks", &g->chunk));
    int64_t count = 0;
    for (int64_t s = 0; s < a->sequences; s++) {
        int64_t end = snrq_activations_begin(a, s + 1);
        for (int64_t token = snrq_activations_begin(a, s); token < end; token += chunk_tokens(g))
            g->chunk[count++] = (chunk){s, token, least(chunk_tokens(g), end - token)};
    }
    return SNRQ_OK;
}

static snrq_status allocate_packed(gram *g)
{
    size_t tokens = (size_t)(g->batch * chunk_tokens(g));
    g->a = g->b = NULL;
    SNRQ_TRY(snrq_allocate_scratch(tokens * (size_t)padded(g->high), sizeof(float),
                                   "packed activations", &g->a));
    return snrq_allocate_scratch(tokens * (size_t)padded(g->panel_width), sizeof(float),
                                 "packed activations", &g->b);
}

static int32_t stands_for(const int32_t *order, int64_t position)
{
    return order == NULL ? (int32_t)position : order[position];
}

/* What the local rows and columns of the result stand for. */
static snrq_status prepare_result(gram *g)
{
    const snrq_gram_request *r = g->request;
    SNRQ_TRY(snrq_allocate((size_t)g->out->local_rows, sizeof(int32_t), "Gram rows", &g->rows));
    SNRQ_TRY(
        snrq_allocate((size_t)g->out->local_columns, sizeof(int32_t), "Gram columns", &g->columns));
    for (int64_t k = 0; k < g->out->local_rows; k++)
        g->rows[k] = stands_for(r->row_order, snrq_matrix_global_row(g->out, k));
    for (int64_t l = 0; l < g->out->local_columns; l++)
        g->columns[l] = stands_for(r->column_order, snrq_matrix_global_column(g->out, l));
    return SNRQ_OK;
}

static snrq_status prepare(gram *g)
{
    const snrq_gram_request *r = g->request;
    SNRQ_TRY(check_request(g));
    SNRQ_TRY(cut_sequences(g));
    choose_shapes(g);
    size_t high = (size_t)g->high, wide = (size_t)g->wide;
    size_t items = (size_t)g->panel_width * high;
    SNRQ_TRY(snrq_allocate(high, sizeof(float), "Gram units", &g->a_units));
    SNRQ_TRY(snrq_allocate(wide, sizeof(float), "Gram units", &g->b_units));
    SNRQ_TRY(snrq_allocate(high, sizeof(double), "Gram units", &g->a_values));
    SNRQ_TRY(snrq_allocate(wide, sizeof(double), "Gram units", &g->b_values));
    SNRQ_TRY(snrq_allocate_scratch(items, sizeof(int64_t), "Gram panel", &g->sums[0]));
    if (g->panel_width < g->wide)
        SNRQ_TRY(snrq_allocate_scratch(items, sizeof(int64_t), "Gram panel", &g->sums[1]));
    if (!g->apart) SNRQ_TRY(allocate_packed(g));
    SNRQ_TRY(snrq_allocate(items / REDUCE_ITEMS + 1, sizeof(MPI_Request), "Gram requests",
                           &g->requests));
    if (g->out != NULL) SNRQ_TRY(prepare_result(g));
    SNRQ_TRY(choose_units(g->high, r->a_norms, ROW_BITS, g->a_units, g->a_values));
    return choose_units(g->wide, r->b_norms, UNIT_BITS - ROW_BITS, g->b_units, g->b_values);
}

/* The piece of a chunk that begins `at` tokens into it: so much as stays in the near caches. */
static chunk piece_at(chunk c, int64_t at)
{
    return (chunk){c.sequence, c.token + at, least(SNRQ_PRODUCT_DEPTH, c.tokens - at)};
}

/* Where the packed rows, or columns, of a piece begin, of chunk number `index` of a batch. */
static float *packed_rows(const gram *g, int64_t index, int64_t at)
{
    return g->a + (index * chunk_tokens(g) + at) * padded(g->high);
}

static float *packed_columns(const gram *g, int64_t index, int64_t at)
{
    return g->b + (index * chunk_tokens(g) + at) * padded(g->panel_width);
}

/* Tokens of a slab of columns, times units, before they are cut into strips. */
typedef float staged[PACK_TOKENS][SLAB];

/* rows <- columns [column, column + count) of (x - minus) times units and factors, of `tokens`
 * tokens. */
static inline __attribute__((always_inline)) void
stage(const snrq_activations *x, const snrq_activations *minus, const float *units, int64_t token,
      int64_t tokens, int64_t column, int64_t count, staged rows)
{
    for (int64_t t = 0; t < tokens; t++) {
        const float *from = x->data + (token + t) * x->columns + column;
        const float *less = minus == NULL ? NULL : minus->data + (token + t) * x->columns + column;
        if (less == NULL)
            for (int64_t j = 0; j < count; j++) rows[t][j] = from[j] * units[column + j];
        else
            for (int64_t j = 0; j < count; j++)
                rows[t][j] = (from[j] - less[j]) * units[column + j];
        if (x->factor == NULL) continue;
        for (int64_t j = 0; j < count; j++) rows[t][j] *= x->factor[token + t];
    }
}

/* Fetches columns [column, column + count) of x, of `tokens` tokens, while others are packed. */
static void fetch_tokens(const snrq_activations *x, int64_t token, int64_t tokens, int64_t column,
                         int64_t count)
{
    const int64_t line = 64 / (int64_t)sizeof *x->data;
    for (int64_t t = token; t < token + tokens; t++)
        for (int64_t j = 0; j < count; j += line)
            __builtin_prefetch(x->data + t * x->columns + column + j);
}

/* out [SLAB / strip][depth][strip], from step `first` of depth on. */
static inline __attribute__((always_inline)) void cut(int strip, staged rows, int64_t tokens,
                                                      int64_t first, int64_t depth, float *out)
{
    for (int k = 0; k < SLAB; k += strip)
        for (int64_t t = 0; t < tokens; t++)
            memcpy(out + k * depth + (first + t) * strip, rows[t] + k, (size_t)strip * sizeof *out);
}

/* Packs columns [column, column + SLAB), as far as there are any, for A and for B, where not NULL.
 */
static void pack(const snrq_activations *x, const snrq_activations *minus, const float *units,
                 chunk c, int64_t column, float *a, float *b)
{
    int64_t count = least(SLAB, x->columns - column);
    staged rows = {0};
    for (int64_t first = 0; first < c.tokens; first += PACK_TOKENS) {
        int64_t tokens = least(PACK_TOKENS, c.tokens - first);
        int64_t token = c.token + first, next = token + tokens;
        int64_t to_come = least(PACK_TOKENS, c.tokens - first - tokens);
        fetch_tokens(x, next, to_come, column, count);
        if (minus != NULL) fetch_tokens(minus, next, to_come, column, count);
        if (count == SLAB)
            stage(x, minus, units, token, tokens, column, SLAB, rows);
        else
            stage(x, minus, units, token, tokens, column, count, rows);
        if (a != NULL) cut(SNRQ_PRODUCT_COLUMNS, rows, tokens, first, c.tokens, a);
        if (b != NULL) cut(SNRQ_PRODUCT_ROWS, rows, tokens, first, c.tokens, b);
    }
}

/* Packs chunks [first, first + count): the panel's rows of A and columns of B; together, where the
 * latter are the first of the former. */
static void pack_batch(const gram *g, const panel *p, int64_t first, int64_t count)
{
    const snrq_gram_request *r = g->request;
    int64_t a_slabs = padded(g->high - p->first_row) / SLAB, b_slabs = padded(p->width) / SLAB;
    bool together = r->symmetric && r->a_norms == r->b_norms;
    int64_t slabs = a_slabs + (together ? 0 : b_slabs);
#pragma omp parallel for schedule(static)
    for (int64_t unit = 0; unit < count * slabs; unit++) {
        int64_t index = unit / slabs, at = unit % slabs;
        int64_t b_at = together ? at : at - a_slabs;
        chunk c = g->chunk[first + index];
        for (int64_t token = 0; token < c.tokens; token += SNRQ_PRODUCT_DEPTH) {
            chunk piece = piece_at(c, token);
            float *a = packed_rows(g, index, token) + at * SLAB * piece.tokens;
            bool wanted = b_at >= 0 && b_at < b_slabs;
            float *b = wanted ? packed_columns(g, index, token) + b_at * SLAB * piece.tokens : NULL;
            if (at < a_slabs)
                pack(r->a, r->a_minus, g->a_units, piece, p->first_row + at * SLAB, a, b);
            else
                pack(r->b, r->b_minus, g->b_units, piece, p->begin + b_at * SLAB, NULL, b);
        }
    }
}

/* sums[i] += x[i] * unit, rounded; false, and nothing added, if one x is not finite or beyond the
 * limit. */
static bool add_fixed(int64_t count, const float *x, float limit, double unit, int64_t *sums)
{
    int bad = 0;
    for (int64_t i = 0; i < count; i++) bad |= !(fabsf(x[i]) <= limit);
    if (bad) return false;
    for (int64_t i = 0; i < count; i++) sums[i] += (int64_t)rint((double)x[i] * unit);
    return true;
}

/* Adds an fp32 strip [SNRQ_PRODUCT_ROWS][LARGE_TILE] of G at (row, column), as far as it lies in
 * the panel, from a sequence of the given scale. */
static void add_strip(gram *g, const panel *p, const float *strip, int64_t row, int64_t rows,
                      int64_t column, double scale)
{
    float limit = (float)fmin(CONTRIBUTION_LIMIT / fabs(scale), FLT_MAX);
    double units = ldexp(scale, UNIT_BITS);
    int64_t columns = least(SNRQ_PRODUCT_ROWS, p->begin + p->width - column);
    for (int64_t j = 0; j < columns; j++) {
        int64_t *sums =
            p->sums + (column + j - p->begin) * (g->high - p->first_row) + row - p->first_row;
        if (add_fixed(rows, strip + j * LARGE_TILE, limit, units, sums)) continue;
#pragma omp critical(snrq_gram_bad_column)
        g->bad_column = least(g->bad_column, column + j);
    }
}

/* Fetches the sums of a strip of columns while its products are computed. */
static void fetch_sums(const gram *g, const panel *p, int64_t row, int64_t rows, int64_t column)
{
    int64_t line = 64 / (int64_t)sizeof *p->sums, below = g->high - p->first_row;
    int64_t columns = least(SNRQ_PRODUCT_ROWS, p->begin + p->width - column);
    for (int64_t j = column - p->begin; j < column - p->begin + columns; j++)
        for (int64_t i = row - p->first_row; i < row - p->first_row + rows; i += line)
            __builtin_prefetch(p->sums + j * below + i, 1);
}

/* A unit of work: a tile of rows [row, row + rows) by columns [begin, end) of a panel. */
typedef struct unit {
    int64_t row, rows, begin, end;
} unit;

/* Rows of a strip of columns that need not be computed, since they lie above the diagonal of a
 * symmetric G: whole halves of strips of rows. */
static int64_t rows_above(const gram *g, const unit *u, int64_t column)
{
    int64_t above = g->request->symmetric && column > u->row ? column - u->row : 0;
    return least(above, u->rows - 1) / (SNRQ_PRODUCT_COLUMNS / 2) * (SNRQ_PRODUCT_COLUMNS / 2);
}

/* A small panel's products take hardly longer than to fetch its activations, so that those of the
 * next batch, chunks [first, first + count), are fetched while they are computed. */
static void look_ahead(gram *g, int64_t first, int64_t count)
{
    const snrq_gram_request *r = g->request;
    const snrq_activations *all[SOURCES] = {r->a, r->a_minus, r->b, r->b_minus};
    for (int k = 0; k < SOURCES; k++) {
        bool wanted = count > 0 && all[k] != NULL;
        for (int before = 0; before < k; before++) wanted &= all[k] != all[before];
        g->ahead[k].left = 0;
        if (!wanted) continue;
        chunk begin = g->chunk[first], last = g->chunk[first + count - 1];
        g->ahead[k].next = all[k]->data + begin.token * all[k]->columns;
        g->ahead[k].left = (last.token + last.tokens - begin.token) * all[k]->columns;
    }
}

/* The next so many floats to fetch, or NULL. */
static const float *fetch_next(gram *g, int64_t floats)
{
    for (int k = 0; k < SOURCES; k++)
        if (g->ahead[k].left >= floats && floats > 0) {
            g->ahead[k].left -= floats;
            g->ahead[k].next += floats;
            return g->ahead[k].next - floats;
        }
    return NULL;
}

/* sums [SNRQ_PRODUCT_ROWS][LARGE_TILE] = the products of a strip of columns b with the rows a of a
 * unit, both packed, over `depth` tokens; or added to it. */
static void multiply_strip(gram *g, const unit *u, int64_t above, const float *a, const float *b,
                           int64_t depth, bool add, float *sums)
{
    const int64_t width = SNRQ_PRODUCT_COLUMNS, half = above % width, whole = above + half;
    snrq_product product = {.rows = SNRQ_PRODUCT_ROWS,
                            .columns = half,
                            .depth = depth,
                            .a = b,
                            .b = a + (above - half) * depth + half,
                            .a_row = 1,
                            .a_step = SNRQ_PRODUCT_ROWS,
                            .b_stride = depth * width,
                            .add = add,
                            .c = sums + above,
                            .ldc = LARGE_TILE};
    snrq_product_run(&product);
    product.columns = u->rows > whole ? snrq_product_padded(u->rows - whole, width) : 0;
    product.b = a + whole * depth;
    product.c = sums + whole;
    if (g->apart)
        product.fetch = fetch_next(g, product.columns / width * depth * SNRQ_PRODUCT_FETCHED);
    snrq_product_run(&product);
}

/* Adds chunk number `index` of a batch to a unit, whose fp32 sums stay in the cache with the piece
 * that is multiplied. */
static void add_chunk(gram *g, const panel *p, int64_t first, int64_t index, const unit *u)
{
    chunk c = g->chunk[first + index];
    double scale = g->request->scale == NULL ? 1 : g->request->scale[c.sequence];
    float sums[LARGE_TILE * LARGE_TILE];
    for (int64_t token = 0; token < c.tokens; token += SNRQ_PRODUCT_DEPTH) {
        int64_t depth = piece_at(c, token).tokens;
        const float *a = packed_rows(g, index, token) + (u->row - p->first_row) * depth;
        const float *b = packed_columns(g, index, token) + (u->begin - p->begin) * depth;
        for (int64_t column = u->begin; column < u->end; column += SNRQ_PRODUCT_ROWS) {
            int64_t at = column - u->begin, above = rows_above(g, u, column);
            if (token + depth == c.tokens)
                fetch_sums(g, p, u->row + above, u->rows - above, column);
            multiply_strip(g, u, above, a, b + at * depth, depth, token > 0,
                           sums + at * LARGE_TILE);
        }
    }
    for (int64_t column = u->begin; column < u->end; column += SNRQ_PRODUCT_ROWS) {
        int64_t above = rows_above(g, u, column);
        add_strip(g, p, sums + (column - u->begin) * LARGE_TILE + above, u->row + above,
                  u->rows - above, column, scale);
    }
}

/* Adds a batch of chunks to the panel. */
static void add_batch(gram *g, const panel *p, int64_t first, int64_t count)
{
    int64_t row_tiles = (g->high - p->first_row + g->tile - 1) / g->tile;
    int64_t parts = (p->width + g->unit_columns - 1) / g->unit_columns;
    pack_batch(g, p, first, count);
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < parts * row_tiles; k++) {
        /* From the last row up: in a symmetric Gram that is from long to short. */
        int64_t row = p->first_row + (row_tiles - 1 - k / parts) * g->tile;
        int64_t begin = p->begin + k % parts * g->unit_columns;
        unit u = {row, least(g->tile, g->high - row), begin,
                  least(begin + g->unit_columns, p->begin + p->width)};
        if (g->request->symmetric) u.end = least(u.end, u.row + u.rows);
        for (int64_t index = 0; u.begin < u.end && index < count; index++)
            add_chunk(g, p, first, index, &u);
    }
}

static snrq_status make_progress(gram *g)
{
    int done;
    if (g->in_flight == 0) return SNRQ_OK;
    return snrq_mpi_check(MPI_Testall(g->in_flight, g->requests, &done, MPI_STATUSES_IGNORE),
                          "MPI_Testall");
}

static int64_t panel_items(const gram *g, const panel *p)
{
    return p->width * (g->high - p->first_row);
}

/* Chunks [first, end) of this rank. */
static snrq_status add_chunks(gram *g, const panel *p, int64_t first, int64_t end)
{
    memset(p->sums, 0, (size_t)panel_items(g, p) * sizeof *p->sums);
    for (; first < end; first += g->batch) {
        int64_t next = least(first + g->batch, end);
        if (g->apart) look_ahead(g, next, least(g->batch, end - next));
        add_batch(g, p, first, next - first);
        SNRQ_TRY(make_progress(g));
    }
    return SNRQ_OK;
}

/* A small panel: every thread adds up chunks of its own in a table of its own. To share one would
 * mean to wait for each other after every batch. */
static snrq_status compute_apart(gram *g, const panel *p)
{
    snrq_status worst = SNRQ_OK;
    memset(p->sums, 0, (size_t)panel_items(g, p) * sizeof *p->sums);
#pragma omp parallel
    {
        snrq_range mine = snrq_share(g->chunks, 1, omp_get_num_threads(), omp_get_thread_num());
        gram own = *g;
        panel part = *p;
        part.sums = NULL;
        snrq_status status = allocate_packed(&own);
        if (status == SNRQ_OK)
            status = snrq_allocate_scratch((size_t)panel_items(g, p), sizeof *part.sums,
                                           "Gram panel", &part.sums);
        if (status == SNRQ_OK) status = add_chunks(&own, &part, mine.begin, mine.end);
#pragma omp critical(snrq_gram_apart)
        {
            if (status != SNRQ_OK) worst = status;
            for (int64_t i = 0; status == SNRQ_OK && i < panel_items(g, p); i++)
                p->sums[i] += part.sums[i];
            g->bad_column = least(g->bad_column, own.bad_column);
        }
        free(part.sums);
        free(own.b);
        free(own.a);
    }
    if (worst != SNRQ_OK) return snrq_fail(worst, "Gram sums: out of memory");
    return SNRQ_OK;
}

static snrq_status compute_panel(gram *g, const panel *p)
{
    return g->apart ? compute_apart(g, p) : add_chunks(g, p, 0, g->chunks);
}

/* Adds up `count` sums over the ranks: for all of them, or for the first of those that get the
 * result. */
static snrq_status start_sum(const gram *g, int64_t *sums, int count, MPI_Request *request)
{
    const snrq_context *c = g->context;
    const int first = g->request->first;
    if (g->request->context == NULL)
        return snrq_mpi_check(
            MPI_Iallreduce(MPI_IN_PLACE, sums, count, MPI_INT64_T, MPI_SUM, c->comm, request),
            "MPI_Iallreduce");
    const bool gets = c->rank == first;
    return snrq_mpi_check(MPI_Ireduce(gets ? MPI_IN_PLACE : sums, gets ? sums : NULL, count,
                                      MPI_INT64_T, MPI_SUM, first, c->comm, request),
                          "MPI_Ireduce");
}

static snrq_status start_reduction(gram *g, const panel *p)
{
    const snrq_context *c = g->context;
    int64_t items = panel_items(g, p);
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "adds up columns from %lld, %lld sums",
                             (long long)p->begin, (long long)items));
    for (int64_t at = 0; at < items && c->size > 1; at += REDUCE_ITEMS) {
        int count = (int)least(REDUCE_ITEMS, items - at);
        SNRQ_TRY(start_sum(g, p->sums + at, count, &g->requests[g->in_flight]));
        g->in_flight++;
    }
    return SNRQ_OK;
}

static snrq_status wait_reduction(gram *g)
{
    SNRQ_TRY(
        snrq_mpi_check(MPI_Waitall(g->in_flight, g->requests, MPI_STATUSES_IGNORE), "MPI_Waitall"));
    g->in_flight = 0;
    return SNRQ_OK;
}

/* G_ij from its panel, for 0 <= i - first_row, 0 <= j - begin < width. */
static double element(const gram *g, const panel *p, int64_t i, int64_t j)
{
    int64_t units = p->sums[(j - p->begin) * (g->high - p->first_row) + i - p->first_row];
    return (double)units * g->a_values[i] * g->b_values[j] * g->request->factor;
}

/* Stores column l of this rank's part, if it stands for column j of the panel: all of it, or the
 * elements with i >= j of a symmetric G. */
static void store_column(const gram *g, const panel *p, int64_t j, double *to)
{
    if (j < p->begin || j >= p->begin + p->width) return;
    for (int64_t k = 0; k < g->out->local_rows; k++)
        if (!g->request->symmetric || g->rows[k] >= j) to[k] = element(g, p, g->rows[k], j);
}

/* Stores the elements (i, j), i < j, of local columns [begin, end) from the panel's (j, i). Many
 * columns for one row: a column of the panel is then read many times while it is in the cache. */
static void store_mirrored(const gram *g, const panel *p, int64_t begin, int64_t end)
{
    snrq_matrix *out = g->out;
    for (int64_t k = 0; k < out->local_rows; k++) {
        int64_t i = g->rows[k];
        if (i < p->begin || i >= p->begin + p->width) continue;
        for (int64_t l = begin; l < end; l++) {
            int64_t j = g->columns[l];
            if (i < j) out->local[l * out->local_rows + k] = element(g, p, j, i);
        }
    }
}

/* Stores what this rank owns of a reduced panel: element (i, j) of G where `order` has i and j. Of
 * a symmetric G, the panel has the elements with i >= j; each is stored at (i, j) and (j, i). */
static void store_panel(const gram *g, const panel *p)
{
    snrq_matrix *out = g->out;
#pragma omp parallel for schedule(dynamic)
    for (int64_t begin = 0; begin < out->local_columns; begin += STORE_COLUMNS) {
        int64_t end = least(begin + STORE_COLUMNS, out->local_columns);
        for (int64_t l = begin; l < end; l++)
            store_column(g, p, g->columns[l], out->local + l * out->local_rows);
        if (g->request->symmetric) store_mirrored(g, p, begin, end);
    }
}

/* Stores a panel that has been added up, on the ranks that get the result: the first of a team has
 * it, and gives it to the others. */
static snrq_status finish_panel(const gram *g, const panel *p)
{
    if (g->out == NULL) return SNRQ_OK;
    if (g->request->context != NULL)
        SNRQ_TRY(snrq_broadcast(g->out->grid->context, p->sums,
                                (size_t)panel_items(g, p) * sizeof *p->sums));
    store_panel(g, p);
    return SNRQ_OK;
}

static snrq_status reduce_panels(gram *g)
{
    panel last = {0};
    int turn = 0;
    for (int64_t begin = 0; begin < g->wide; begin += g->panel_width, turn = 1 - turn) {
        panel p = {.begin = begin,
                   .width = least(g->panel_width, g->wide - begin),
                   .first_row = g->request->symmetric ? begin : 0,
                   .sums = g->sums[turn]};
        SNRQ_TRY(compute_panel(g, &p));
        SNRQ_TRY(wait_reduction(g));
        SNRQ_TRY(start_reduction(g, &p));
        if (last.sums != NULL) SNRQ_TRY(finish_panel(g, &last));
        last = p;
    }
    SNRQ_TRY(wait_reduction(g));
    return finish_panel(g, &last);
}

static snrq_status check_finite(const gram *g)
{
    if (g->bad_column == g->wide) return SNRQ_OK;
    return snrq_fail(
        SNRQ_BAD_DATA,
        "the products of input column %lld with other columns are not finite, or larger "
        "than its norm allows: its activations contain NaN or Inf, or changed since "
        "the norms were taken",
        (long long)g->bad_column);
}

snrq_status snrq_gram_reduce(const snrq_gram_request *request, snrq_matrix *out)
{
    const snrq_context *context = request->context != NULL ? request->context : out->grid->context;
    gram g = {.request = request,
              .context = context,
              .out = out,
              .high = request->a->columns,
              .wide = request->b->columns,
              .bad_column = request->b->columns};
    snrq_status status = snrq_agree(context, prepare(&g));
    if (status == SNRQ_OK) status = reduce_panels(&g);
    if (status == SNRQ_OK) status = snrq_agree(context, check_finite(&g));
    free(g.chunk);
    free(g.a_units);
    free(g.b_units);
    free(g.a_values);
    free(g.b_values);
    free(g.a);
    free(g.b);
    free(g.rows);
    free(g.columns);
    if (g.in_flight > 0) return status; /* an MPI error: MPI may still write to the rest */
    free(g.sums[0]);
    free(g.sums[1]);
    free(g.requests);
    return status;
}
