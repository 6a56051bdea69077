/* Fitting scales and minima that a format can store; see format_grid.h. */
#include "pipeline/rounding/format_grid.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum {
    RANGES = 28, /* shares of the full range: 1.04, 1.02, ... 0.5 */
    SHARED = 12, /* numbers of a super-block that are tried */
    MOST_GROUP = 32,
    MOST_GROUPS = 16 /* of a super-block */
};

/* Values of a group. */
typedef struct sample {
    float x[MOST_GROUP], weight[MOST_GROUP];
    int count;
} sample;

/* A group's scale and minimum, and its levels: from `low` to `high` in steps of 1, or a code book.
 */
typedef struct grid {
    float scale, minimum, low, high;
    const snrq_weight_format *format;
    float tensor; /* what the tensor's scales are multiples of, or 1 */
} grid;

/* The level of each value, as the search finds it. */
static inline void find_levels(const sample *s, const grid *g, float *level)
{
    const snrq_weight_format *f = g->format;
    float inverse[MOST_GROUP];
#pragma omp simd
    for (int i = 0; i < s->count; i++) inverse[i] = (s->x[i] + g->minimum) / g->scale;
    if (f->levels == NULL) {
#pragma omp simd
        for (int i = 0; i < s->count; i++) {
            float near = __builtin_nearbyintf(inverse[i]);
            near = near > g->low ? near : g->low;
            level[i] = near < g->high ? near : g->high;
        }
        return;
    }
    for (int i = 0; i < s->count; i++) level[i] = f->levels[0];
    for (int k = 0; k < f->top; k++) {
        float middle = 0.5f * (f->levels[k] + f->levels[k + 1]), next = f->levels[k + 1];
#pragma omp simd
        for (int i = 0; i < s->count; i++) level[i] = inverse[i] > middle ? next : level[i];
    }
}

static float error_of(const sample *s, const grid *g)
{
    float level[MOST_GROUP], sum = 0.0f;
    find_levels(s, g, level);
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < s->count; i++) {
        float miss = s->x[i] + g->minimum - g->scale * level[i];
        sum += s->weight[i] * miss * miss;
    }
    return sum;
}

/* The best scale, and minimum if the format has one, for the codes that a grid gives. False: there
 * is none that can be used. */
static bool solve(const sample *s, const snrq_weight_format *f, grid *g)
{
    float level[MOST_GROUP], ww = 0, wl = 0, wll = 0, wx = 0, wlx = 0;
    find_levels(s, g, level);
#pragma omp simd reduction(+ : ww, wl, wll, wx, wlx)
    for (int i = 0; i < s->count; i++) {
        float w = s->weight[i];
        ww += w;
        wl += w * level[i];
        wll += w * level[i] * level[i];
        wx += w * s->x[i];
        wlx += w * level[i] * s->x[i];
    }
    double determinant = (double)ww * (double)wll - (double)wl * (double)wl;
    float scale = wlx / wll, minimum = 0.0f;
    if (f->minimum.present && determinant > 0.0) {
        scale = (float)(((double)ww * (double)wlx - (double)wl * (double)wx) / determinant);
        minimum = (float)(((double)wl * (double)wlx - (double)wll * (double)wx) / determinant);
    }
    if (f->minimum.shared && minimum < 0.0f) {
        scale = wlx / wll;
        minimum = 0.0f;
    }
    if (!isfinite(scale) || !isfinite(minimum) || scale == 0.0f) return false;
    if ((f->minimum.present || f->scale.tensor) && scale < 0.0f) return false;
    g->scale = scale;
    g->minimum = minimum;
    return true;
}

static void range_of(const sample *s, const snrq_weight_format *f, float *lo, float *hi)
{
    *lo = *hi = f->minimum.present && !f->minimum.shared ? s->x[0] : 0.0f;
    for (int i = 0; i < s->count; i++) {
        *lo = s->x[i] < *lo ? s->x[i] : *lo;
        *hi = s->x[i] > *hi ? s->x[i] : *hi;
    }
}

/* Of a group of zeros: 1, or where that cannot be stored or no level is 0 the smallest one. */
static float no_scale(const snrq_weight_format *f, float tensor)
{
    if (f->scale.tensor) return snrq_stored_number(&f->scale, tensor, FLT_MIN);
    for (int k = 0; f->levels != NULL && k <= f->top; k++)
        if (f->levels[k] == 0.0f) return 1.0f;
    return f->levels != NULL ? 0x1p-24f : 1.0f;
}

/* The grid of a share of the range. Without a minimum, the value of largest magnitude is the level
 * of largest magnitude: that may take a negative scale; the level at the other end if `turned`. */
static grid grid_of_range(const snrq_weight_format *f, float tensor, float lo, float hi,
                          float share, bool turned)
{
    const int zero = snrq_weight_format_zero(f);
    grid g = {.format = f,
              .tensor = tensor,
              .low = f->levels != NULL ? f->levels[0] : -(float)zero,
              .high = f->levels != NULL ? f->levels[f->top] : (float)(f->top - zero)};
    if (f->minimum.present) {
        g.scale = (hi - lo) * share / g.high;
        g.minimum = -lo * share;
    } else if (f->scale.power || f->scale.tensor) {
        g.scale = fmaxf(-lo, hi) * share / g.high;
    } else {
        float most = -lo >= hi ? lo : hi;
        g.scale = most * share / (turned ? g.high : g.low);
    }
    if (g.scale == 0.0f) g.scale = no_scale(f, tensor);
    return g;
}

static void offer(const sample *s, const grid *g, grid *best, float *least)
{
    float error = error_of(s, g);
    if (!(error < *least)) return;
    *least = error;
    *best = *g;
}

/* A group by itself, as if any number could be stored. */
static grid fit_alone(const sample *s, const snrq_weight_format *f, float tensor, bool search)
{
    float lo, hi, least = INFINITY;
    const int ends = f->minimum.present || f->scale.tensor ? 1 : 2;
    range_of(s, f, &lo, &hi);
    grid best = grid_of_range(f, tensor, lo, hi, 1.0f, false);
    if (!search || lo == hi || f->scale.power) return best;
    for (int turned = 0; turned < ends; turned++)
        for (int i = 0; i < RANGES; i++) {
            grid g = grid_of_range(f, tensor, lo, hi, 1.04f - 0.02f * (float)i, turned != 0);
            for (int again = 0; again < 2 && solve(s, f, &g); again++) offer(s, &g, &best, &least);
        }
    return best;
}

/* An integer of a set next to a number, rounded down or up. A scale is never 0: its values can be
 * zero without. */
static float integer_near(const snrq_stored_numbers *set, float number, bool up, bool nonzero)
{
    float integer = up ? ceilf(number) : floorf(number);
    if (nonzero && integer == 0.0f) integer = number < 0.0f ? -1.0f : 1.0f;
    if (integer < (float)set->lowest) integer = (float)set->lowest;
    if (integer > (float)set->highest) integer = (float)set->highest;
    return integer;
}

/* The i-th number to try as what a super-block's values share, from the smallest on; 0 or infinite:
 * it cannot be stored. `most` is the value of largest magnitude. */
static float shared_number(const snrq_stored_numbers *set, float most, int i)
{
    int limit = most < 0.0f ? -set->lowest : set->highest;
    return snrq_round_to(SNRQ_F16,
                         fabsf(most) / ((float)limit * (1.0f - (float)i * 0.5f / (float)SHARED)));
}

static float largest(int64_t count, const float *values)
{
    float most = 0.0f;
    for (int64_t i = 0; i < count; i++)
        if (fabsf(values[i]) > fabsf(most)) most = values[i];
    return most;
}

/* The groups of a super-block. */
typedef struct block {
    const snrq_weight_format *format;
    int groups;
    sample sample[MOST_GROUPS];
    grid grid[MOST_GROUPS];
} block;

/* Scales, or minima, become multiples of `shared`, each rounded as is better. Returns the error. */
static float round_numbers(const block *b, bool minima, float shared, grid *out)
{
    const snrq_stored_numbers *set = minima ? &b->format->minimum : &b->format->scale;
    float sum = 0.0f;
    for (int i = 0; i < b->groups; i++) {
        float least = INFINITY, number = minima ? b->grid[i].minimum : b->grid[i].scale;
        for (int up = 0; up < 2; up++) {
            grid g = b->grid[i];
            *(minima ? &g.minimum : &g.scale) =
                shared * integer_near(set, number / shared, up != 0, !minima);
            offer(&b->sample[i], &g, &out[i], &least);
        }
        sum += least;
    }
    return sum;
}

/* Chooses what scales, or minima, share. False: their numbers are too small for it. */
static bool share_numbers(block *b, bool minima, bool search, float *shared)
{
    const snrq_stored_numbers *set = minima ? &b->format->minimum : &b->format->scale;
    float values[MOST_GROUPS], least = INFINITY;
    grid best[MOST_GROUPS], tried[MOST_GROUPS];
    for (int i = 0; i < b->groups; i++) values[i] = minima ? b->grid[i].minimum : b->grid[i].scale;
    float most = largest(b->groups, values);
    *shared = 0.0f;
    for (int i = 0; i < (search ? SHARED : 1) && most != 0.0f; i++) {
        float number = shared_number(set, most, i);
        if (i == 0 && isinf(number)) { /* fit_block() refuses it */
            *(minima ? &b->grid[0].minimum : &b->grid[0].scale) = *shared = number;
            return true;
        }
        if (number == 0.0f || isinf(number)) continue;
        float error = round_numbers(b, minima, number, tried);
        if (!(error < least)) continue;
        least = error;
        *shared = number;
        for (int g = 0; g < b->groups; g++) best[g] = tried[g];
    }
    for (int g = 0; *shared != 0.0f && g < b->groups; g++) b->grid[g] = best[g];
    return *shared != 0.0f;
}

/* With the numbers that are shared, the neighbours of each group's integers. */
static void polish(block *b, float scale, float minimum)
{
    const snrq_weight_format *f = b->format;
    for (int i = 0; i < b->groups; i++) {
        grid best = b->grid[i];
        float least = error_of(&b->sample[i], &best);
        for (int ds = -1; ds <= 1; ds++)
            for (int dm = f->minimum.shared ? -1 : 0; dm <= (f->minimum.shared ? 1 : 0); dm++) {
                grid g = b->grid[i];
                float s = rintf(g.scale / scale) + (float)ds;
                float m = minimum > 0.0f ? rintf(g.minimum / minimum) + (float)dm : 0.0f;
                if (s == 0.0f || s < (float)f->scale.lowest || s > (float)f->scale.highest ||
                    m < 0.0f || m > (float)f->minimum.highest)
                    continue;
                g.scale = scale * s;
                g.minimum = minimum * m;
                offer(&b->sample[i], &g, &best, &least);
            }
        b->grid[i] = best;
    }
}

/* Best minima for scales that are fixed. */
static void settle_minima(block *b)
{
    for (int i = 0; i < b->groups; i++) {
        grid g = b->grid[i];
        float level[MOST_GROUP], sum = 0.0f, all = 0.0f, least = error_of(&b->sample[i], &g);
        find_levels(&b->sample[i], &g, level);
        for (int k = 0; k < b->sample[i].count; k++) {
            float x = b->sample[i].x[k], w = b->sample[i].weight[k];
            sum += w * (g.scale * level[k] - x);
            all += w;
        }
        g.minimum = sum > 0.0f && all > 0.0f ? sum / all : 0.0f;
        offer(&b->sample[i], &g, &b->grid[i], &least);
    }
}

/* Nothing but zeros: what is too small to be stored becomes that, as in quant_grid.c. */
static void make_zero(block *b)
{
    for (int i = 0; i < b->groups; i++) {
        b->grid[i].scale = no_scale(b->format, 1.0f);
        b->grid[i].minimum = 0.0f;
    }
}

static void store_block(block *b, bool search)
{
    const snrq_weight_format *f = b->format;
    float scale = 0.0f, minimum = 0.0f;
    if (!share_numbers(b, false, search, &scale)) {
        make_zero(b);
        return;
    }
    if (f->minimum.present) {
        if (search && isfinite(scale)) settle_minima(b);
        if (!share_numbers(b, true, search, &minimum))
            for (int i = 0; i < b->groups; i++) b->grid[i].minimum = 0.0f;
    }
    for (int round = 0; search && round < 2 && isfinite(scale + minimum); round++)
        polish(b, scale, minimum);
}

/* A group whose scale is a power of 2: the nearest ones are tried. */
static void store_power(block *b, bool search)
{
    const snrq_weight_format *f = b->format;
    grid *g = &b->grid[0], best;
    float least = INFINITY, near = snrq_stored_number(&f->scale, 1.0f, g->scale);
    best = *g;
    best.scale = near;
    for (int i = -2; i <= 1 && search; i++) {
        grid other = *g;
        other.scale = snrq_stored_number(&f->scale, 1.0f, ldexpf(near, i));
        if (isfinite(other.scale)) offer(&b->sample[0], &other, &best, &least);
    }
    *g = best;
}

/* The neighbours of a scale of few bits. */
static void try_neighbours(const sample *s, grid *best, float *least)
{
    const grid middle = *best;
    for (int i = -3; i <= 3; i++) {
        grid g = middle;
        g.scale = snrq_stored_number(&g.format->scale, g.tensor,
                                     middle.scale * (1.0f + (float)i / 16.0f));
        offer(s, &g, best, least);
    }
}

/* A group that shares nothing: scale and minimum, one rounded before the other is settled. */
static void store_group(block *b, bool search)
{
    const snrq_weight_format *f = b->format;
    grid *g = &b->grid[0], best;
    float least = INFINITY, scale = snrq_stored_number(&f->scale, g->tensor, g->scale);
    g->scale = scale != 0.0f ? scale : no_scale(f, g->tensor);
    g->minimum = snrq_round_to(SNRQ_F16, g->minimum);
    best = *g;
    offer(&b->sample[0], g, &best, &least);
    for (int i = 0; search && i < 3; i++) {
        grid other = best;
        if (!solve(&b->sample[0], f, &other)) break;
        other.scale = snrq_stored_number(&f->scale, g->tensor, other.scale);
        other.minimum = snrq_round_to(SNRQ_F16, other.minimum);
        if (other.scale != 0.0f && isfinite(other.scale) && isfinite(other.minimum))
            offer(&b->sample[0], &other, &best, &least);
    }
    if (search && f->scale.tensor) try_neighbours(&b->sample[0], &best, &least);
    *g = best;
}

static snrq_status fit_block(const snrq_rule *rule, float tensor, block *b)
{
    const snrq_weight_format *f = b->format;
    bool search = rule->grid != SNRQ_QUANT_GRID_MINMAX;
    for (int i = 0; i < b->groups; i++) b->grid[i] = fit_alone(&b->sample[i], f, tensor, search);
    if (f->scale.shared)
        store_block(b, search);
    else if (f->scale.power)
        store_power(b, search);
    else
        store_group(b, search);
    for (int i = 0; i < b->groups; i++)
        if (!isfinite(b->grid[i].scale) || !isfinite(b->grid[i].minimum)) {
            float lo, hi;
            range_of(&b->sample[i], f, &lo, &hi);
            return snrq_fail(SNRQ_BAD_DATA,
                             "a group's values reach from %g to %g, too far for the scales of %s",
                             (double)lo, (double)hi, f->name);
        }
    return SNRQ_OK;
}

snrq_status snrq_format_grid_fit(const snrq_rule *rule, const snrq_groups *groups,
                                 const float *target, const double *d2, float tensor, float *scales,
                                 float *minima)
{
    const snrq_weight_format *f = rule->format;
    block *b = NULL;
    int step = (int)(f->super_block / f->group);
    snrq_status status = snrq_allocate(1, sizeof *b, "block of a format", &b);
    for (int64_t first = 0; status == SNRQ_OK && first < groups->count; first += step) {
        b->format = f;
        b->groups = step;
        for (int i = 0; i < step; i++) {
            const int32_t *member = groups->members + groups->first[first + i];
            sample *s = &b->sample[i];
            s->count = (int)f->group;
            for (int k = 0; k < s->count; k++) {
                s->x[k] = target[member[k]];
                s->weight[k] = rule->grid == SNRQ_QUANT_GRID_HESSIAN ? (float)d2[member[k]] : 1.0f;
            }
        }
        status = fit_block(rule, tensor, b);
        for (int i = 0; i < step; i++) {
            scales[first + i] = b->grid[i].scale;
            minima[first + i] = b->grid[i].minimum;
        }
    }
    free(b);
    return status;
}

/* One super-block. */
static bool store_nearest(const snrq_stored_numbers *set, int64_t count, const double *weights,
                          bool nonzero, float *values)
{
    float most = largest(count, values), best = 0.0f;
    double least = INFINITY;
    if (most == 0.0f) return !nonzero;
    for (int i = 0; i < SHARED; i++) {
        float shared = shared_number(set, most, i);
        double error = 0.0;
        if (shared == 0.0f || isinf(shared)) continue;
        for (int64_t g = 0; g < count; g++) {
            float integer = integer_near(set, rintf(values[g] / shared), false, nonzero);
            double miss = (double)(shared * integer - values[g]);
            error += weights[g] * miss * miss;
        }
        if (error < least) best = shared;
        least = error < least ? error : least;
    }
    if (best == 0.0f) return false;
    for (int64_t g = 0; g < count; g++)
        values[g] = best * integer_near(set, rintf(values[g] / best), false, nonzero);
    return true;
}

bool snrq_format_store(const snrq_weight_format *f, const snrq_stored_numbers *set, float tensor,
                       int64_t groups, const double *weights, bool nonzero, float *values)
{
    int64_t step = set->shared ? f->super_block / f->group : 1;
    for (int64_t g = 0; g < groups; g += step) {
        if (set->shared) {
            if (!store_nearest(set, step, weights + g, nonzero, values + g)) return false;
            continue;
        }
        values[g] = snrq_stored_number(set, tensor, values[g]);
        if (!isfinite(values[g]) || (nonzero && values[g] == 0.0f)) return false;
    }
    return true;
}
