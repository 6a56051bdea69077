/* Internal to the beams: one column for the slots of SNRQ_LANES rows; see beam.h for P, R and V.
 *
 * An extension is a level (a grid value over the scale: code - zero) that a beam takes; the value
 * to round is in the same steps. Nearly always the K cheapest extensions of a row are among those
 * by the two levels next to the value, which makes 2 K of them: they are found by sorting, with
 * rows as lanes and slots as vectors, without a branch. Where a third level may compete, other
 * levels take slots one after the other.
 */
#ifndef SNRQ_BEAM_COLUMN_H
#define SNRQ_BEAM_COLUMN_H

#include <math.h>

#include "mpi/algebra/weight_format.h"
#include "pipeline/rounding/beam_shape.h"

/* A column for SNRQ_LANES rows. */
typedef struct snrq_beam_column {
    int at;                                     /* in the strip */
    float top;                                  /* highest code */
    float scale[SNRQ_LANES], steps[SNRQ_LANES]; /* steps = 1 / scale */
    float weight[SNRQ_LANES];                   /* of a miss by one step, in units of the row */
    float lowest[SNRQ_LANES];                   /* level: minus zero point */
    float target[SNRQ_LANES];
    const float *levels; /* [SNRQ_BOOK] of a code book: a level is then its place there; or NULL:
                            integers, and if the shape has a book, E4M3 */
} snrq_beam_column;

/* What the beams of the rows can become: costs and levels of their extensions; [P] each. */
typedef struct snrq_extensions {
    snrq_lanes cost_below[SNRQ_MAX_BEAM], below[SNRQ_MAX_BEAM]; /* the level below the value */
    snrq_lanes cost_above[SNRQ_MAX_BEAM], above[SNRQ_MAX_BEAM];
    snrq_lanes third[SNRQ_MAX_BEAM];                      /* what any other level costs at least */
    snrq_lanes kept[SNRQ_MAX_BEAM], level[SNRQ_MAX_BEAM]; /* the K cheapest */
    snrq_int_lanes from[SNRQ_MAX_BEAM];                   /* and lanes of the beams they extend */
} snrq_extensions;

/* Of the rows of vector i. */
SNRQ_INLINE snrq_lanes snrq_of_rows(snrq_beam_shape s, const float *rows, int i)
{
    return snrq_lanes_spread(rows + i / s.vectors * s.rows, s.rows);
}

SNRQ_INLINE snrq_lanes snrq_extension_cost(snrq_lanes weight, snrq_lanes cost, snrq_lanes miss)
{
    return snrq_lanes_madd(weight * miss, miss, cost);
}

/* E4M3 by its place among its numbers. The bits of its magnitude, exponent and fraction, are those
 * of an fp32 number that is 2^-120 times as large. */
SNRQ_INLINE snrq_lanes snrq_e4m3_value(snrq_lanes place)
{
    snrq_lanes number = place - (float)SNRQ_E4M3_ZERO;
    snrq_int_lanes bits =
        __builtin_convertvector(snrq_lanes_magnitude(number), snrq_int_lanes) * (1 << 20);
    snrq_lanes value = (snrq_lanes)bits * 0x1p120f;
    return snrq_lanes_select(snrq_lanes_less(number, snrq_lanes_all(0.0f)), -value, value);
}

/* The place of the E4M3 number that is not above a value; from 0 to the last but one. */
SNRQ_INLINE snrq_lanes snrq_e4m3_below(snrq_lanes value)
{
    const snrq_lanes most = snrq_lanes_all(448.0f), one = snrq_lanes_all(1.0f);
    snrq_lanes within = snrq_lanes_max(snrq_lanes_min(value, most), -most);
    snrq_int_lanes bits = (snrq_int_lanes)(snrq_lanes_magnitude(within) * 0x1p-120f) / (1 << 20);
    snrq_lanes number = __builtin_convertvector(bits, snrq_lanes), zero = snrq_lanes_all(0.0f);
    number = snrq_lanes_select(snrq_lanes_less(within, zero), -number, number);
    snrq_lanes place = number + (float)SNRQ_E4M3_ZERO;
    place -= snrq_lanes_select(snrq_lanes_less(within, snrq_e4m3_value(place)), one, zero);
    return snrq_lanes_min(place, snrq_lanes_all((float)(SNRQ_E4M3_LEVELS - 2)));
}

/* Levels in scales. level: from 0 to SNRQ_BOOK - 1 of a code book; of others, anything comes out.
 */
SNRQ_INLINE snrq_lanes snrq_level_value(snrq_beam_shape s, const float *levels, snrq_lanes level)
{
    enum { VECTORS = SNRQ_BOOK / SNRQ_LANES };
    snrq_lanes book[VECTORS];
    if (!s.book) return level;
    if (levels == NULL) return snrq_e4m3_value(level);
    for (int v = 0; v < VECTORS; v++) book[v] = snrq_lanes_load(levels + v * SNRQ_LANES);
    snrq_int_lanes place = __builtin_convertvector(level, snrq_int_lanes);
    return snrq_beam_pick(VECTORS, book, place & (SNRQ_BOOK - 1));
}

/* The level of a code book that is not above a value; the lowest, and the last but one at most. */
SNRQ_INLINE snrq_lanes snrq_level_below(const snrq_beam_column *column, snrq_lanes value)
{
    snrq_lanes below = {0};
    if (column->levels == NULL) return snrq_e4m3_below(value);
    for (int k = 1; k < SNRQ_BOOK - 1; k++)
        below += snrq_lanes_select(snrq_lanes_less(value, snrq_lanes_all(column->levels[k])),
                                   snrq_lanes_all(0.0f), snrq_lanes_all(1.0f));
    return snrq_lanes_min(below, snrq_lanes_all(column->top - 1.0f));
}

/* snrq_extend() with a code book. */
SNRQ_INLINE void snrq_extend_book(snrq_beam_shape s, const snrq_beam_column *column, int i,
                                  snrq_lanes cost, snrq_lanes y, snrq_extensions *e)
{
    const snrq_lanes none = snrq_lanes_all(INFINITY), one = snrq_lanes_all(1.0f);
    snrq_lanes weight = snrq_of_rows(s, column->weight, i);
    snrq_lanes value = y * snrq_of_rows(s, column->steps, i);
    snrq_lanes below = snrq_level_below(column, value), above = below + one;
    snrq_lanes lower = value - snrq_level_value(s, column->levels, below - one);
    snrq_lanes higher = value - snrq_level_value(s, column->levels, above + one);
    e->cost_below[i] =
        snrq_extension_cost(weight, cost, value - snrq_level_value(s, column->levels, below));
    e->cost_above[i] =
        snrq_extension_cost(weight, cost, value - snrq_level_value(s, column->levels, above));
    lower = snrq_lanes_select(snrq_lanes_less(below, one), none,
                              snrq_extension_cost(weight, cost, lower));
    higher = snrq_lanes_select(snrq_lanes_less(above, snrq_lanes_all(column->top)),
                               snrq_extension_cost(weight, cost, higher), none);
    e->third[i] = snrq_lanes_min(lower, higher);
    e->below[i] = below;
    e->above[i] = above;
}

/* Extends vector i of the beams. cost, y: of these beams. */
SNRQ_INLINE void snrq_extend(snrq_beam_shape s, const snrq_beam_column *column, int i,
                             snrq_lanes cost, snrq_lanes y, snrq_extensions *e)
{
    if (s.book) {
        snrq_extend_book(s, column, i, cost, y, e);
        return;
    }
    snrq_lanes weight = snrq_of_rows(s, column->weight, i);
    snrq_lanes lowest = snrq_of_rows(s, column->lowest, i);
    snrq_lanes value = y * snrq_of_rows(s, column->steps, i), below = snrq_lanes_floor(value);
    below = snrq_lanes_max(snrq_lanes_min(below, lowest + (column->top - 1.0f)), lowest);
    snrq_lanes miss_below = value - below, miss_above = miss_below - 1.0f;
    snrq_lanes nearest =
        snrq_lanes_min(snrq_lanes_magnitude(miss_below), snrq_lanes_magnitude(miss_above));
    e->cost_below[i] = snrq_extension_cost(weight, cost, miss_below);
    e->cost_above[i] = snrq_extension_cost(weight, cost, miss_above);
    e->third[i] = snrq_extension_cost(weight, cost, nearest + 1.0f);
    e->below[i] = below;
    e->above[i] = below + 1.0f;
}

/* The bits of a key that are no cost. */
SNRQ_INLINE int snrq_key_bits(snrq_beam_shape s)
{
    return 2 * snrq_beam_last(s) + 1;
}

/* Costs (not negative) with the number of their lane as last bits, and before them one that says
 * which list they are of, 0 below the value or 1 above it: whole numbers that are ordered as the
 * costs are. This is where ties are broken: of equal costs the list below goes first, then the
 * lower number. Number and list are the index of the extension in both lists together; see
 * snrq_keep. */
SNRQ_INLINE snrq_int_lanes snrq_extension_key(snrq_beam_shape s, int v, int list, snrq_lanes cost)
{
    snrq_int_lanes number = snrq_beam_lane_numbers(v) + list * (snrq_beam_last(s) + 1);
    snrq_int_lanes key = ((snrq_int_lanes)cost & ~snrq_key_bits(s)) | number;
    if (s.width < s.slots) key |= snrq_beam_beyond(s, v) & INT32_MAX; /* come last */
    return key;
}

/* Of each row the keys of the K cheapest extensions by the levels next to the value, in any order:
 * of two sorted lists, one the other way round, the cheaper ones of each pair are the K cheapest of
 * both. key [P]: by vector and lane, as all else; worst: the highest of them, by row. */
SNRQ_INLINE void snrq_find_cheapest(snrq_beam_shape s, const snrq_extensions *e,
                                    snrq_int_lanes *key, float worst[SNRQ_LANES])
{
    snrq_int_lanes above[SNRQ_MAX_BEAM];
    for (int i = 0; i < s.slots; i++) {
        key[i] = snrq_extension_key(s, i % s.vectors, 0, e->cost_below[i]);
        above[i] = snrq_extension_key(s, i % s.vectors, 1, e->cost_above[i]);
    }
    snrq_beam_transpose(s, key);
    snrq_beam_transpose(s, above);
    snrq_beam_sort(s.slots, key);
    snrq_beam_sort(s.slots, above);
    snrq_int_lanes most = {0};
    for (int k = 0; k < s.width; k++) {
        key[k] = snrq_int_lanes_min(key[k], above[s.width - 1 - k]);
        most = snrq_int_lanes_max(most, key[k]);
    }
    memcpy(worst, &most, sizeof most);
    snrq_beam_transpose(s, key);
}

/* Keeps the extensions of these keys: those of vectors i to i + V. */
SNRQ_INLINE void snrq_keep(snrq_beam_shape s, const snrq_int_lanes *key, int i, snrq_extensions *e)
{
    snrq_lanes cost[2 * SNRQ_BEAM_LANE_VECTORS], level[2 * SNRQ_BEAM_LANE_VECTORS];
    for (int v = 0; v < s.vectors; v++) {
        cost[v] = e->cost_below[i + v];
        cost[s.vectors + v] = e->cost_above[i + v];
        level[v] = e->below[i + v];
        level[s.vectors + v] = e->above[i + v];
    }
    for (int v = 0; v < s.vectors; v++) {
        snrq_int_lanes number = key[i + v] & snrq_key_bits(s);
        e->kept[i + v] = snrq_beam_pick(2 * s.vectors, cost, number);
        e->level[i + v] = snrq_beam_pick(2 * s.vectors, level, number);
        e->from[i + v] = number & snrq_beam_last(s);
        if (s.width < s.slots)
            e->kept[i + v] =
                snrq_lanes_select(snrq_int_lanes_equal(snrq_beam_beyond(s, v), (snrq_int_lanes){0}),
                                  e->kept[i + v], snrq_lanes_all(INFINITY));
    }
}

/* Beams whose other levels compete: the cheapest extension of each by those (next; infinite: none),
 * and the nearest levels on both sides that were not looked at. */
typedef struct snrq_contenders {
    snrq_lanes value, cost, lower, higher, next, next_level;
} snrq_contenders;

/* Which beams go on to their next level: the nearer one of both sides. */
SNRQ_INLINE void snrq_find_next(snrq_beam_shape s, const float *levels, snrq_lanes weight,
                                snrq_lanes lowest, snrq_lanes highest, snrq_mask which,
                                snrq_contenders *x)
{
    const snrq_lanes none = snrq_lanes_all(INFINITY);
    snrq_lanes cost_lower =
        snrq_extension_cost(weight, x->cost, x->value - snrq_level_value(s, levels, x->lower));
    snrq_lanes cost_higher =
        snrq_extension_cost(weight, x->cost, x->value - snrq_level_value(s, levels, x->higher));
    cost_lower = snrq_lanes_select(snrq_lanes_less(x->lower, lowest), none, cost_lower);
    cost_higher = snrq_lanes_select(snrq_lanes_less(highest, x->higher), none, cost_higher);
    snrq_mask up = snrq_lanes_less(cost_higher, cost_lower);
    snrq_lanes level = snrq_lanes_select(up, x->higher, x->lower);
    x->next = snrq_lanes_select(which, snrq_lanes_min(cost_lower, cost_higher), x->next);
    x->next_level = snrq_lanes_select(which, level, x->next_level);
    x->lower = snrq_lanes_select(which & ~up, level - 1.0f, x->lower);
    x->higher = snrq_lanes_select(which & up, level + 1.0f, x->higher);
}

/* Of vectors i to i + V: the cheapest extension that competes takes the slot of the most expensive
 * one that is kept, if it is cheaper. Returns whether that was so in some row. */
SNRQ_INLINE bool snrq_replace_worst(snrq_beam_shape s, const snrq_beam_column *column, int i,
                                    snrq_contenders *x, snrq_extensions *e)
{
    const int last = snrq_beam_last(s);
    const snrq_lanes weight = snrq_of_rows(s, column->weight, i);
    const snrq_lanes lowest = snrq_of_rows(s, column->lowest, i), highest = lowest + column->top;
    snrq_int_lanes kept[SNRQ_BEAM_LANE_VECTORS], next[SNRQ_BEAM_LANE_VECTORS];
    snrq_lanes costs[SNRQ_BEAM_LANE_VECTORS] = {0}, levels[SNRQ_BEAM_LANE_VECTORS] = {0};
    for (int v = 0; v < s.vectors; v++) {
        kept[v] = snrq_extension_key(s, v, 0, e->kept[i + v]) & ~snrq_beam_beyond(s, v);
        next[v] = -snrq_extension_key(s, v, 0, x[v].next);
        costs[v] = x[v].next;
        levels[v] = x[v].next_level;
    }
    snrq_int_lanes worst = snrq_beam_highest(s, kept), best = -snrq_beam_highest(s, next);
    snrq_mask changes = snrq_int_lanes_less(best | last, worst & ~last);
    snrq_lanes cost = snrq_beam_pick(s.vectors, costs, best & last);
    snrq_lanes level = snrq_beam_pick(s.vectors, levels, best & last);
    for (int v = 0; v < s.vectors; v++) {
        snrq_int_lanes number = snrq_beam_lane_numbers(v);
        snrq_mask slot = changes & snrq_int_lanes_equal(number, worst & last);
        snrq_mask taken = changes & snrq_int_lanes_equal(number, best & last);
        e->kept[i + v] = snrq_lanes_select(slot, cost, e->kept[i + v]);
        e->level[i + v] = snrq_lanes_select(slot, level, e->level[i + v]);
        e->from[i + v] = snrq_int_lanes_select(slot, best & last, e->from[i + v]);
        snrq_find_next(s, column->levels, weight, lowest, highest, taken, &x[v]);
    }
    return snrq_mask_any(changes);
}

/* Of vectors i to i + V: lets all other levels compete with what is kept. Rows where none is
 * cheaper stay as they are. costs [P]; y [P] of the column. */
SNRQ_INLINE void snrq_keep_others(snrq_beam_shape s, const snrq_beam_column *column, int i,
                                  const snrq_lanes *costs, const snrq_lanes *y, snrq_extensions *e)
{
    const snrq_lanes weight = snrq_of_rows(s, column->weight, i);
    const snrq_lanes lowest = snrq_of_rows(s, column->lowest, i), highest = lowest + column->top;
    const snrq_mask all = snrq_int_lanes_equal((snrq_int_lanes){0}, (snrq_int_lanes){0});
    snrq_contenders x[SNRQ_BEAM_LANE_VECTORS];
    for (int v = 0; v < s.vectors; v++) {
        x[v] = (snrq_contenders){.value = y[i + v] * snrq_of_rows(s, column->steps, i),
                                 .cost = costs[i + v],
                                 .lower = e->below[i + v] - 1.0f,
                                 .higher = e->above[i + v] + 1.0f};
        snrq_find_next(s, column->levels, weight, lowest, highest, all, &x[v]);
    }
    while (snrq_replace_worst(s, column, i, x, e)) {
    }
}

/* Makes the extensions that are kept the beams: y of the strip's columns to come goes with them,
 * and takes what this column feeds back. */
SNRQ_INLINE void snrq_take_extensions(snrq_beam_shape s, const snrq_beam_column *column,
                                      const float *u, const snrq_extensions *e, snrq_lanes *costs,
                                      snrq_lanes *y, snrq_lanes *level, snrq_int_lanes *from)
{
    snrq_lanes error[SNRQ_MAX_BEAM], before[SNRQ_BEAM_LANE_VECTORS];
    for (int i = 0; i < s.slots; i++) {
        costs[i] = e->kept[i];
        level[column->at * s.slots + i] = e->level[i];
        from[column->at * s.slots + i] = e->from[i];
        error[i] =
            snrq_of_rows(s, column->target, i) -
            snrq_of_rows(s, column->scale, i) * snrq_level_value(s, column->levels, e->level[i]);
    }
    for (int c = 0; c < column->at; c++) {
        snrq_lanes factor = snrq_lanes_all(u[c]);
        for (int i = 0; i < s.slots; i += s.vectors) {
            for (int v = 0; v < s.vectors; v++) before[v] = y[c * s.slots + i + v];
            for (int v = 0; v < s.vectors; v++)
                y[c * s.slots + i + v] = snrq_lanes_madd(
                    error[i + v], factor, snrq_beam_pick(s.vectors, before, e->from[i + v]));
        }
    }
}

/* Decides a column for all rows. costs [P]; y, level, from [SNRQ_STRIP][P]; u [SNRQ_STRIP]. */
SNRQ_INLINE void snrq_beam_decide(snrq_beam_shape s, const snrq_beam_column *column, const float *u,
                                  snrq_lanes *costs, snrq_lanes *y, snrq_lanes *level,
                                  snrq_int_lanes *from)
{
    const snrq_lanes *now = y + column->at * s.slots;
    snrq_extensions e;
    snrq_int_lanes key[SNRQ_MAX_BEAM];
    snrq_mask more[SNRQ_MAX_BEAM], any = {0}; /* beams with a third level that may compete */
    float worst[SNRQ_LANES];
    for (int i = 0; i < s.slots; i++) snrq_extend(s, column, i, costs[i], now[i], &e);
    snrq_find_cheapest(s, &e, key, worst);
    for (int i = 0; i < s.slots; i++) {
        snrq_int_lanes most = (snrq_int_lanes)snrq_of_rows(s, worst, i) & ~snrq_key_bits(s);
        more[i] = snrq_int_lanes_less((snrq_int_lanes)e.third[i], most);
        any |= more[i];
    }
    for (int i = 0; i < s.slots; i += s.vectors) snrq_keep(s, key, i, &e);
    for (int i = 0; __builtin_expect(snrq_mask_any(any), 0) && i < s.slots; i += s.vectors) {
        snrq_mask of_rows = more[i];
        for (int v = 1; v < s.vectors; v++) of_rows |= more[i + v];
        if (snrq_mask_any(of_rows)) snrq_keep_others(s, column, i, costs, now, &e);
    }
    snrq_take_extensions(s, column, u, &e, costs, y, level, from);
}

#endif
