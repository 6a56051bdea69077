/* The beams; see beam.h. */
#include "pipeline/beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = SNRQ_LANES, STRIP = SNRQ_STRIP };

static snrq_status create_arrays(const snrq_rows *rows, snrq_beams *b)
{
    size_t cells = (size_t)(rows->rows * rows->columns), m = (size_t)rows->rows;
    SNRQ_TRY(snrq_allocate(cells, sizeof *b->errors, "rounding errors", &b->errors));
    SNRQ_TRY(snrq_allocate(cells, 1, "settled codes", &b->codes));
    SNRQ_TRY(snrq_allocate(m * (size_t)b->width, sizeof *b->costs, "beam costs", &b->costs));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->base, "beam costs", &b->base));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->unit, "beam costs", &b->unit));
    SNRQ_TRY(snrq_allocate(m, sizeof *b->histories, "beam histories", &b->histories));
    for (int64_t r = 0; r < rows->rows; r++)
        SNRQ_TRY(snrq_beam_history_create(rows->columns, b->width, &b->histories[r]));
    return SNRQ_OK;
}

/* The cost of a miss by one step of the row's largest scale: keeps fp32 costs in range. */
static double cost_unit(const snrq_rows *rows, int64_t row, double d2)
{
    double most = 0.0;
    for (int64_t g = 0; g < rows->groups->count; g++)
        most = fmax(most, fabs((double)rows->scales[row * rows->groups->count + g]));
    return most > 0.0 ? d2 * most * most : d2;
}

snrq_status snrq_beams_create(const snrq_rows *rows, int beam, double d2, snrq_beams **out)
{
    snrq_beams *b = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *b, "beams", &b));
    *out = b;
    *b = (snrq_beams){.width = beam, .rows = rows->rows, .columns = rows->columns};
    SNRQ_TRY(create_arrays(rows, b));
    for (int64_t r = 0; r < rows->rows; r++) {
        b->unit[r] = cost_unit(rows, r, d2);
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
    free(b->unit);
    free(b->base);
    free(b->costs);
    free(b->codes);
    free(b->errors);
    free(b);
    *beams = NULL;
}

snrq_status snrq_beam_scratch_create(int beam, snrq_beam_scratch *s)
{
    size_t k = (size_t)beam, cells = k * LANES;
    float **floats[] = {&s->costs, &s->costs_next, &s->levels,    &s->low,
                        &s->high,  &s->other,      &s->other_cost};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        SNRQ_TRY(snrq_allocate(cells, sizeof(float), "beam scratch", floats[i]));
    SNRQ_TRY(snrq_allocate(cells, sizeof *s->roots, "beam scratch", &s->roots));
    SNRQ_TRY(snrq_allocate(cells * STRIP, sizeof *s->y, "beam scratch", &s->y));
    SNRQ_TRY(snrq_allocate(cells * STRIP, sizeof *s->errors, "beam scratch", &s->errors));
    SNRQ_TRY(snrq_allocate(cells * STRIP, 1, "beam scratch", &s->codes));
    SNRQ_TRY(snrq_allocate(k * STRIP, sizeof *s->values, "beam scratch", &s->values));
    SNRQ_TRY(snrq_allocate(k * STRIP, sizeof *s->values, "beam scratch", &s->values_scratch));
    return snrq_allocate(k, sizeof *s->parents, "beam scratch", &s->parents);
}

void snrq_beam_scratch_free(snrq_beam_scratch *s)
{
    free(s->costs);
    free(s->costs_next);
    free(s->levels);
    free(s->low);
    free(s->high);
    free(s->other);
    free(s->other_cost);
    free(s->roots);
    free(s->y);
    free(s->errors);
    free(s->codes);
    free(s->values);
    free(s->values_scratch);
    free(s->parents);
    *s = (snrq_beam_scratch){0};
}

/* The rows whose slots are in the scratch, at one column. */
typedef struct column_grid {
    float scale[LANES], lowest[LANES], highest[LANES]; /* levels are code - zero */
    float weight[LANES];                               /* d2 in units of the row */
} column_grid;

static void load_grid(const snrq_beams *b, const snrq_tile *t, int64_t lane, int64_t column,
                      double d2, column_grid *out)
{
    int64_t g = t->rows->groups->of_position[column];
    const float *scales = t->scales + g * SNRQ_TILE_ROWS + lane;
    const float *zeros = t->zeros + g * SNRQ_TILE_ROWS + lane;
    const double *unit = b->unit + t->row + lane;
    float top = (float)((1 << t->rows->bits) - 1);
    for (int r = 0; r < LANES; r++) {
        out->scale[r] = scales[r];
        out->lowest[r] = -zeros[r];
        out->highest[r] = top - zeros[r];
        out->weight[r] = (float)(d2 / unit[r]);
    }
}

/* The two levels around y of every beam: the nearer one extends it in its slot, the other one
 * waits.
 */
static void extend(const column_grid *g, int width, const float *restrict y, snrq_beam_scratch *s)
{
    for (int k = 0; k < width; k++) {
        const float *mine = y + k * LANES, *cost = s->costs + k * LANES;
        float *next = s->costs_next + k * LANES, *level = s->levels + k * LANES;
        float *low = s->low + k * LANES, *high = s->high + k * LANES;
        float *other = s->other + k * LANES, *other_cost = s->other_cost + k * LANES;
#pragma omp simd
        for (int r = 0; r < LANES; r++) {
            float below = __builtin_floorf(mine[r] / g->scale[r]);
            below = below > g->lowest[r] ? below : g->lowest[r];
            below = below < g->highest[r] - 1.0f ? below : g->highest[r] - 1.0f;
            float above = below + 1.0f;
            float miss_below = mine[r] - g->scale[r] * below;
            float miss_above = mine[r] - g->scale[r] * above;
            float cost_below = snrq_madd(g->weight[r] * miss_below, miss_below, cost[r]);
            float cost_above = snrq_madd(g->weight[r] * miss_above, miss_above, cost[r]);
            bool down = cost_below <= cost_above;
            next[r] = down ? cost_below : cost_above;
            level[r] = down ? below : above;
            other_cost[r] = down ? cost_above : cost_below;
            other[r] = down ? above : below;
            low[r] = below;
            high[r] = above;
        }
    }
}

/* The most expensive extension of each row and the cheapest level that waits. */
typedef struct contest {
    float worst[LANES], best[LANES];
    int32_t worst_slot[LANES], best_slot[LANES];
} contest;

static void compare(int width, const snrq_beam_scratch *s, contest *out)
{
    contest c;
    for (int r = 0; r < LANES; r++) {
        c.worst[r] = s->costs_next[r];
        c.best[r] = s->other_cost[r];
        c.worst_slot[r] = c.best_slot[r] = 0;
    }
    for (int32_t k = 1; k < width; k++) {
        const float *next = s->costs_next + k * LANES, *other = s->other_cost + k * LANES;
#pragma omp simd
        for (int r = 0; r < LANES; r++) {
            c.worst_slot[r] = next[r] > c.worst[r] ? k : c.worst_slot[r];
            c.worst[r] = next[r] > c.worst[r] ? next[r] : c.worst[r];
            c.best_slot[r] = other[r] < c.best[r] ? k : c.best_slot[r];
            c.best[r] = other[r] < c.best[r] ? other[r] : c.best[r];
        }
    }
    *out = c;
}

static float cost_of(const column_grid *g, int r, float level, float y, float cost)
{
    if (level < g->lowest[r] || level > g->highest[r]) return INFINITY;
    float miss = y - g->scale[r] * level;
    return snrq_madd(g->weight[r] * miss, miss, cost);
}

/* Lane r: the waiting level of beam `in` takes slot `out`; beam `in` gets its next level to wait.
 * The slot of `in` is not lost itself in this step: nothing that waits is cheaper than what was
 * taken from it. `end`: columns of the strip. */
static void take_slot(const column_grid *g, int width, int64_t c, int64_t end, int r, int32_t in,
                      int32_t out, snrq_beam_scratch *s)
{
    int64_t from = in * LANES + r, to = out * LANES + r, stride = (int64_t)width * LANES;
    s->levels[to] = s->other[from];
    s->costs_next[to] = s->other_cost[from];
    s->other_cost[to] = INFINITY;
    s->roots[to] = s->roots[from];
    for (int64_t i = 0; i <= c; i++) s->y[i * stride + to] = s->y[i * stride + from];
    for (int64_t i = c + 1; i < end; i++) {
        s->errors[i * stride + to] = s->errors[i * stride + from];
        s->codes[i * stride + to] = s->codes[i * stride + from];
    }
    float y = s->y[c * stride + from];
    float below = cost_of(g, r, s->low[from] - 1.0f, y, s->costs[from]);
    float above = cost_of(g, r, s->high[from] + 1.0f, y, s->costs[from]);
    s->other_cost[from] = below <= above ? below : above;
    s->other[from] = below <= above ? --s->low[from] : ++s->high[from];
}

/* Gives slots to waiting levels until none is cheaper than the extensions in the slots. */
static void select_cheapest(const column_grid *g, int width, int64_t c, int64_t end,
                            snrq_beam_scratch *s)
{
    int lanes[LANES], count;
    do {
        contest now;
        compare(width, s, &now);
        count = 0;
        for (int r = 0; r < LANES; r++) {
            lanes[count] = r;
            count += now.best[r] < now.worst[r];
        }
        for (int i = 0; i < count; i++) {
            int r = lanes[i];
            take_slot(g, width, c, end, r, now.best_slot[r], now.worst_slot[r], s);
        }
    } while (count > 0);
}

/* Errors, codes and costs of the extensions, and what they add to the strip's columns to come. */
static void commit(const column_grid *g, int width, int64_t c, const float *u,
                   const float *restrict target, snrq_beam_scratch *s)
{
    int64_t stride = (int64_t)width * LANES;
    float *restrict errors = s->errors + c * stride;
    uint8_t *restrict codes = s->codes + c * stride;
    for (int k = 0; k < width; k++) {
        const float *level = s->levels + k * LANES;
#pragma omp simd
        for (int r = 0; r < LANES; r++) {
            errors[k * LANES + r] = target[r] - g->scale[r] * level[r];
            codes[k * LANES + r] = (uint8_t)(int)(level[r] - g->lowest[r]);
        }
    }
    for (int64_t i = 0; i < c; i++) {
        float *restrict y = s->y + i * stride;
#pragma omp simd
        for (int64_t r = 0; r < stride; r++) y[r] = snrq_madd(errors[r], u[i], y[r]);
    }
    float *swap = s->costs;
    s->costs = s->costs_next;
    s->costs_next = swap;
}

/* Values of the strip's columns for all slots, as known before the strip. lane: of the tile. */
static void start_strip(const snrq_beams *b, const snrq_tile *t, const snrq_panel *p, int64_t lane,
                        int64_t begin, int64_t end, snrq_beam_scratch *s)
{
    int64_t stride = (int64_t)b->width * LANES;
    const float *u = p->u + end * SNRQ_BLOCK + begin;
    memset(s->values, 0, (size_t)b->width * STRIP * sizeof *s->values);
    for (int r = 0; r < LANES; r++) {
        snrq_beam_history_feed_back(&b->histories[t->row + lane + r], u, s->values,
                                    s->values_scratch);
        for (int64_t c = 0; c < end - begin; c++) {
            float settled = t->y[(begin + c) * SNRQ_TILE_ROWS + lane + r];
            for (int k = 0; k < b->width; k++)
                s->y[c * stride + k * LANES + r] = settled + s->values[k * STRIP + c];
        }
    }
    for (int32_t k = 0; k < b->width; k++)
        for (int r = 0; r < LANES; r++) s->roots[k * LANES + r] = k;
    memcpy(s->costs, b->costs + (t->row + lane) * b->width, (size_t)stride * sizeof *s->costs);
}

/* Adds the strip to the histories, and its cheapest cost to the base. */
static snrq_status end_strip(snrq_beams *b, const snrq_tile *t, int64_t lane, int64_t width,
                             snrq_beam_scratch *s)
{
    int64_t stride = (int64_t)b->width * LANES;
    float *costs = b->costs + (t->row + lane) * b->width;
    for (int r = 0; r < LANES; r++) {
        float least = s->costs[r];
        snrq_beam_node *nodes = NULL;
        for (int k = 0; k < b->width; k++) {
            float cost = s->costs[k * LANES + r];
            least = cost < least ? cost : least;
            s->parents[k] = s->roots[k * LANES + r];
        }
        b->base[t->row + lane + r] += (double)least;
        SNRQ_TRY(
            snrq_beam_history_push(&b->histories[t->row + lane + r], b->width, s->parents, &nodes));
        for (int k = 0; k < b->width; k++) {
            costs[k * LANES + r] = s->costs[k * LANES + r] - least;
            for (int64_t c = 0; c < STRIP; c++) {
                int64_t at = c * stride + k * LANES + r;
                nodes[k].errors[c] = c < width ? s->errors[at] : 0.0f;
                nodes[k].codes[c] = c < width ? s->codes[at] : 0;
            }
        }
    }
    return SNRQ_OK;
}

snrq_status snrq_beams_tile(snrq_beams *b, const snrq_tile *t, const snrq_panel *p,
                            snrq_beam_scratch *s)
{
    column_grid grid;
    for (int64_t begin = (p->width - 1) / STRIP * STRIP; begin >= 0; begin -= STRIP) {
        int64_t end = begin + STRIP < p->width ? begin + STRIP : p->width;
        for (int64_t lane = 0; lane < SNRQ_TILE_ROWS; lane += LANES) {
            start_strip(b, t, p, lane, begin, end, s);
            for (int64_t c = end - begin - 1; c >= 0; c--) {
                int64_t at = begin + c;
                load_grid(b, t, lane, p->begin + at, p->d2[at], &grid);
                extend(&grid, b->width, s->y + c * b->width * LANES, s);
                select_cheapest(&grid, b->width, c, end - begin, s);
                commit(&grid, b->width, c, p->u + at * SNRQ_BLOCK + begin,
                       t->target + at * SNRQ_TILE_ROWS + lane, s);
            }
            SNRQ_TRY(end_strip(b, t, lane, end - begin, s));
        }
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
        double cost = b->unit[r] * (b->base[r] + (double)costs[best * LANES]);
        if (!(cost < rows->costs[r])) continue;
        rows->costs[r] = cost;
        uint8_t *codes = rows->codes + r * b->columns;
        int64_t settled = (int64_t)h->layers * STRIP;
        if (settled < b->columns)
            memcpy(codes + settled, b->codes + r * b->columns + settled,
                   (size_t)(b->columns - settled));
        int32_t node = h->first[h->layers - 1] + best;
        for (int64_t begin = 0; begin < settled; begin += STRIP, node = h->nodes[node].parent)
            for (int64_t c = 0; c < STRIP && begin + c < b->columns; c++)
                codes[begin + c] = h->nodes[node].codes[c];
    }
}
