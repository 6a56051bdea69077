/* The beams; see beam.h. */
#include "pipeline/beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = SNRQ_LANES, STRIP = SNRQ_STRIP };

static const float UNKNOWN = 1e9f; /* no level of a grid of at most 256 */

static snrq_status create_arrays(const snrq_rows *rows, snrq_beams *b)
{
    size_t cells = (size_t)(rows->rows * rows->columns), m = (size_t)rows->rows;
    SNRQ_TRY(snrq_allocate(cells, sizeof *b->errors, "rounding errors", &b->errors));
    SNRQ_TRY(snrq_allocate(cells, 1, "settled codes", &b->codes));
    SNRQ_TRY(snrq_allocate(m * (size_t)b->width, sizeof *b->costs, "beam costs", &b->costs));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->base, "beam costs", &b->base));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->per_unit, "beam costs", &b->per_unit));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->histories, "beam histories", &b->histories));
    for (int64_t r = 0; r < rows->rows; r++)
        SNRQ_TRY(snrq_beam_history_create(rows->columns, b->width, &b->histories[r]));
    return SNRQ_OK;
}

/* One over the cost of a miss by a step of the row's largest scale: keeps fp32 costs in range. */
static double per_cost_unit(const snrq_rows *rows, int64_t row, double d2)
{
    double most = 0.0;
    for (int64_t g = 0; g < rows->groups->count; g++)
        most = fmax(most, fabs((double)rows->scales[row * rows->groups->count + g]));
    return 1.0 / (d2 * most * most);
}

snrq_status snrq_beams_create(const snrq_rows *rows, int beam, double d2, snrq_beams **out)
{
    snrq_beams *b = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *b, "beams", &b));
    *out = b;
    *b = (snrq_beams){.width = beam, .rows = rows->rows, .columns = rows->columns};
    SNRQ_TRY(create_arrays(rows, b));
    for (int64_t r = 0; r < rows->rows; r++) {
        b->per_unit[r] = per_cost_unit(rows, r, d2);
        for (int k = 1; k < beam; k++)
            b->costs[(r / LANES * beam + k) * LANES + r % LANES] = INFINITY;
    }
    return SNRQ_OK;
}

void snrq_beams_destroy(snrq_beams **beams)
{
    snrq_beams *b = *beams;
    if (b == NULL) return;
    for (int64_t r = 0; r < b->rows && b->histories != NULL; r++)
        snrq_beam_history_free(&b->histories[r]);
    free(b->histories);
    free(b->per_unit);
    free(b->base);
    free(b->costs);
    free(b->codes);
    free(b->errors);
    free(b);
    *beams = NULL;
}

snrq_status snrq_beam_scratch_create(int beam, snrq_beam_scratch *s)
{
    size_t k = (size_t)beam, line = sizeof(snrq_lanes);
    size_t lanes = k * (7 + STRIP + LANES + 1);
    SNRQ_TRY(snrq_allocate((lanes + 1) * line + k * (sizeof *s->roots + STRIP * LANES + 4), 1,
                           "beam scratch", &s->memory));
    s->costs = (snrq_lanes *)(((uintptr_t)s->memory + line - 1) / line * line);
    s->extended = s->costs + k;
    s->level = s->extended + k;
    s->waiting = s->level + k;
    s->waiting_level = s->waiting + k;
    s->low = s->waiting_level + k;
    s->high = s->low + k;
    s->y = s->high + k;
    s->values = s->y + STRIP * k;
    s->values_scratch = s->values + LANES * k;
    s->roots = (snrq_int_lanes *)(s->values_scratch + k);
    s->codes = (snrq_byte_lanes *)(s->roots + k);
    s->parents = (int32_t *)(s->codes + STRIP * k);
    return SNRQ_OK;
}

void snrq_beam_scratch_free(snrq_beam_scratch *s)
{
    free(s->memory);
    *s = (snrq_beam_scratch){0};
}

/* A column for the rows whose slots are in the scratch. */
typedef struct column {
    int64_t at, end;                          /* in the strip; columns of the strip */
    snrq_lanes scale, steps, lowest, highest; /* steps = 1 / scale; levels are code - zero */
    snrq_lanes weight;                        /* d2 in units of the row */
} column;

static column load_column(const snrq_beams *b, const snrq_tile *t, int64_t lane, int64_t k,
                          double d2)
{
    int64_t g = (int64_t)t->rows->groups->of_position[k] * SNRQ_TILE_ROWS + lane;
    const double *per_unit = b->per_unit + t->row + lane;
    column out = {.scale = snrq_lanes_load(t->scales + g),
                  .lowest = -snrq_lanes_load(t->zeros + g)};
    out.highest = out.lowest + (float)((1 << t->rows->bits) - 1);
    out.steps = 1.0f / out.scale;
    for (int r = 0; r < LANES; r++) out.weight[r] = (float)(d2 * per_unit[r]);
    return out;
}

/* The two levels around y of every beam: the nearer one extends it in its slot, the other one
 * waits.
 */
static void extend(const column *g, int width, const snrq_lanes *y, snrq_beam_scratch *s)
{
    snrq_lanes scale = g->scale, last = g->highest - 1.0f;
    for (int k = 0; k < width; k++) {
        snrq_lanes below = snrq_lanes_max(snrq_lanes_min(y[k] * g->steps, last), g->lowest);
        below = snrq_lanes_floor(below);
        snrq_lanes above = below + 1.0f;
        snrq_lanes miss_below = y[k] - scale * below, miss_above = y[k] - scale * above;
        snrq_lanes cost_below = snrq_lanes_madd(g->weight * miss_below, miss_below, s->costs[k]);
        snrq_lanes cost_above = snrq_lanes_madd(g->weight * miss_above, miss_above, s->costs[k]);
        snrq_int_lanes down = cost_below <= cost_above;
        s->extended[k] = snrq_lanes_min(cost_below, cost_above);
        s->waiting[k] = snrq_lanes_max(cost_below, cost_above);
        s->level[k] = snrq_lanes_select(down, below, above);
        s->waiting_level[k] = snrq_lanes_select(down, above, below);
        s->low[k] = below;
        s->high[k] = above;
    }
}

/* The most expensive extension of each row and the cheapest level that waits. */
typedef struct contest {
    snrq_lanes worst, best;
    snrq_int_lanes worst_slot, best_slot;
} contest;

static contest compare(int width, const snrq_beam_scratch *s)
{
    contest c = {.worst = s->extended[0], .best = s->waiting[0]};
    snrq_lanes worst_slot = {0}, best_slot = {0};
    for (int k = 1; k < width; k++) {
        snrq_lanes slot = snrq_lanes_all((float)k);
        worst_slot = snrq_lanes_select(s->extended[k] > c.worst, slot, worst_slot);
        best_slot = snrq_lanes_select(s->waiting[k] < c.best, slot, best_slot);
        c.worst = snrq_lanes_max(s->extended[k], c.worst);
        c.best = snrq_lanes_min(s->waiting[k], c.best);
    }
    c.worst_slot = __builtin_convertvector(worst_slot, snrq_int_lanes);
    c.best_slot = __builtin_convertvector(best_slot, snrq_int_lanes);
    return c;
}

static float cost_of(const column *g, int r, float level, float y, float cost)
{
    if (level < g->lowest[r] || level > g->highest[r]) return INFINITY;
    float miss = y - g->scale[r] * level;
    return snrq_madd(g->weight[r] * miss, miss, cost);
}

/* Lane r: the waiting level of beam `in` takes slot `out`. The slot of `in` is not lost itself in
 * this step: nothing that waits is cheaper than what was taken from it. Its next level is seldom
 * wanted: it lies at least a step beyond the nearest one, which is all that is told here. */
static void take_slot(const column *g, int width, int r, int32_t in, int32_t out,
                      snrq_beam_scratch *s)
{
    float miss = s->y[g->at * width + in][r] - g->scale[r] * s->level[in][r];
    float next = __builtin_fabsf(miss) + g->scale[r];
    s->level[out][r] = s->waiting_level[in][r];
    s->extended[out][r] = s->waiting[in][r];
    s->waiting[out][r] = INFINITY;
    s->waiting[in][r] = snrq_madd(g->weight[r] * next, next, s->costs[in][r]);
    s->waiting_level[in][r] = UNKNOWN;
    s->roots[out][r] = s->roots[in][r];
    snrq_lanes *y = s->y;
    for (int64_t i = 0; i < g->at; i++, y += width) y[out][r] = y[in][r];
    snrq_byte_lanes *codes = s->codes + (g->at + 1) * width;
    for (int64_t i = g->at + 1; i < g->end; i++, codes += width) codes[out][r] = codes[in][r];
}

/* Lane r: finds the level of beam k that waits after those from low to high. */
static void find_level(const column *g, int width, int r, int32_t k, snrq_beam_scratch *s)
{
    float y = s->y[g->at * width + k][r], cost = s->costs[k][r];
    float below = cost_of(g, r, s->low[k][r] - 1.0f, y, cost);
    float above = cost_of(g, r, s->high[k][r] + 1.0f, y, cost);
    s->waiting[k][r] = below <= above ? below : above;
    s->waiting_level[k][r] = below <= above ? --s->low[k][r] : ++s->high[k][r];
}

/* Gives slots to waiting levels until none is cheaper than the extensions in the slots. */
static void select_cheapest(const column *g, int width, snrq_beam_scratch *s)
{
    for (;;) {
        contest now = compare(width, s);
        uint32_t rows = snrq_lanes_bits(now.best < now.worst);
        if (rows == 0) return;
        for (; rows != 0; rows &= rows - 1) {
            int r = __builtin_ctz(rows);
            if (s->waiting_level[now.best_slot[r]][r] == UNKNOWN)
                find_level(g, width, r, now.best_slot[r], s);
            else
                take_slot(g, width, r, now.best_slot[r], now.worst_slot[r], s);
        }
    }
}

/* Codes and costs of the extensions, and what they add to the strip's columns to come. */
static void commit(const column *g, int width, const float *u, snrq_lanes target,
                   snrq_beam_scratch *s)
{
    snrq_lanes *costs = s->costs, *y = s->y;
    snrq_byte_lanes *codes = s->codes + g->at * width;
    for (int k = 0; k < width; k++) codes[k] = snrq_lanes_to_bytes(s->level[k] - g->lowest);
    for (int k = 0; k < width; k++) {
        snrq_lanes error = target - g->scale * s->level[k];
        for (int64_t i = 0; i < g->at; i++)
            y[i * width + k] = snrq_lanes_madd(error, snrq_lanes_all(u[i]), y[i * width + k]);
    }
    s->costs = s->extended;
    s->extended = costs;
}

/* Values of the strip's columns for all slots, as known before the strip. lane: of the tile. */
static void start_strip(const snrq_beams *b, const snrq_tile *t, const snrq_panel *p, int64_t lane,
                        int64_t begin, int64_t end, snrq_beam_scratch *s)
{
    const float *u = snrq_panel_strip(p, begin, end);
    const float *settled = t->y + begin * SNRQ_TILE_ROWS + lane;
    if (p->begin + end == b->columns) /* nothing decided yet */
        memset(s->values, 0, (size_t)b->width * LANES * sizeof *s->values);
    for (int r = 0; r < LANES; r++)
        snrq_beam_history_feed_back(&b->histories[t->row + lane + r], u, s->values + r * b->width,
                                    s->values_scratch);
    for (int k = 0; k < b->width; k++) {
        snrq_lanes rows[LANES];
        for (int r = 0; r < LANES; r++) rows[r] = s->values[r * b->width + k];
        snrq_lanes_transpose(rows);
        for (int64_t c = 0; c < end - begin; c++)
            s->y[c * b->width + k] = rows[c] + snrq_lanes_load(settled + c * SNRQ_TILE_ROWS);
        s->roots[k] = k - (snrq_int_lanes){0};
    }
    memcpy(s->costs, b->costs + (t->row + lane) * b->width, (size_t)b->width * sizeof *s->costs);
}

/* Writes slot k's errors and codes in the strip to the histories' newest layers. */
static void store_nodes(const snrq_beams *b, const snrq_tile *t, const snrq_panel *p, int64_t lane,
                        int64_t begin, int64_t end, int k, const snrq_beam_scratch *s)
{
    snrq_lanes errors[STRIP] = {0};
    snrq_byte_lanes codes[STRIP] = {0};
    for (int64_t c = begin; c < end; c++) {
        int64_t g = (int64_t)t->rows->groups->of_position[p->begin + c] * SNRQ_TILE_ROWS + lane;
        codes[c - begin] = s->codes[(c - begin) * b->width + k];
        errors[c - begin] =
            snrq_lanes_load(t->target + c * SNRQ_TILE_ROWS + lane) -
            snrq_lanes_load(t->scales + g) *
                (snrq_lanes_of_bytes(codes[c - begin]) - snrq_lanes_load(t->zeros + g));
    }
    snrq_lanes_transpose(errors);
    snrq_byte_lanes_transpose(codes);
    for (int r = 0; r < LANES; r++) {
        snrq_beam_node *node = snrq_beam_history_newest(&b->histories[t->row + lane + r]) + k;
        memcpy(node->errors, &errors[r], sizeof node->errors);
        memcpy(node->codes, &codes[r], sizeof node->codes);
    }
}

/* Adds the strip to the histories, and its cheapest cost to the base. */
static snrq_status end_strip(snrq_beams *b, const snrq_tile *t, const snrq_panel *p, int64_t lane,
                             int64_t begin, int64_t end, snrq_beam_scratch *s)
{
    snrq_lanes least = s->costs[0];
    for (int k = 1; k < b->width; k++) least = snrq_lanes_min(least, s->costs[k]);
    for (int k = 0; k < b->width; k++)
        snrq_lanes_store(b->costs + (t->row + lane) * b->width + k * LANES, s->costs[k] - least);
    for (int r = 0; r < LANES; r++) {
        b->base[t->row + lane + r] += (double)least[r];
        for (int k = 0; k < b->width; k++) s->parents[k] = s->roots[k][r];
        SNRQ_TRY(snrq_beam_history_push(&b->histories[t->row + lane + r], b->width, s->parents));
    }
    for (int k = 0; k < b->width; k++) store_nodes(b, t, p, lane, begin, end, k, s);
    return SNRQ_OK;
}

/* The rows of one vector in one strip. */
static snrq_status search_strip(snrq_beams *b, const snrq_tile *t, const snrq_panel *p,
                                int64_t lane, int64_t begin, int64_t end, snrq_beam_scratch *s)
{
    start_strip(b, t, p, lane, begin, end, s);
    for (int64_t c = end - 1; c >= begin; c--) {
        column now = load_column(b, t, lane, p->begin + c, p->d2[c]);
        now.at = c - begin;
        now.end = end - begin;
        extend(&now, b->width, s->y + now.at * b->width, s);
        select_cheapest(&now, b->width, s);
        commit(&now, b->width, snrq_panel_strip(p, begin, c),
               snrq_lanes_load(t->target + c * SNRQ_TILE_ROWS + lane), s);
    }
    return end_strip(b, t, p, lane, begin, end, s);
}

snrq_status snrq_beams_tile(snrq_beams *b, const snrq_tile *t, const snrq_panel *p,
                            snrq_beam_scratch *s)
{
    for (int64_t lane = 0; lane < SNRQ_TILE_ROWS; lane += LANES)
        for (int64_t begin = (p->width - 1) / STRIP * STRIP; begin >= 0; begin -= STRIP) {
            int64_t end = begin + STRIP < p->width ? begin + STRIP : p->width;
            SNRQ_TRY(search_strip(b, t, p, lane, begin, end, s));
        }
    return SNRQ_OK;
}

void snrq_beams_settle(snrq_beams *b, const snrq_tile *t, int64_t decided)
{
    for (int r = 0; r < SNRQ_TILE_ROWS; r++) {
        snrq_beam_history *h = &b->histories[t->row + r];
        int settled = snrq_beam_history_settled(h);
        for (int i = 0; i < settled; i++) {
            int64_t begin = decided + (int64_t)(h->layers - 1 - i) * STRIP;
            for (int64_t c = 0; c < STRIP && begin + c < b->columns; c++) {
                b->errors[t->row * b->columns + (begin + c) * SNRQ_TILE_ROWS + r] =
                    h->nodes[i].errors[c];
                b->codes[(t->row + r) * b->columns + begin + c] = h->nodes[i].codes[c];
            }
        }
        snrq_beam_history_drop(h, settled);
    }
}

void snrq_beams_finish(const snrq_beams *b, snrq_rows *rows)
{
    for (int64_t r = 0; r < b->rows; r++) {
        const snrq_beam_history *h = &b->histories[r];
        const float *costs = b->costs + r / LANES * LANES * b->width + r % LANES;
        int best = 0;
        for (int k = 1; k < b->width; k++)
            if (costs[k * LANES] < costs[best * LANES]) best = k;
        double cost = (b->base[r] + (double)costs[best * LANES]) / b->per_unit[r];
        if (!(cost < rows->costs[r])) continue;
        rows->costs[r] = cost;
        uint8_t *codes = rows->codes + r * b->columns;
        int64_t settled = (int64_t)h->layers * STRIP;
        if (settled < b->columns)
            memcpy(codes + settled, b->codes + r * b->columns + settled,
                   (size_t)(b->columns - settled));
        int32_t node = h->first[h->layers - 1] + best;
        for (int64_t begin = 0; begin < settled; begin += STRIP, node = h->parents[node])
            for (int64_t c = 0; c < STRIP && begin + c < b->columns; c++)
                codes[begin + c] = h->nodes[node].codes[c];
    }
}
