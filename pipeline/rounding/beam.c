/* The beams of a tile, strip by strip; see beam.h. What happens in a column is in beam_column.h. */
#include "pipeline/rounding/beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/rounding/beam_column.h"

enum {
    LANES = SNRQ_LANES,
    STRIP = SNRQ_STRIP,
    /* Beams settle some columns after they were decided: that many columns behind a panel are
     * brought in strip by strip. */
    LATE = 2 * SNRQ_PANEL
};

/* A row's unit is the cost of a miss by a step of its largest scale, in the first column to decide:
 * that keeps fp32 costs in range. */
static float one_over_largest_scale(const snrq_rows *rows, int64_t row)
{
    float most = 0.0f;
    for (int64_t g = 0; g < rows->groups->count; g++)
        most = fmaxf(most, fabsf(rows->scales[row * rows->groups->count + g]));
    return 1.0f / most;
}

/* Memory for vectors, aligned. */
static snrq_status allocate_lanes(size_t count, const char *what, void **memory, snrq_lanes **out)
{
    size_t line = sizeof **out;
    SNRQ_TRY(snrq_allocate(count + 1, line, what, memory));
    *out = (snrq_lanes *)(((uintptr_t)*memory + line - 1) / line * line);
    return SNRQ_OK;
}

static snrq_status create_arrays(const snrq_rows *rows, snrq_beams *b)
{
    size_t m = (size_t)rows->rows;
    SNRQ_TRY(
        allocate_lanes(m / LANES * (size_t)b->slots, "beam costs", &b->costs_memory, &b->costs));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->base, "beam costs", &b->base));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->per_scale, "beam costs", &b->per_scale));
    SNRQ_TRY(snrq_allocate(m / LANES, sizeof *b->histories, "beam histories", &b->histories));
    for (int64_t i = 0; i < rows->rows / LANES; i++)
        SNRQ_TRY(snrq_beam_history_create(b->width, &b->histories[i]));
    return SNRQ_OK;
}

/* Where slot k of row `row` has its cost. */
static float *cost_of(const snrq_beams *b, int64_t row, int k)
{
    snrq_beam_shape s = snrq_beam_shape_of(b->width, b->slots);
    int lane = k / s.vectors * s.rows + (int)(row % s.rows);
    int64_t vector = row / s.rows * s.vectors + k % s.vectors;
    return (float *)(b->costs + vector) + lane;
}

snrq_status snrq_beams_create(const snrq_rows *rows, int beam, double d2, snrq_beams **out)
{
    snrq_beams *b = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *b, "beams", &b));
    *out = b;
    *b = (snrq_beams){.width = beam, .slots = 2, .rows = rows->rows, .d2 = d2};
    while (b->slots < beam) b->slots *= 2;
    SNRQ_TRY(create_arrays(rows, b));
    for (int64_t r = 0; r < rows->rows; r++) {
        b->per_scale[r] = one_over_largest_scale(rows, r);
        for (int k = 1; k < b->slots; k++) *cost_of(b, r, k) = INFINITY;
    }
    return SNRQ_OK;
}

void snrq_beams_destroy(snrq_beams **beams)
{
    snrq_beams *b = *beams;
    if (b == NULL) return;
    for (int64_t i = 0; i < b->rows / LANES && b->histories != NULL; i++)
        snrq_beam_history_free(&b->histories[i]);
    free(b->histories);
    free(b->per_scale);
    free(b->base);
    free(b->costs_memory);
    free(b);
    *beams = NULL;
}

snrq_status snrq_beam_scratch_create(const snrq_beams *beams, snrq_beam_scratch *s)
{
    size_t p = (size_t)beams->slots;
    size_t line = sizeof(snrq_lanes), bytes = (p * LANES + line - 1) / line;
    SNRQ_TRY(allocate_lanes(p * (1 + 4 * STRIP) + bytes, "beam scratch", &s->memory, &s->costs));
    s->y = s->costs + p;
    s->level = s->y + STRIP * p;
    s->traced = s->level + STRIP * p;
    s->from = (snrq_int_lanes *)(s->traced + STRIP * p);
    s->parents = (uint8_t *)(s->from + STRIP * p);
    return SNRQ_OK;
}

void snrq_beam_scratch_free(snrq_beam_scratch *s)
{
    free(s->sums_memory);
    free(s->memory);
    *s = (snrq_beam_scratch){0};
}

/* The rows of one vector of a tile in one strip. */
typedef struct strip {
    snrq_beams *beams; /* borrowed, as all else */
    const snrq_tile *tile;
    const snrq_panel *panel;
    int64_t lane;       /* of the tile: the first row */
    int64_t begin, end; /* columns of the panel */
    snrq_beam_scratch *scratch;
} strip;

static snrq_beam_history *history_of(const strip *s)
{
    return &s->beams->histories[(s->tile->row + s->lane) / LANES];
}

static snrq_status reserve_sums(int32_t nodes, snrq_beam_scratch *s)
{
    if (nodes <= s->sums_room) return SNRQ_OK;
    free(s->sums_memory);
    s->sums_memory = NULL;
    s->sums_room = 0;
    SNRQ_TRY(allocate_lanes((size_t)nodes, "beam scratch", &s->sums_memory, &s->sums));
    s->sums_room = nodes;
    return SNRQ_OK;
}

/* Values of the strip's columns for all slots, as known before the strip. */
SNRQ_INLINE snrq_status start_strip(snrq_beam_shape shape, const strip *s)
{
    snrq_beam_scratch *x = s->scratch;
    const snrq_beam_history *h = history_of(s);
    const float *settled = s->tile->y + s->begin * SNRQ_TILE_ROWS + s->lane;
    int width = shape.width;
    SNRQ_TRY(reserve_sums(h->capacity, x));
    snrq_beam_history_feed_back(h, snrq_panel_strip(s->panel, s->panel->u, s->begin, s->end),
                                x->sums);
    const snrq_lanes *newest = h->layers > 0 ? x->sums + snrq_beam_history_newest(h) : NULL;
    for (int q = 0; q < shape.slots; q++) {
        snrq_lanes column[LANES];
        for (int l = 0; l < LANES; l++) {
            int row = snrq_beam_row(shape, q, l), k = snrq_beam_slot(shape, q, l);
            column[l] = newest == NULL || k >= width ? x->sums[0] : newest[row * width + k];
        }
        snrq_lanes_transpose(column);
        const float *rows = settled + snrq_beam_row(shape, q, 0);
        for (int64_t c = 0; c < s->end - s->begin; c++)
            x->y[c * shape.slots + q] =
                column[c] + snrq_lanes_spread(rows + c * SNRQ_TILE_ROWS, shape.rows);
    }
    memcpy(x->costs, s->beams->costs + (s->tile->row + s->lane) / LANES * shape.slots,
           (size_t)shape.slots * sizeof *x->costs);
    return SNRQ_OK;
}

/* Levels that are looked up, or NULL. */
static const float *book_of(const snrq_rows *rows)
{
    return rows->top < SNRQ_BOOK ? rows->levels : NULL;
}

/* Column c of the panel for the rows. */
static snrq_beam_column load_column(const strip *s, int64_t c)
{
    const snrq_rows *rows = s->tile->rows;
    int64_t g = (int64_t)rows->groups->of_position[s->panel->begin + c] * SNRQ_TILE_ROWS + s->lane;
    snrq_lanes scale = snrq_lanes_load(s->tile->scales + g);
    snrq_lanes share = scale * snrq_lanes_load(s->beams->per_scale + s->tile->row + s->lane);
    snrq_lanes weight = snrq_lanes_all((float)(s->panel->d2[c] / s->beams->d2));
    snrq_beam_column out = {
        .at = (int)(c - s->begin), .top = (float)rows->top, .levels = book_of(rows)};
    snrq_lanes_store(out.scale, scale);
    snrq_lanes_store(out.steps, 1.0f / scale);
    snrq_lanes_store(out.weight, weight * share * share);
    snrq_lanes_store(out.lowest, -snrq_lanes_load(s->tile->zeros + g));
    snrq_lanes_store(out.target, snrq_lanes_load(s->tile->target + c * SNRQ_TILE_ROWS + s->lane));
    return out;
}

/* Follows every beam back through the slots it was in: levels [SNRQ_STRIP][P] of the slots as they
 * are now go to traced, the slots they had before the strip to parents. */
SNRQ_INLINE void trace_back(snrq_beam_shape shape, const strip *s)
{
    const snrq_beam_scratch *x = s->scratch;
    snrq_int_lanes at[SNRQ_MAX_BEAM];
    for (int q = 0; q < shape.slots; q++) at[q] = snrq_beam_lane_numbers(q % shape.vectors);
    for (int64_t c = 0; c < s->end - s->begin; c++)
        for (int q = 0; q < shape.slots; q++) {
            /* vectors of the same rows */
            int64_t first = c * shape.slots + q / shape.vectors * shape.vectors;
            x->traced[c * shape.slots + q] = snrq_beam_pick(shape.vectors, x->level + first, at[q]);
            at[q] = snrq_beam_pick_int(shape.vectors, x->from + first, at[q]);
        }
    const int slots = LANES / shape.rows; /* of a row in a vector */
    const snrq_int_lanes numbers = snrq_lanes_numbers();
    for (int q = 0; q < shape.slots; q++) {
        snrq_lanes by_row = snrq_lanes_permute((snrq_lanes)snrq_beam_slots(shape, at[q]),
                                               numbers % slots * shape.rows + numbers / slots);
        snrq_byte_lanes bytes = __builtin_convertvector((snrq_int_lanes)by_row, snrq_byte_lanes);
        uint8_t *parents = x->parents + snrq_beam_row(shape, q, 0) * shape.slots;
        if (shape.vectors == 1)
            memcpy(parents, &bytes, sizeof bytes);
        else
            for (int l = 0; l < LANES; l++)
                parents[l * shape.vectors + q % shape.vectors] = bytes[l];
    }
}

/* Targets, scales and zero points of the strip, by row: lanes are columns, 0 beyond the last. */
typedef struct strip_grid {
    snrq_lanes target[LANES], scale[LANES], zero[LANES];
} strip_grid;

static void load_grid(const strip *s, strip_grid *g)
{
    const snrq_tile *t = s->tile;
    *g = (strip_grid){0};
    for (int64_t c = 0; c < s->end - s->begin; c++) {
        int64_t k = s->panel->begin + s->begin + c;
        int64_t group = (int64_t)t->rows->groups->of_position[k] * SNRQ_TILE_ROWS + s->lane;
        g->target[c] = snrq_lanes_load(t->target + (s->begin + c) * SNRQ_TILE_ROWS + s->lane);
        g->scale[c] = snrq_lanes_load(t->scales + group);
        g->zero[c] = snrq_lanes_load(t->zeros + group);
    }
    snrq_lanes_transpose(g->target);
    snrq_lanes_transpose(g->scale);
    snrq_lanes_transpose(g->zero);
}

/* Writes the errors and codes of the slots of vector q to the histories' newest layers. */
SNRQ_INLINE void store_nodes(snrq_beam_shape shape, const strip *s, const strip_grid *g, int q)
{
    snrq_lanes level[STRIP] = {0};
    for (int64_t c = 0; c < s->end - s->begin; c++)
        level[c] = s->scratch->traced[c * shape.slots + q];
    snrq_lanes_transpose(level);
    const snrq_beam_history *h = history_of(s);
    int32_t newest = snrq_beam_history_newest(h);
    for (int l = 0; l < LANES; l++) {
        int k = snrq_beam_slot(shape, q, l), row = snrq_beam_row(shape, q, l);
        if (k >= shape.width) continue;
        int32_t node = newest + row * shape.width + k;
        h->errors[node] = g->target[row] -
                          g->scale[row] * snrq_level_value(shape, book_of(s->tile->rows), level[l]);
        h->codes[node] = snrq_lanes_to_bytes(level[l] + g->zero[row]);
    }
}

/* Moves the costs of each row's cheapest beam to the base. */
SNRQ_INLINE void store_costs(snrq_beam_shape shape, const strip *s)
{
    snrq_lanes *costs = s->beams->costs + (s->tile->row + s->lane) / LANES * shape.slots;
    double *base = s->beams->base + s->tile->row + s->lane;
    snrq_int_lanes cost[SNRQ_MAX_BEAM]; /* floats not below 0 are ordered as whole numbers are */
    float least[LANES];
    for (int q = 0; q < shape.slots; q++) cost[q] = (snrq_int_lanes)s->scratch->costs[q];
    snrq_beam_transpose(shape, cost);
    snrq_int_lanes lowest = snrq_int_lanes_all(INT32_MAX);
    for (int q = 0; q < shape.slots; q++) lowest = snrq_int_lanes_min(lowest, cost[q]);
    snrq_lanes_store(least, (snrq_lanes)lowest);
    for (int q = 0; q < shape.slots; q++)
        costs[q] = s->scratch->costs[q] -
                   snrq_lanes_spread(least + snrq_beam_row(shape, q, 0), shape.rows);
    for (int r = 0; r < LANES; r++) base[r] += (double)least[r];
}

/* Adds the strip to the history. What is far when the next strip begins is brought in once for a
 * panel, so it may only settle before a panel. */
static snrq_status push_layer(snrq_beam_shape shape, const strip *s)
{
    const snrq_tile *t = s->tile;
    int64_t row = t->row + s->lane, columns = t->rows->columns;
    const snrq_settled settled = {.decided = s->panel->begin + s->end,
                                  .limit = s->begin == 0 ? columns : t->near,
                                  .columns = columns,
                                  .errors = t->errors + s->lane * columns,
                                  .codes = t->rows->codes + row * columns};
    return snrq_beam_history_push(history_of(s), s->scratch->parents, shape.slots, &settled);
}

SNRQ_INLINE snrq_status search_strip(snrq_beam_shape shape, const strip *s)
{
    snrq_beam_scratch *x = s->scratch;
    SNRQ_TRY(start_strip(shape, s));
    for (int64_t c = s->end - 1; c >= s->begin; c--) {
        snrq_beam_column now = load_column(s, c);
        const float *u = snrq_panel_strip(s->panel, s->panel->u, s->begin, c);
        snrq_beam_decide(shape, &now, u, x->costs, x->y, x->level, x->from);
    }
    store_costs(shape, s);
    trace_back(shape, s);
    SNRQ_TRY(push_layer(shape, s));
    strip_grid grid;
    load_grid(s, &grid);
    for (int q = 0; q < shape.slots; q++) store_nodes(shape, s, &grid, q);
    return SNRQ_OK;
}

/* With numbers of slots that the compiler knows; and of beams, where all slots are used. */
#define SEARCH_STRIP_OF(slots)                                                                     \
    static snrq_status search_strip_of_##slots(const strip *s)                                     \
    {                                                                                              \
        if (s->tile->rows->levels != NULL)                                                         \
            return search_strip(snrq_beam_shape_of_book(s->beams->width, slots), s);               \
        if (s->beams->width == (slots)) return search_strip(snrq_beam_shape_of(slots, slots), s);  \
        return search_strip(snrq_beam_shape_of(s->beams->width, slots), s);                        \
    }
SEARCH_STRIP_OF(2)
SEARCH_STRIP_OF(4)
SEARCH_STRIP_OF(8)
SEARCH_STRIP_OF(16)
SEARCH_STRIP_OF(32)

static snrq_status search_rows(const strip *s)
{
    switch (s->beams->slots) {
    case 2:
        return search_strip_of_2(s);
    case 4:
        return search_strip_of_4(s);
    case 8:
        return search_strip_of_8(s);
    case 16:
        return search_strip_of_16(s);
    case 32:
        return search_strip_of_32(s);
    default:
        if (s->tile->rows->levels != NULL)
            return search_strip(snrq_beam_shape_of_book(s->beams->width, s->beams->slots), s);
        return search_strip(snrq_beam_shape_of(s->beams->width, s->beams->slots), s);
    }
}

snrq_status snrq_beams_tile(snrq_beams *b, snrq_tile *t, const snrq_panel *p, snrq_beam_scratch *x)
{
    strip s = {.beams = b, .tile = t, .panel = p, .scratch = x};
    snrq_tile_begin(t, p, p->begin + p->width + LATE);
    for (int64_t pair = 0; pair < SNRQ_TILE_ROWS; pair += 2 * LANES)
        for (s.begin = (p->width - 1) / STRIP * STRIP; s.begin >= 0; s.begin -= STRIP) {
            s.end = s.begin + STRIP < p->width ? s.begin + STRIP : p->width;
            snrq_tile_bring_in_pair(t, p, s.begin, s.end, pair);
            for (s.lane = pair; s.lane < pair + 2 * LANES; s.lane += LANES)
                SNRQ_TRY(search_rows(&s));
        }
    return SNRQ_OK;
}

void snrq_beams_finish(const snrq_beams *b, snrq_rows *rows)
{
    for (int64_t r = 0; r < b->rows; r++) {
        const snrq_beam_history *h = &b->histories[r / LANES];
        int best = 0;
        for (int k = 1; k < b->width; k++)
            if (*cost_of(b, r, k) < *cost_of(b, r, best)) best = k;
        double units = b->base[r] + (double)*cost_of(b, r, best),
               per_scale = (double)b->per_scale[r];
        rows->costs[r] = units * b->d2 / (per_scale * per_scale);
        int32_t node = snrq_beam_history_newest(h) + (int32_t)(r % LANES) * b->width + best;
        for (int64_t begin = 0; node != 0; node = h->parents[node], begin += STRIP) {
            int64_t width = rows->columns - begin < STRIP ? rows->columns - begin : STRIP;
            memcpy(rows->codes + r * rows->columns + begin, &h->codes[node], (size_t)width);
        }
    }
}
