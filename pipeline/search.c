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
static snrq_status load_panel(const snrq_matrix *l, int64_t begin, int64_t width, double *buffer,
                              snrq_panel *panel)
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
    return SNRQ_OK;
}

/* State of all rows of a rank between panels; arrays by tile, rows of a tile innermost. */
typedef struct search_state {
    snrq_rounding rounding;
    float *scales, *zeros; /* [tiles][groups][SNRQ_TILE_ROWS] */
    float *greedy_errors;  /* [tiles][columns][SNRQ_TILE_ROWS] R - Q */
    snrq_beams *beams;     /* or NULL */
} search_state;

/* What one thread needs for a tile. */
typedef struct tile_scratch {
    float target[SNRQ_BLOCK * SNRQ_TILE_ROWS], y[SNRQ_BLOCK * SNRQ_TILE_ROWS];
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

/* y = R_panel + E_decided U, with E = R - Q of the decided columns. */
static void bring_in_decided(const snrq_tile *t, const snrq_panel *p, const float *errors)
{
    int64_t decided = p->begin + p->width;
    memcpy(t->y, t->target, (size_t)(p->width * SNRQ_TILE_ROWS) * sizeof *t->y);
    snrq_sgemm(true, false, p->width, SNRQ_TILE_ROWS, t->rows->columns - decided, 1.0f,
               p->u + p->width * SNRQ_BLOCK, SNRQ_BLOCK, errors + decided * SNRQ_TILE_ROWS,
               SNRQ_TILE_ROWS, 1.0f, t->y, SNRQ_TILE_ROWS);
}

static snrq_status search_tile(const snrq_rows *r, int64_t row, const snrq_panel *p,
                               search_state *s, tile_scratch *scratch)
{
    snrq_tile tile = {.rows = r,
                      .row = row,
                      .scales = s->scales + row * r->groups->count,
                      .zeros = s->zeros + row * r->groups->count,
                      .target = scratch->target,
                      .y = scratch->y};
    float *errors = s->greedy_errors + row * r->columns;
    load_target(&tile, p);
    bring_in_decided(&tile, p, errors);
    snrq_greedy_tile(&tile, p, s->rounding, errors);
    if (s->beams == NULL) return SNRQ_OK;
    snrq_beams_settle(s->beams, &tile, p->begin + p->width);
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

static snrq_status create_state(const snrq_rows *r, snrq_rounding rounding, int beam, double d2,
                                search_state *s)
{
    size_t cells = (size_t)(r->rows * r->columns), grids = (size_t)(r->rows * r->groups->count);
    *s = (search_state){.rounding = rounding};
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
}

snrq_status snrq_search(const snrq_matrix *l, snrq_rounding rounding, int beam, snrq_rows *rows)
{
    const snrq_context *context = l->grid->context;
    search_state state = {0};
    snrq_panel panel = {0};
    double *buffer = NULL, last = 1.0;
    size_t panel_cells = (size_t)l->columns * SNRQ_BLOCK;
    SNRQ_TRY(snrq_matrix_broadcast_panel(l, l->columns - 1, 1, l->columns - 1, &last));
    snrq_status status = create_state(rows, rounding, beam, last * last, &state);
    if (status == SNRQ_OK)
        status = snrq_allocate(panel_cells, sizeof *panel.u, "panel of L", &panel.u);
    if (status == SNRQ_OK)
        status = snrq_allocate(panel_cells + SNRQ_STRIP * SNRQ_BLOCK, sizeof *panel.strips,
                               "panel of L", &panel.strips);
    if (status == SNRQ_OK)
        status = snrq_allocate(panel_cells, sizeof *buffer, "panel of L", &buffer);
    status = snrq_agree(context, status);

    memset(rows->costs, 0, (size_t)rows->rows * sizeof *rows->costs);
    for (int64_t begin = (l->columns - 1) / SNRQ_BLOCK * SNRQ_BLOCK;
         status == SNRQ_OK && begin >= 0; begin -= SNRQ_BLOCK) {
        int64_t width = l->columns - begin < SNRQ_BLOCK ? l->columns - begin : SNRQ_BLOCK;
        status = load_panel(l, begin, width, buffer, &panel);
        if (status == SNRQ_OK && state.beams != NULL) cut_strips(&panel);
        if (status == SNRQ_OK) status = snrq_agree(context, search_panel(rows, &panel, &state));
    }
    if (status == SNRQ_OK && state.beams != NULL) snrq_beams_finish(state.beams, rows);
    free(buffer);
    free(panel.strips);
    free(panel.u);
    free_state(&state);
    return status;
}
