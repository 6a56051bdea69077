/* The search where rows know of each other; see coupled_rows.h. */
#include "pipeline/rounding/coupled_rows.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/blas.h"
#include "pipeline/rounding/format_grid.h"
#include "pipeline/rounding/regrid.h"
#include "pipeline/rounding/rounds.h"
#include "pipeline/rounding/row_feedback.h"
#include "pipeline/rounding/trial.h"

enum { ROWS = SNRQ_TILE_ROWS, BLOCK = SNRQ_ROW_BLOCK };

/* Rows "by place" are those of each tile in their order of decision. */
typedef struct coupling {
    snrq_rounding *w; /* borrowed */
    int64_t tiles, columns;
    snrq_tile_feedback *feedback; /* [tiles] owned */
    float *errors;                /* [threads][ROWS][n] owned */
    float *products;              /* [rows, n] by place: E H of the rows as they are; owned */
} coupling;

/* Row by place -> row of this rank. */
static int64_t row_at(const coupling *c, int64_t place)
{
    return place / ROWS * ROWS + c->feedback[place / ROWS].row[place % ROWS];
}

/* e [n] <- R - Q: R of row `row` of this rank, Q of row r of a set of rows. */
static void take_error(const coupling *c, int64_t row, const snrq_rows *rounded, int64_t r,
                       float *e)
{
    const float *target = c->w->rows.target + row * c->columns;
    for (int64_t k = 0; k < c->columns; k++) e[k] = target[k] - snrq_rows_value(rounded, r, k);
}

/* This thread's E [ROWS, n] of a tile, by place, from `first` on. */
static float *tile_errors(const coupling *c, int64_t tile, int first)
{
    float *errors = c->errors + omp_get_thread_num() * ROWS * c->columns;
    for (int i = first; i < ROWS; i++) {
        int64_t row = row_at(c, tile * ROWS + i);
        take_error(c, row, &c->w->rows, row, errors + i * c->columns);
    }
    return errors;
}

/* ---- all rows once, block by block ---- */

/* Targets of a tile's rows in a block. */
static void aim_block(const coupling *c, int64_t tile, int begin, snrq_rows *block)
{
    const snrq_tile_feedback *f = &c->feedback[tile];
    const int end = begin + BLOCK;
    const int64_t n = c->columns;
    float *target = block->target + tile * BLOCK * n;
    for (int i = 0; i < BLOCK; i++) {
        int64_t row = row_at(c, tile * ROWS + begin + i);
        snrq_rows_copy_rounding(&c->w->rows, row, tile * BLOCK + i, block);
        memcpy(target + i * n, c->w->rows.target + row * n, (size_t)n * sizeof *target);
    }
    if (end == ROWS) return;
    const float *errors = tile_errors(c, tile, end);
    snrq_sgemm(false, false, BLOCK, n, ROWS - end, 1.0f, &f->decided[begin][end], ROWS,
               errors + end * n, n, 1.0f, target, n);
}

/* Fits the grid of a row of a block to its target. Minima are inside of that: they come off before
 * and on after. minima [groups] is scratch. */
static snrq_status fit_row(const snrq_rounding *w, snrq_rows *block, int64_t r, float *minima)
{
    const int64_t groups = w->groups.count;
    const float *target = block->target + r * w->rows.columns;
    float *scales = block->scales + r * groups;
    if (w->rule->format == NULL)
        return snrq_quant_grid_fit(w->rule, &w->groups, target, w->d2, scales,
                                   block->zeros + r * groups);
    memset(minima, 0, (size_t)groups * sizeof *minima);
    if (block->minima != NULL) snrq_rows_set_minima(block, r, minima);
    SNRQ_TRY(snrq_format_grid_fit(w->rule, &w->groups, target, w->d2, block->tensor_scale, scales,
                                  minima));
    if (block->minima != NULL) snrq_rows_set_minima(block, r, minima);
    return SNRQ_OK;
}

/* Fits the grids of a block to its targets. */
static snrq_status fit_block(const coupling *c, snrq_rows *block)
{
    const snrq_rounding *w = c->w;
    const int64_t groups = w->groups.count;
    snrq_status worst = SNRQ_OK;
    float *minima = NULL;
    if (w->rule->format != NULL && w->rule->format->shared_rows > 0) return SNRQ_OK;
    SNRQ_TRY(
        snrq_allocate((size_t)(omp_get_max_threads() * groups), sizeof *minima, "minima", &minima));
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t r = 0; r < c->tiles * BLOCK; r++) {
        snrq_status status = fit_row(w, block, r, minima + omp_get_thread_num() * groups);
#pragma omp critical
        if (status != SNRQ_OK) worst = status;
    }
    free(minima);
    if (worst == SNRQ_OK) return SNRQ_OK;
    return snrq_fail(worst,
                     "%s: with what other rows add to the targets, a scale is beyond the "
                     "range of its type",
                     w->stack->together);
}

static snrq_status decide_block(coupling *c, int begin)
{
    snrq_rounding *w = c->w;
    snrq_rows block = {0};
    snrq_status status = snrq_rows_create_like(&w->rows, c->tiles * BLOCK, &block);
    if (status == SNRQ_OK) {
#pragma omp parallel for schedule(dynamic)
        for (int64_t t = 0; t < c->tiles; t++) aim_block(c, t, begin, &block);
        if (begin + BLOCK < ROWS) status = fit_block(c, &block);
    }
    status = snrq_agree(w->context, status);
    if (status == SNRQ_OK) status = snrq_rounding_round(w, &block, NULL);
    for (int64_t r = 0; status == SNRQ_OK && r < c->tiles * BLOCK; r++) {
        int64_t row = row_at(c, r / BLOCK * ROWS + begin + r % BLOCK);
        if (block.minima != NULL)
            snrq_rows_set_minima(&w->rows, row, block.minima + r * w->groups.count);
        snrq_rows_copy_rounding(&block, r, row, &w->rows);
    }
    snrq_rows_free(&block);
    return status;
}

/* ---- rounds ---- */

/* Some places of every tile: what is rounded again at a time. */
typedef struct part {
    int begin, size;
    int64_t count;  /* tiles * size; more rows are padding */
    snrq_rows rows; /* owned */
    float *errors;  /* [count, n] E of these rows; owned, as E H: */
    float *products;
} part;

/* Row of a part -> its place. */
static int64_t place_at(const part *p, int64_t r)
{
    return r / p->size * ROWS + p->begin + r % p->size;
}

/* The rows of a tile as they are, with their best targets; gradient, unless NULL: of these. */
static void aim_tile(const coupling *c, int64_t tile, part *p, float *gradient)
{
    const float *others = c->feedback[tile].others[p->begin];
    const int64_t n = c->columns, first = tile * p->size;
    const float *errors = tile_errors(c, tile, 0);
    for (int64_t r = first; r < first + p->size; r++) {
        snrq_rows_copy_rounding(&c->w->rows, row_at(c, place_at(p, r)), r, &p->rows);
        for (int64_t k = 0; k < n; k++) p->rows.target[r * n + k] = snrq_rows_value(&p->rows, r, k);
    }
    /* R_i + sum over j != i is Q_i + sum over all j. */
    snrq_sgemm(false, false, p->size, n, ROWS, 1.0f, others, ROWS, errors, n, 1.0f,
               p->rows.target + first * n, n);
    if (gradient != NULL)
        snrq_sgemm(false, false, p->size, n, ROWS, 1.0f, others, ROWS,
                   c->products + tile * ROWS * n, n, 0.0f, gradient + first * n, n);
}

static snrq_status allocate_gradient(const snrq_rows *rows, float **scales, snrq_gradient *g)
{
    size_t count = (size_t)rows->rows, cells = count * (size_t)rows->columns;
    SNRQ_TRY(snrq_allocate(count * (size_t)rows->groups->count, sizeof **scales, "scales", scales));
    SNRQ_TRY(snrq_allocate(cells, sizeof *g->g, "gradient", &g->g));
    SNRQ_TRY(snrq_allocate(cells, 1, "codes", &g->before));
    return snrq_allocate(count * (size_t)snrq_gram_panels(rows->columns), 1, "changes",
                         &g->changes);
}

/* Best targets for the rows of a part, and the best scales for these. */
static snrq_status aim(coupling *c, part *p)
{
    snrq_rounding *w = c->w;
    snrq_gradient gradient = {0};
    float *scales = NULL;
    const bool regrids = w->rule->regrid > 0;
    snrq_status status =
        snrq_agree(w->context, regrids ? allocate_gradient(&p->rows, &scales, &gradient) : SNRQ_OK);
    if (status == SNRQ_OK) {
#pragma omp parallel for schedule(dynamic)
        for (int64_t t = 0; t < c->tiles; t++) aim_tile(c, t, p, gradient.g);
    }
    if (status == SNRQ_OK && regrids) {
        status =
            snrq_regrid(w->statistics->h, w->rule, SNRQ_REGRID_SCALES, &p->rows, &gradient, scales);
        if (status == SNRQ_OK)
            memcpy(p->rows.scales, scales,
                   (size_t)(p->rows.rows * w->groups.count) * sizeof *scales);
    }
    snrq_gradient_free(&gradient);
    free(scales);
    return status;
}

/* E and E H of a part's rows. */
static snrq_status measure(const coupling *c, part *p)
{
    const snrq_rounding *w = c->w;
    size_t cells = (size_t)(p->count * c->columns);
    snrq_status status =
        snrq_allocate_scratch(cells, sizeof *p->errors, "rounding errors", &p->errors);
    if (status == SNRQ_OK)
        status =
            snrq_allocate_scratch(cells, sizeof *p->products, "products of errors", &p->products);
    SNRQ_TRY(snrq_agree(w->context, status));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < p->count; r++)
        take_error(c, row_at(c, place_at(p, r)), &p->rows, r, p->errors + r * c->columns);
    return snrq_row_multiply(w->statistics->h, 1.0, p->count, p->errors, p->products);
}

/* sum [n] <- sum over j of factor_j E_j H of a tile */
static void add_products(const coupling *c, int64_t tile, const float *factor, float *sum)
{
    snrq_sgemm(false, false, 1, c->columns, ROWS, 1.0f, factor, ROWS,
               c->products + tile * ROWS * c->columns, c->columns, 0.0f, sum, c->columns);
}

/* Whether tr(G E H E^T) falls with the new rounding of a part's row: with d the change of E, over
 * G_ii, it changes by d H d^T + 2 sum over j of (G_ij / G_ii) d H E_j^T. */
static bool falls(const coupling *c, const part *p, int64_t r, float *old, float *sum)
{
    const int64_t n = c->columns, place = place_at(p, r), row = row_at(c, place);
    const float *errors = p->errors + r * n, *products = p->products + r * n;
    double change = 0.0;
    take_error(c, row, &c->w->rows, row, old);
    add_products(c, place / ROWS, c->feedback[place / ROWS].others[place % ROWS], sum);
    for (int64_t k = 0; k < n; k++)
        change += ((double)errors[k] - (double)old[k]) *
                  (2.0 * (double)sum[k] + (double)products[k] - (double)c->products[place * n + k]);
    return change < 0.0;
}

/* Returns how many rows of a tile took their new rounding. */
static int64_t keep_better(const coupling *c, int64_t tile, const part *p)
{
    const int64_t n = c->columns;
    float *scratch = c->errors + omp_get_thread_num() * ROWS * n;
    int64_t kept = 0;
    for (int64_t r = (tile + 1) * p->size - 1; r >= tile * p->size; r--) {
        const int64_t place = place_at(p, r);
        if (!falls(c, p, r, scratch, scratch + n)) continue;
        snrq_rows_copy_rounding(&p->rows, r, row_at(c, place), &c->w->rows);
        memcpy(c->products + place * n, p->products + r * n, (size_t)n * sizeof *c->products);
        kept++;
    }
    return kept;
}

static snrq_status create_part(const coupling *c, int begin, int size, part *p)
{
    *p = (part){.begin = begin, .size = size, .count = c->tiles * size};
    return snrq_agree(c->w->context, snrq_rows_create_like(&c->w->rows, p->count, &p->rows));
}

static void free_part(part *p)
{
    snrq_rows_free(&p->rows);
    free(p->errors);
    free(p->products);
}

/* Rounds the rows of a part again; *kept += those that took their new rounding. */
static snrq_status run_part(coupling *c, int begin, int size, int64_t *kept)
{
    part p;
    int64_t count = 0;
    snrq_status status = create_part(c, begin, size, &p);
    if (status == SNRQ_OK) status = aim(c, &p);
    if (status == SNRQ_OK) status = snrq_rounding_round(c->w, &p.rows, NULL);
    if (status == SNRQ_OK) status = measure(c, &p);
    if (status == SNRQ_OK) {
#pragma omp parallel for schedule(dynamic) reduction(+ : count)
        for (int64_t t = 0; t < c->tiles; t++) count += keep_better(c, t, &p);
        *kept += count;
    }
    free_part(&p);
    return status;
}

/* *kept: rows of all ranks that got another rounding. */
static snrq_status run_round(coupling *c, int64_t *kept)
{
    const int size = snrq_row_part(c->w->rows.bits);
    *kept = 0;
    for (int begin = ROWS - size; begin >= 0; begin -= size)
        SNRQ_TRY(run_part(c, begin, size, kept));
    return snrq_sum_int64(c->w->context, kept, 1);
}

/* ---- all of it ---- */

/* Costs of the rows, and their shares of tr(G E H E^T) with G as it was given. */
static void finish_tile(const coupling *c, int64_t tile)
{
    const int64_t n = c->columns;
    const snrq_rounding *w = c->w;
    const int32_t *row = c->feedback[tile].row;
    float *scratch = c->errors + omp_get_thread_num() * ROWS * n, factor[ROWS];
    for (int i = 0; i < ROWS; i++) {
        const float *g = w->stack->row_grams + (tile * ROWS + row[i]) * ROWS;
        const int64_t place = tile * ROWS + i, at = row_at(c, place);
        double cost = 0.0, weighted = 0.0;
        for (int j = 0; j < ROWS; j++) factor[j] = g[row[j]];
        take_error(c, at, &w->rows, at, scratch);
        add_products(c, tile, factor, scratch + n);
        for (int64_t k = 0; k < n; k++) {
            cost += (double)scratch[k] * (double)c->products[place * n + k];
            weighted += (double)scratch[k] * (double)scratch[n + k];
        }
        w->rows.costs[at] = cost;
        w->weighted[at] = weighted;
    }
}

static snrq_status create(snrq_rounding *w, coupling *c)
{
    *c = (coupling){.w = w, .tiles = w->rows.rows / ROWS, .columns = w->rows.columns};
    size_t tile = (size_t)(ROWS * c->columns), threads = (size_t)omp_get_max_threads();
    SNRQ_TRY(snrq_allocate((size_t)c->tiles, sizeof *c->feedback, "row feedback", &c->feedback));
    SNRQ_TRY(snrq_allocate((size_t)w->rows.rows, sizeof *w->weighted, "row figures", &w->weighted));
    SNRQ_TRY(snrq_allocate_scratch(threads * tile, sizeof *c->errors, "tile", &c->errors));
    for (int64_t t = 0; t < c->tiles; t++)
        SNRQ_TRY(snrq_tile_feedback_create(w->stack->row_grams + t * ROWS * ROWS,
                                           w->stack->row_gram_tokens, &c->feedback[t]));
    return SNRQ_OK;
}

static void release(coupling *c)
{
    free(c->products);
    free(c->errors);
    free(c->feedback);
}

/* The rows as the blocks left them: their products. */
static snrq_status begin_rounds(coupling *c)
{
    snrq_rounding *w = c->w;
    part all;
    snrq_status status = create_part(c, 0, ROWS, &all);
    for (int64_t place = 0; status == SNRQ_OK && place < w->rows.rows; place++)
        snrq_rows_copy_rounding(&w->rows, row_at(c, place), place, &all.rows);
    if (status == SNRQ_OK) status = measure(c, &all);
    c->products = all.products;
    all.products = NULL;
    free_part(&all);
    return status;
}

snrq_status snrq_coupled_rows_search(snrq_rounding *w)
{
    coupling c;
    const int64_t rounds = w->rule->regrid > 0 ? w->rule->regrid : 1;
    snrq_status status = snrq_agree(w->context, create(w, &c));
    for (int begin = ROWS - BLOCK; status == SNRQ_OK && begin >= 0; begin -= BLOCK)
        status = decide_block(&c, begin);
    if (status == SNRQ_OK) status = begin_rounds(&c);
    for (int64_t round = 0, kept = 1; status == SNRQ_OK && round < rounds && kept > 0; round++)
        status = run_round(&c, &kept);
    if (status == SNRQ_OK) {
#pragma omp parallel for schedule(static)
        for (int64_t t = 0; t < c.tiles; t++) finish_tile(&c, t);
    }
    release(&c);
    return status;
}
