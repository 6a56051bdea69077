/* Rounding rows panel by panel: the panels and the tiles. The recursion inside a panel is in
 * greedy.c and beam.c, their products in search_tile.c. See search.h and search_tile.h. */
#include "pipeline/rounding/search.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/panel_feed.h"
#include "pipeline/rounding/beam.h"
#include "pipeline/rounding/search_tile.h"

snrq_status snrq_rows_create(int64_t rows, int bits, const snrq_groups *groups, snrq_rows *out)
{
    int64_t padded = (rows + SNRQ_TILE_ROWS - 1) / SNRQ_TILE_ROWS * SNRQ_TILE_ROWS;
    size_t m = (size_t)padded, n = (size_t)groups->columns, g = (size_t)groups->count;
    memset(out, 0, sizeof *out);
    out->rows = padded;
    out->columns = groups->columns;
    out->bits = bits;
    out->top = (1 << bits) - 1;
    out->groups = groups;
    out->tensor_scale = 1.0f;
    SNRQ_TRY(snrq_allocate(m * n, sizeof(float), "rounding targets", &out->target));
    SNRQ_TRY(snrq_allocate(m * g, sizeof(float), "scales", &out->scales));
    SNRQ_TRY(snrq_allocate(m * g, 1, "zeros", &out->zeros));
    SNRQ_TRY(snrq_allocate(m * n, 1, "codes", &out->codes));
    SNRQ_TRY(snrq_allocate(m, sizeof(double), "costs", &out->costs));
    for (size_t i = 0; i < m * g; i++) out->scales[i] = 1.0f;
    return SNRQ_OK;
}

void snrq_rows_set_format(snrq_rows *r, const snrq_weight_format *f)
{
    if (f == NULL) return;
    r->levels = f->levels;
    r->top = f->top;
}

snrq_status snrq_rows_add_minima(snrq_rows *r)
{
    return snrq_allocate((size_t)(r->rows * r->groups->count), sizeof *r->minima, "minima",
                         &r->minima);
}

void snrq_rows_set_minima(snrq_rows *r, int64_t row, const float *minima)
{
    const int64_t n = r->columns, groups = r->groups->count;
    float *now = r->minima + row * groups;
    for (int64_t k = 0; k < n; k++) {
        int32_t g = r->groups->of_position[k];
        r->target[row * n + k] += minima[g] - now[g];
    }
    memcpy(now, minima, (size_t)groups * sizeof *now);
}

void snrq_rows_free(snrq_rows *r)
{
    free(r->minima);
    free(r->target);
    free(r->scales);
    free(r->zeros);
    free(r->codes);
    free(r->costs);
    memset(r, 0, sizeof *r);
}

/* strips <- panel [below, width] (columns `stride` apart) times `factor` per column, below the
 * diagonal. In pieces of a few rows, so that both the columns of the panel and the strips stay in
 * cache. */
static void cut_strips(const snrq_panel *p, const double *panel, int64_t stride,
                       const double *factor, float *strips)
{
    int64_t rows = p->below + SNRQ_STRIP;
#pragma omp parallel for schedule(static)
    for (int64_t piece = 0; piece < rows; piece += SNRQ_STRIP)
        for (int64_t c = 0; c < SNRQ_PANEL; c++) {
            float *strip = snrq_panel_strip(p, strips, c / SNRQ_STRIP * SNRQ_STRIP, 0);
            for (int64_t i = piece; i < piece + SNRQ_STRIP && i < rows; i++)
                strip[i * SNRQ_STRIP + c % SNRQ_STRIP] =
                    c < p->width && i > c && i < p->below
                        ? (float)(panel[c * stride + i] * factor[c])
                        : 0.0f;
        }
}

/* Columns [begin, begin + width) of L, and where the panel begins that is wanted after it and ends
 * where it begins; negative: not known yet. */
typedef struct wanted {
    int64_t begin, width, next;
} wanted;

/* Where columns of a matrix can be read from row `begin` on: where they are if this rank has all of
 * it, else in `buffer`. *stride: numbers from a column to the next. */
static snrq_status bring_panel(const snrq_matrix *m, snrq_panel_feed *feed, wanted w,
                               double *buffer, const double **panel, int64_t *stride)
{
    *stride = m->rows - w.begin;
    *panel = buffer;
    if (m->grid->context->size == 1) {
        *stride = m->local_rows;
        *panel = m->local + w.begin * m->local_rows + w.begin;
        return SNRQ_OK;
    }
    if (!snrq_panel_feed_expects(feed, w.begin))
        SNRQ_TRY(snrq_panel_feed_start(feed, w.begin, w.width, w.begin));
    SNRQ_TRY(snrq_panel_feed_take(feed, buffer));
    return w.next < 0 ? SNRQ_OK : snrq_panel_feed_start(feed, w.next, w.begin - w.next, w.next);
}

/* Where the kept panel begins that begins with column `begin`: after wider ones. */
static int64_t kept_at(int64_t columns, int64_t begin)
{
    int64_t before = begin / SNRQ_PANEL;
    return SNRQ_PANEL *
           (before * (columns + SNRQ_STRIP) - SNRQ_PANEL * (before * (before - 1) / 2));
}

/* Panels of L, and of A, on their way, and where they are put. */
typedef struct sources {
    const snrq_matrix *l;
    snrq_panel_feed *feed, *feed_a;
    double *buffer;
} sources;

/* Brings a panel of L to this rank and divides by the diagonal. */
static snrq_status load_panel(sources *from, snrq_kept_panels *kept, const snrq_gptq *gptq,
                              wanted w, snrq_panel *panel)
{
    const int64_t columns = from->l->columns, begin = w.begin, width = w.width;
    const double *source = NULL;
    double inverse[SNRQ_PANEL];
    int64_t stride = 0;
    panel->begin = begin;
    panel->width = width;
    panel->below = columns - begin;
    if (kept != NULL) panel->u = kept->u + kept_at(columns, begin);
    if (kept != NULL && kept->filled) {
        memcpy(panel->d2, kept->d2 + begin, (size_t)width * sizeof *panel->d2);
        return SNRQ_OK;
    }
    SNRQ_TRY(bring_panel(from->l, from->feed, w, from->buffer, &source, &stride));
    for (int64_t c = 0; c < width; c++) {
        double diagonal = source[c * stride + c];
        panel->d2[c] = diagonal * diagonal;
        inverse[c] = 1.0 / diagonal;
    }
    if (kept != NULL) memcpy(kept->d2 + begin, panel->d2, (size_t)width * sizeof *panel->d2);
    cut_strips(panel, source, stride, inverse, panel->u);
    if (panel->a_over_l == NULL) return SNRQ_OK;
    SNRQ_TRY(bring_panel(gptq->a, from->feed_a, w, from->buffer, &source, &stride));
    for (int64_t c = 0; c < width; c++) inverse[c] *= gptq->alpha;
    cut_strips(panel, source, stride, inverse, panel->a_over_l);
    return SNRQ_OK;
}

size_t snrq_kept_panels_bytes(int64_t columns)
{
    return (size_t)(kept_at(columns, (columns + SNRQ_PANEL - 1) / SNRQ_PANEL * SNRQ_PANEL)) *
               sizeof(float) +
           (size_t)columns * sizeof(double);
}

snrq_status snrq_kept_panels_create(int64_t columns, snrq_kept_panels *out)
{
    int64_t cells = kept_at(columns, (columns + SNRQ_PANEL - 1) / SNRQ_PANEL * SNRQ_PANEL);
    *out = (snrq_kept_panels){.filled = false};
    SNRQ_TRY(snrq_allocate_scratch((size_t)cells, sizeof *out->u, "panels of L", &out->u));
    return snrq_allocate((size_t)columns, sizeof *out->d2, "diagonal of L", &out->d2);
}

void snrq_kept_panels_free(snrq_kept_panels *kept)
{
    free(kept->u);
    free(kept->d2);
    *kept = (snrq_kept_panels){.filled = false};
}

/* State of all rows of a rank between panels; arrays by tile, rows of a tile innermost. */
typedef struct search_state {
    snrq_search_kind kind;
    const snrq_gptq *gptq; /* or NULL */
    float *values;         /* as errors: the values that were rounded (gptaq), or NULL */
    float *scales, *zeros; /* [tiles][groups][SNRQ_TILE_ROWS] */
    float *errors; /* [rows / SNRQ_LANES][columns][SNRQ_LANES] R - Q of decided columns, else 0 */
    snrq_beams *beams;     /* or NULL */
    snrq_panel_feed *feed; /* borrowed: of the panels of L */
} search_state;

/* What one thread needs for a tile. */
typedef struct tile_scratch {
    float target[SNRQ_PANEL * SNRQ_TILE_ROWS], y[SNRQ_PANEL * SNRQ_TILE_ROWS];
    float m[SNRQ_PANEL * SNRQ_TILE_ROWS];
    snrq_beam_scratch beam;
} tile_scratch;

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
                       .errors = s->errors + row * r->columns,
                       .m = shifted ? scratch->m : NULL,
                       .values = shifted ? s->values + row * r->columns : NULL};
}

static snrq_status search_tile(const snrq_rows *r, int64_t row, const snrq_panel *p,
                               search_state *s, tile_scratch *scratch)
{
    snrq_tile tile = make_tile(r, row, s, scratch);
    if (s->beams != NULL) return snrq_beams_tile(s->beams, &tile, p, &scratch->beam);
    snrq_greedy_tile(&tile, p, s->kind);
    return SNRQ_OK;
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
            status = snrq_beam_scratch_create(s->beams, &scratch->beam);
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < r->rows; row += SNRQ_TILE_ROWS) {
            if (status == SNRQ_OK) status = search_tile(r, row, p, s, scratch);
            if (omp_get_thread_num() == 0) snrq_panel_feed_progress(s->feed);
        }
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
 * back to those that follow. Writes the tile's errors, as greedy does, for the panels of the group
 * that follow. */
static void compensate(const snrq_tile *t, const snrq_panel *p)
{
    for (int64_t c = p->width - 1; c >= 0; c--) {
        float *y = t->y + c * SNRQ_TILE_ROWS, error[SNRQ_TILE_ROWS];
        for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++) {
            if (t->m != NULL) y[i] += t->m[c * SNRQ_TILE_ROWS + i];
            error[i] = t->target[c * SNRQ_TILE_ROWS + i] - y[i];
        }
        snrq_tile_put(t, t->errors, p->begin + c, error);
        for (int64_t j = 0; j < c; j++) {
            int64_t strip = j / SNRQ_STRIP * SNRQ_STRIP;
            float u = snrq_panel_strip(p, p->u, strip, c)[j - strip];
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
        tile_scratch *scratch = NULL;
        if (snrq_allocate(1, sizeof *scratch, "tile", &scratch) != SNRQ_OK) {
#pragma omp atomic write
            worst = SNRQ_INTERNAL;
            continue;
        }
        snrq_tile tile = make_tile(r, row, s, scratch);
        snrq_tile_begin(&tile, p, p->begin + p->width);
        compensate(&tile, p);
        for (int64_t c = 0; c < p->width; c++)
            for (int64_t i = 0; i < SNRQ_TILE_ROWS; i++)
                values[(row + i) * count + p->begin - first + c] = tile.y[c * SNRQ_TILE_ROWS + i];
        free(scratch);
    }
    return worst == SNRQ_OK ? SNRQ_OK : snrq_fail(worst, "refitting grids: out of memory");
}

/* Fits group g of every row to values [rows, count]. */
static snrq_status fit_group(const snrq_rule *rule, int64_t g, int64_t count, const float *values,
                             const double *d2, search_state *s, snrq_rows *r)
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

static snrq_status create_state(const snrq_rows *r, snrq_search_kind kind, int beam,
                                const snrq_gptq *gptq, double d2, search_state *s)
{
    size_t cells = (size_t)(r->rows * r->columns), grids = (size_t)(r->rows * r->groups->count);
    *s = (search_state){.kind = kind, .gptq = gptq};
    if (gptq != NULL && gptq->a != NULL)
        SNRQ_TRY(snrq_allocate(cells, sizeof(float), "rounded values", &s->values));
    SNRQ_TRY(snrq_allocate(cells, sizeof(float), "rounding errors", &s->errors));
    SNRQ_TRY(snrq_allocate(grids, sizeof(float), "scales", &s->scales));
    SNRQ_TRY(snrq_allocate(grids, sizeof(float), "zeros", &s->zeros));
    load_grids(r, s);
    if (beam == 1 || kind == SNRQ_ROUND_NEAREST) return SNRQ_OK;
    return snrq_beams_create(r, beam, d2, &s->beams);
}

static void free_state(search_state *s)
{
    snrq_beams_destroy(&s->beams);
    free(s->zeros);
    free(s->scales);
    free(s->errors);
    free(s->values);
}

/* *strips: of L, for the caller to free; NULL where panels are kept. */
static snrq_status allocate_panel(const snrq_matrix *l, const snrq_kept_panels *kept,
                                  const snrq_gptq *gptq, snrq_panel *p, float **strips,
                                  sources *from)
{
    from->l = l;
    SNRQ_TRY(snrq_panel_feed_create(l, SNRQ_PANEL, sizeof *from->buffer, &from->feed));
    if (gptq != NULL && gptq->a != NULL)
        SNRQ_TRY(snrq_panel_feed_create(gptq->a, SNRQ_PANEL, sizeof *from->buffer, &from->feed_a));
    size_t cells = (size_t)l->columns * SNRQ_PANEL, padded = cells + SNRQ_STRIP * SNRQ_PANEL;
    if (kept == NULL) SNRQ_TRY(snrq_allocate(padded, sizeof **strips, "panel of L", strips));
    p->u = *strips;
    if (gptq != NULL && gptq->a != NULL)
        SNRQ_TRY(snrq_allocate(padded, sizeof *p->a_over_l, "panel of A / L", &p->a_over_l));
    return snrq_allocate(cells, sizeof *from->buffer, "panel of L", &from->buffer);
}

/* First column of the panel that ends before `end`: panels are blocks of columns; where grids are
 * refitted, blocks of one group, counted from its first column. */
static int64_t panel_begin(const snrq_rows *rows, const search_state *s, int64_t end)
{
    int64_t start = 0;
    if (s->gptq != NULL && s->gptq->refit != NULL)
        start = rows->groups->first[rows->groups->of_position[end - 1]];
    return start + (end - 1 - start) / SNRQ_PANEL * SNRQ_PANEL;
}

/* Fits the grids of the group that ends before `end` to the values to round there, panel by panel.
 */
static snrq_status refit_group(sources *from, int64_t end, snrq_panel *p, search_state *s,
                               snrq_rows *rows)
{
    const snrq_context *context = from->l->grid->context;
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
        const wanted w = {begin, stop - begin, -1};
        status = load_panel(from, NULL, s->gptq, w, p);
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

static snrq_status search(const snrq_matrix *l, snrq_kept_panels *kept, snrq_search_kind kind,
                          int beam, const snrq_gptq *gptq, snrq_rows *rows)
{
    const snrq_context *context = l->grid->context;
    bool refits = gptq != NULL && gptq->refit != NULL;
    search_state state = {0};
    snrq_panel panel = {0};
    float *strips = NULL;
    sources from = {0};
    double last = 1.0;
    if (kept == NULL || !kept->filled)
        SNRQ_TRY(snrq_matrix_broadcast_panel(l, l->columns - 1, 1, l->columns - 1, &last));
    double first_d2 = kept != NULL && kept->filled ? kept->d2[l->columns - 1] : last * last;
    snrq_status status = create_state(rows, kind, beam, gptq, first_d2, &state);
    if (status == SNRQ_OK) status = allocate_panel(l, kept, gptq, &panel, &strips, &from);
    state.feed = from.feed;
    status = snrq_agree(context, status);

    memset(rows->costs, 0, (size_t)rows->rows * sizeof *rows->costs);
    for (int64_t end = l->columns; status == SNRQ_OK && end > 0;) {
        int64_t begin = panel_begin(rows, &state, end);
        bool starts_group = end == l->columns ||
                            rows->groups->of_position[end] != rows->groups->of_position[end - 1];
        if (refits && starts_group) status = refit_group(&from, end, &panel, &state, rows);
        /* Where grids are refitted, panels are read twice: what comes next is not put on its way.
         */
        int64_t next = begin > 0 && !refits ? panel_begin(rows, &state, begin) : -1;
        const wanted w = {begin, end - begin, next};
        if (status == SNRQ_OK) status = load_panel(&from, kept, gptq, w, &panel);
        if (status == SNRQ_OK) status = snrq_agree(context, search_panel(rows, &panel, &state));
        end = begin;
    }
    if (status == SNRQ_OK && state.beams != NULL) snrq_beams_finish(state.beams, rows);
    if (status == SNRQ_OK && kept != NULL) kept->filled = true;
    snrq_panel_feed_destroy(&from.feed_a);
    snrq_panel_feed_destroy(&from.feed);
    free(from.buffer);
    free(panel.a_over_l);
    free(strips);
    free_state(&state);
    return status;
}

snrq_status snrq_search(const snrq_matrix *l, snrq_search_kind kind, int beam, snrq_rows *rows)
{
    return search(l, NULL, kind, beam, NULL, rows);
}

snrq_status snrq_search_kept(const snrq_matrix *l, snrq_kept_panels *kept, snrq_search_kind kind,
                             int beam, snrq_rows *rows)
{
    return search(l, kept, kind, beam, NULL, rows);
}

snrq_status snrq_search_gptq(const snrq_matrix *l, const snrq_gptq *gptq, snrq_rows *rows)
{
    return search(l, NULL, SNRQ_ROUND_FEEDBACK, 1, gptq, rows);
}
