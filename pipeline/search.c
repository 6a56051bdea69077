/* Rounding rows panel by panel: the panels and the tiles. The recursion inside a panel is in
 * greedy.c and beam.c. See search.h and search_tile.h. */
#include "pipeline/search.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/blas.h"
#include "pipeline/beam.h"
#include "pipeline/search_tile.h"

snrq_status snrq_rows_create(int64_t rows, int bits, const snrq_groups *groups, snrq_rows *out)
{
    int64_t padded = (rows + SNRQ_TILE_ROWS - 1) / SNRQ_TILE_ROWS * SNRQ_TILE_ROWS;
    size_t m = (size_t)padded, n = (size_t)groups->columns, g = (size_t)groups->count;
    memset(out, 0, sizeof *out);
    out->rows = padded;
    out->columns = groups->columns;
    out->bits = bits;
    out->groups = groups;
    SNRQ_TRY(snrq_allocate(m * n, sizeof(float), "rounding targets", &out->target));
    SNRQ_TRY(snrq_allocate(m * g, sizeof(float), "scales", &out->scales));
    SNRQ_TRY(snrq_allocate(m * g, 1, "zeros", &out->zeros));
    SNRQ_TRY(snrq_allocate(m * n, 1, "codes", &out->codes));
    SNRQ_TRY(snrq_allocate(m, sizeof(double), "costs", &out->costs));
    for (size_t i = 0; i < m * g; i++) out->scales[i] = 1.0f;
    return SNRQ_OK;
}

void snrq_rows_free(snrq_rows *r)
{
    free(r->target);
    free(r->scales);
    free(r->zeros);
    free(r->codes);
    free(r->costs);
    memset(r, 0, sizeof *r);
}

/* The panel's strips from u. */
static void cut_strips(snrq_panel *p)
{
    size_t row = SNRQ_STRIP * sizeof *p->strips;
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < SNRQ_BLOCK; begin += SNRQ_STRIP) {
        float *strip = p->strips + begin * (p->below + SNRQ_STRIP);
        for (int64_t i = 0; i < p->below; i++)
            memcpy(strip + i * SNRQ_STRIP, p->u + i * SNRQ_BLOCK + begin, row);
        memset(strip + p->below * SNRQ_STRIP, 0, SNRQ_STRIP * row);
    }
}

/* Brings panel [begin, begin + width) of L to this rank and divides by the diagonal. */
static snrq_status load_panel(const snrq_matrix *l, const snrq_gptq *gptq, int64_t begin,
                              int64_t width, double *buffer, snrq_panel *panel)
{
    int64_t below = l->columns - begin;
    double inverse[SNRQ_BLOCK];
    SNRQ_TRY(snrq_matrix_broadcast_panel(l, begin, width, begin, buffer));
    panel->begin = begin;
    panel->width = width;
    panel->below = below;
    for (int64_t c = 0; c < width; c++) {
        double diagonal = buffer[c * below + c];
        panel->d2[c] = diagonal * diagonal;
        inverse[c] = 1.0 / diagonal;
    }
    /* In pieces of a few rows, so that both the columns of L and the rows of U stay in cache. */
#pragma omp parallel for schedule(static)
    for (int64_t piece = 0; piece < below; piece += SNRQ_STRIP)
        for (int64_t c = 0; c < width; c++)
            for (int64_t i = piece; i < piece + SNRQ_STRIP && i < below; i++)
                panel->u[i * SNRQ_BLOCK + c] =
                    i > c ? (float)(buffer[c * below + i] * inverse[c]) : 0.0f;
    if (panel->mismatch == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_matrix_broadcast_panel(gptq->mismatch, begin, width, begin, buffer));
    for (int64_t i = 0; i < below; i++)
        for (int64_t c = 0; c < width; c++)
            panel->mismatch[i * SNRQ_BLOCK + c] =
                i > c ? (float)(gptq->alpha * buffer[c * below + i] * inverse[c]) : 0.0f;
    return SNRQ_OK;
}

/* State of all rows of a rank between panels; arrays by tile, rows of a tile innermost. */
typedef struct search_state {
    snrq_rounding rounding;
    const snrq_gptq *gptq; /* or NULL */
    float *
        values; /* [tiles][columns][SNRQ_TILE_ROWS] the values that were rounded (gptaq), or NULL */
    float *scales, *zeros; /* [tiles][groups][SNRQ_TILE_ROWS] */
    float *greedy_errors;  /* [tiles][columns][SNRQ_TILE_ROWS] R - Q */
    snrq_beams *beams;     /* or NULL */
} search_state;

/* What one thread needs for a tile. */
typedef struct tile_scratch {
    float target[SNRQ_BLOCK * SNRQ_TILE_ROWS], y[SNRQ_BLOCK * SNRQ_TILE_ROWS];
    float shift[SNRQ_BLOCK * SNRQ_TILE_ROWS];
    snrq_beam_scratch beam;
} tile_scratch;

/* One vector of rows, one strip of columns. */
static void load_target_block(const snrq_tile *t, const snrq_panel *p, int64_t lane, int64_t begin)
{
    const snrq_rows *rows = t->rows;
    int64_t width = p->width - begin < SNRQ_STRIP ? p->width - begin : SNRQ_STRIP;
    snrq_lanes block[SNRQ_LANES] = {0};
    for (int64_t r = 0; r < SNRQ_LANES; r++) {
        const float *from = rows->target + (t->row + lane + r) * rows->columns + p->begin + begin;
        memcpy(&block[r], from, (size_t)width * sizeof *from);
    }
    snrq_lanes_transpose(block);
    for (int64_t c = 0; c < width; c++)
        snrq_lanes_store(t->target + (begin + c) * SNRQ_TILE_ROWS + lane, block[c]);
}

static void load_target(const snrq_tile *t, const snrq_panel *p)
{
    for (int64_t lane = 0; lane < SNRQ_TILE_ROWS; lane += SNRQ_LANES)
        for (int64_t begin = 0; begin < p->width; begin += SNRQ_STRIP)
            load_target_block(t, p, lane, begin);
}

/* y = R_panel + E_decided U, with E = R - Q of the columns behind the panel; the shift likewise. */
static void bring_in_decided(const snrq_tile *t, const snrq_panel *p, const float *errors)
{
    int64_t decided = p->begin + p->width, count = t->rows->columns - decided;
    size_t bytes = (size_t)(p->width * SNRQ_TILE_ROWS) * sizeof *t->y;
    memcpy(t->y, t->target, bytes);
    snrq_sgemm(true, false, p->width, SNRQ_TILE_ROWS, count, 1.0f, p->u + p->width * SNRQ_BLOCK,
               SNRQ_BLOCK, errors + decided * SNRQ_TILE_ROWS, SNRQ_TILE_ROWS, 1.0f, t->y,
               SNRQ_TILE_ROWS);
    if (t->shift == NULL) return;
    memset(t->shift, 0, bytes);
    snrq_sgemm(true, false, p->width, SNRQ_TILE_ROWS, count, 1.0f,
               p->mismatch + p->width * SNRQ_BLOCK, SNRQ_BLOCK,
               t->values + decided * SNRQ_TILE_ROWS, SNRQ_TILE_ROWS, 1.0f, t->shift,
               SNRQ_TILE_ROWS);
}

static snrq_tile make_tile(const snrq_rows *r, int64_t row, const search_state *s,
                           tile_scratch *scratch)
{
    bool shifted = s->values != NULL;
    return (snrq_tile){.rows = r,
                       .row = row,
                       .scales = s->scales + row * r->groups->count,
                       .zeros = s->zeros + row * r->groups->count,
                       .target = scratch->target,
                       .y = scratch->y,
                       .shift = shifted ? scratch->shift : NULL,
                       .values = shifted ? s->values + row * r->columns : NULL};
}

static snrq_status search_tile(const snrq_rows *r, int64_t row, const snrq_panel *p,
                               search_state *s, tile_scratch *scratch)
{
    snrq_tile tile = make_tile(r, row, s, scratch);
    int64_t decided = p->begin + p->width;
    float *errors = s->greedy_errors + row * r->columns;
    load_target(&tile, p);
    bring_in_decided(&tile, p, errors);
    snrq_greedy_tile(&tile, p, s->rounding, errors);
    if (s->beams == NULL) return SNRQ_OK;
    snrq_beams_settle(s->beams, &tile, decided);
    bring_in_decided(&tile, p, s->beams->errors + row * r->columns);
    return snrq_beams_tile(s->beams, &tile, p, &scratch->beam);
}

/* All tiles of this rank for one panel. */
static snrq_status search_panel(const snrq_rows *r, const snrq_panel *p, search_state *s)
{
    snrq_status worst = SNRQ_OK;
#pragma omp parallel
    {
        tile_scratch *scratch = NULL;
        snrq_status status = snrq_allocate(1, sizeof *scratch, "tile", &scratch);
        if (status == SNRQ_OK && s->beams != NULL)
            status = snrq_beam_scratch_create(s->beams->width, &scratch->beam);
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < r->rows; row += SNRQ_TILE_ROWS)
            if (status == SNRQ_OK) status = search_tile(r, row, p, s, scratch);
#pragma omp critical
        if (status != SNRQ_OK) worst = status;
        if (scratch != NULL) snrq_beam_scratch_free(&scratch->beam);
        free(scratch);
    }
    if (worst != SNRQ_OK) return snrq_fail(worst, "rounding search: out of memory");
    return SNRQ_OK;
}

/* What the columns of a panel would be rounded from if none of them were decided before the others:
 * each is taken as it is (Q_i = y_i), and what it takes up of the decided columns' errors is fed
 * back to those that follow. errors: as for greedy, for the panels of the group that follow. */
static void compensate(const snrq_tile *t, const snrq_panel *p, float *errors)
{
    for (int64_t c = p->width - 1; c >= 0; c--) {
        float *y = t->y + c * SNRQ_TILE_ROWS, *error = errors + (p->begin + c) * SNRQ_TILE_ROWS;
        for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++) {
            if (t->shift != NULL) y[i] += t->shift[c * SNRQ_TILE_ROWS + i];
            error[i] = t->target[c * SNRQ_TILE_ROWS + i] - y[i];
        }
        for (int64_t j = 0; j < c; j++) {
            float u = p->u[c * SNRQ_BLOCK + j];
            for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++)
                t->y[j * SNRQ_TILE_ROWS + i] += error[i] * u;
        }
    }
}

/* values [rows, count] <- the error-compensated weights in a panel of the group that begins at
 * column `first`. */
static snrq_status group_values(const snrq_rows *r, const snrq_panel *p, search_state *s,
                                int64_t first, int64_t count, float *values)
{
    snrq_status worst = SNRQ_OK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t row = 0; row < r->rows; row += SNRQ_TILE_ROWS) {
        float *errors = s->greedy_errors + row * r->columns;
        tile_scratch *scratch = NULL;
        if (snrq_allocate(1, sizeof *scratch, "tile", &scratch) != SNRQ_OK) {
#pragma omp atomic write
            worst = SNRQ_INTERNAL;
            continue;
        }
        snrq_tile tile = make_tile(r, row, s, scratch);
        load_target(&tile, p);
        bring_in_decided(&tile, p, errors);
        compensate(&tile, p, errors);
        for (int64_t c = 0; c < p->width; c++)
            for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++)
                values[(row + i) * count + p->begin - first + c] = tile.y[c * SNRQ_TILE_ROWS + i];
        free(scratch);
    }
    return worst == SNRQ_OK ? SNRQ_OK : snrq_fail(worst, "refitting grids: out of memory");
}

/* Fits group g of every row to values [rows, count]. */
static snrq_status fit_group(const snrq_grid_rule *rule, int64_t g, int64_t count,
                             const float *values, const double *d2, search_state *s, snrq_rows *r)
{
    for (int64_t row = 0; row < r->rows; row++) {
        int64_t at = row * r->groups->count + g, tile = row / SNRQ_TILE_ROWS * SNRQ_TILE_ROWS;
        int64_t lane = (tile * r->groups->count) + g * SNRQ_TILE_ROWS + row % SNRQ_TILE_ROWS;
        SNRQ_TRY(snrq_quant_grid_fit_group(rule, count, values + row * count, d2, &r->scales[at],
                                           &r->zeros[at]));
        s->scales[lane] = r->scales[at];
        s->zeros[lane] = (float)r->zeros[at];
    }
    return SNRQ_OK;
}

static void load_grids(const snrq_rows *r, search_state *s)
{
    int64_t groups = r->groups->count;
    for (int64_t row = 0; row < r->rows; row++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t tile = row / SNRQ_TILE_ROWS, lane = row % SNRQ_TILE_ROWS;
            int64_t at = (tile * groups + g) * SNRQ_TILE_ROWS + lane;
            s->scales[at] = r->scales[row * groups + g];
            s->zeros[at] = (float)r->zeros[row * groups + g];
        }
}

static snrq_status create_state(const snrq_rows *r, snrq_rounding rounding, int beam,
                                const snrq_gptq *gptq, double d2, search_state *s)
{
    size_t cells = (size_t)(r->rows * r->columns), grids = (size_t)(r->rows * r->groups->count);
    *s = (search_state){.rounding = rounding, .gptq = gptq};
    if (gptq != NULL && gptq->mismatch != NULL)
        SNRQ_TRY(snrq_allocate(cells, sizeof(float), "rounded values", &s->values));
    SNRQ_TRY(snrq_allocate(cells, sizeof(float), "rounding errors", &s->greedy_errors));
    SNRQ_TRY(snrq_allocate(grids, sizeof(float), "scales", &s->scales));
    SNRQ_TRY(snrq_allocate(grids, sizeof(float), "zeros", &s->zeros));
    load_grids(r, s);
    if (beam == 1 || rounding == SNRQ_ROUND_NEAREST) return SNRQ_OK;
    return snrq_beams_create(r, beam, d2, &s->beams);
}

static void free_state(search_state *s)
{
    snrq_beams_destroy(&s->beams);
    free(s->zeros);
    free(s->scales);
    free(s->greedy_errors);
    free(s->values);
}

static snrq_status allocate_panel(const snrq_matrix *l, const snrq_gptq *gptq, snrq_panel *p,
                                  double **buffer)
{
    size_t cells = (size_t)l->columns * SNRQ_BLOCK;
    SNRQ_TRY(snrq_allocate(cells, sizeof *p->u, "panel of L", &p->u));
    SNRQ_TRY(snrq_allocate(cells + SNRQ_STRIP * SNRQ_BLOCK, sizeof *p->strips, "panel of L",
                           &p->strips));
    if (gptq != NULL && gptq->mismatch != NULL)
        SNRQ_TRY(snrq_allocate(cells, sizeof *p->mismatch, "panel of the mismatch", &p->mismatch));
    return snrq_allocate(cells, sizeof **buffer, "panel of L", buffer);
}

/* First column of the panel that ends before `end`: panels are blocks of columns; where grids are
 * refitted, blocks of one group, counted from its first column. */
static int64_t panel_begin(const snrq_rows *rows, const search_state *s, int64_t end)
{
    int64_t start = 0;
    if (s->gptq != NULL && s->gptq->refit != NULL)
        start = rows->groups->first[rows->groups->of_position[end - 1]];
    return start + (end - 1 - start) / SNRQ_BLOCK * SNRQ_BLOCK;
}

/* Fits the grids of the group that ends before `end` to the values to round there, panel by panel.
 */
static snrq_status refit_group(const snrq_matrix *l, int64_t end, double *buffer, snrq_panel *p,
                               search_state *s, snrq_rows *rows)
{
    const snrq_context *context = l->grid->context;
    int64_t g = rows->groups->of_position[end - 1], first = rows->groups->first[g],
            count = end - first;
    float *values = NULL;
    double *d2 = NULL;
    snrq_status status =
        snrq_allocate((size_t)(rows->rows * count), sizeof *values, "group values", &values);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)count, sizeof *d2, "column weights", &d2);
    status = snrq_agree(context, status);
    for (int64_t stop = end; status == SNRQ_OK && stop > first;) {
        int64_t begin = panel_begin(rows, s, stop);
        status = load_panel(l, s->gptq, begin, stop - begin, buffer, p);
        if (status == SNRQ_OK)
            status = snrq_agree(context, group_values(rows, p, s, first, count, values));
        for (int64_t c = begin; status == SNRQ_OK && c < stop; c++)
            d2[c - first] = p->d2[c - begin];
        stop = begin;
    }
    if (status == SNRQ_OK)
        status = snrq_agree(context, fit_group(s->gptq->refit, g, count, values, d2, s, rows));
    free(d2);
    free(values);
    return status;
}

static snrq_status search(const snrq_matrix *l, snrq_rounding rounding, int beam,
                          const snrq_gptq *gptq, snrq_rows *rows)
{
    const snrq_context *context = l->grid->context;
    bool refits = gptq != NULL && gptq->refit != NULL;
    search_state state = {0};
    snrq_panel panel = {0};
    double *buffer = NULL, last = 1.0;
    SNRQ_TRY(snrq_matrix_broadcast_panel(l, l->columns - 1, 1, l->columns - 1, &last));
    snrq_status status = create_state(rows, rounding, beam, gptq, last * last, &state);
    if (status == SNRQ_OK) status = allocate_panel(l, gptq, &panel, &buffer);
    status = snrq_agree(context, status);

    memset(rows->costs, 0, (size_t)rows->rows * sizeof *rows->costs);
    for (int64_t end = l->columns; status == SNRQ_OK && end > 0;) {
        int64_t begin = panel_begin(rows, &state, end);
        bool starts_group = end == l->columns ||
                            rows->groups->of_position[end] != rows->groups->of_position[end - 1];
        if (refits && starts_group) status = refit_group(l, end, buffer, &panel, &state, rows);
        if (status == SNRQ_OK) status = load_panel(l, gptq, begin, end - begin, buffer, &panel);
        if (status == SNRQ_OK && state.beams != NULL) cut_strips(&panel);
        if (status == SNRQ_OK) status = snrq_agree(context, search_panel(rows, &panel, &state));
        end = begin;
    }
    if (status == SNRQ_OK && state.beams != NULL) snrq_beams_finish(state.beams, rows);
    free(buffer);
    free(panel.mismatch);
    free(panel.strips);
    free(panel.u);
    free_state(&state);
    return status;
}

snrq_status snrq_search(const snrq_matrix *l, snrq_rounding rounding, int beam, snrq_rows *rows)
{
    return search(l, rounding, beam, NULL, rows);
}

snrq_status snrq_search_gptq(const snrq_matrix *l, const snrq_gptq *gptq, snrq_rows *rows)
{
    return search(l, SNRQ_ROUND_FEEDBACK, 1, gptq, rows);
}
