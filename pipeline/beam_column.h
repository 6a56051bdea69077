/* Internal to the beams: one column for the slots of SNRQ_LANES rows; see beam.h for P, R and V.
 *
 * An extension is a level (a grid value over the scale: code - zero) that a beam takes; the value
 * to round is in the same steps. In rounds, the next nearest levels of all beams compete with the K
 * cheapest extensions so far: of two sorted lists, one the other way round, the cheaper ones of
 * each pair are the K cheapest of both. The first round, nearest against second nearest levels, is
 * seldom followed by another.
 */
#ifndef SNRQ_BEAM_COLUMN_H
#define SNRQ_BEAM_COLUMN_H

#include <math.h>

#include "pipeline/beam_shape.h"

/* A column for SNRQ_LANES rows. */
typedef struct snrq_beam_column {
    int at;                                     /* in the strip */
    float top;                                  /* highest code */
    float scale[SNRQ_LANES], steps[SNRQ_LANES]; /* steps = 1 / scale */
    float weight[SNRQ_LANES];                   /* of a miss by one step, in units of the row */
    float lowest[SNRQ_LANES];                   /* level: minus zero point */
    float target[SNRQ_LANES];
} snrq_beam_column;

/* The beams of R rows: V vectors each. */
typedef struct snrq_extensions {
    snrq_lanes value[SNRQ_MAX_VECTORS]; /* to round, in steps, of a beam as it was before */
    snrq_lanes cost[SNRQ_MAX_VECTORS];
    snrq_lanes next[SNRQ_MAX_VECTORS], next_level[SNRQ_MAX_VECTORS]; /* the level that competes */
    snrq_lanes low[SNRQ_MAX_VECTORS], high[SNRQ_MAX_VECTORS];        /* the levels looked at */
    snrq_lanes kept[SNRQ_MAX_VECTORS],
        kept_level[SNRQ_MAX_VECTORS];      /* the cheapest so far: costs */
    snrq_int_lanes from[SNRQ_MAX_VECTORS]; /* and the lanes of the beams they extend */
    snrq_lanes weight, lowest, highest;
} snrq_extensions;

SNRQ_INLINE snrq_lanes snrq_extension_cost(const snrq_extensions *e, int v, snrq_lanes miss)
{
    return snrq_lanes_madd(e->weight * miss, miss, e->cost[v]);
}

/* Every beam keeps the nearest level; the one on the other side of the value is next. */
SNRQ_INLINE void snrq_extend(snrq_beam_shape s, snrq_extensions *e)
{
    for (int v = 0; v < s.vectors; v++) {
        snrq_lanes below = snrq_lanes_floor(e->value[v]);
        below = snrq_lanes_max(snrq_lanes_min(below, e->highest - 1.0f), e->lowest);
        snrq_lanes above = below + 1.0f, miss = e->value[v] - below;
        snrq_lanes cost_below = snrq_extension_cost(e, v, miss);
        snrq_lanes cost_above = snrq_extension_cost(e, v, miss - 1.0f);
        snrq_mask up = snrq_lanes_less(cost_above, cost_below);
        e->kept[v] = snrq_lanes_min(cost_below, cost_above);
        e->next[v] = snrq_lanes_max(cost_below, cost_above);
        e->kept_level[v] = snrq_lanes_select(up, above, below);
        e->next_level[v] = snrq_lanes_select(up, below, above);
        e->low[v] = below;
        e->high[v] = above;
        e->from[v] = snrq_beam_lane_numbers(v);
    }
}

/* The next level of every beam: the nearer one of those beyond what was looked at. */
SNRQ_INLINE void snrq_find_next(snrq_beam_shape s, snrq_extensions *e)
{
    const snrq_lanes none = snrq_lanes_all(INFINITY);
    for (int v = 0; v < s.vectors; v++) {
        snrq_lanes low = e->low[v] - 1.0f, high = e->high[v] + 1.0f;
        snrq_lanes below = snrq_extension_cost(e, v, e->value[v] - low);
        snrq_lanes above = snrq_extension_cost(e, v, e->value[v] - high);
        below = snrq_lanes_select(snrq_lanes_less(low, e->lowest), none, below);
        above = snrq_lanes_select(snrq_lanes_less(e->highest, high), none, above);
        snrq_mask up = snrq_lanes_less(above, below);
        e->next[v] = snrq_lanes_min(below, above);
        e->next_level[v] = snrq_lanes_select(up, high, low);
        e->low[v] = snrq_lanes_select(up, e->low[v], low);
        e->high[v] = snrq_lanes_select(up, high, e->high[v]);
    }
}

/* Costs (not negative) with the number of their lane as last bits: whole numbers that are ordered
 * as the costs are. Slots beyond the width come last. */
SNRQ_INLINE void snrq_extension_keys(snrq_beam_shape s, const snrq_lanes *cost, snrq_int_lanes *key)
{
    for (int v = 0; v < s.vectors; v++) {
        snrq_int_lanes lane = snrq_beam_lane_numbers(v);
        key[v] = ((snrq_int_lanes)cost[v] & ~snrq_beam_last(s)) | lane;
        if (s.width < s.slots) key[v] |= snrq_beam_beyond(s, lane) & INT32_MAX;
    }
}

/* Keeps the K cheapest of what is kept and what is next. Returns the key of the most expensive one.
 * first: every lane still keeps its own beam. */
SNRQ_INLINE snrq_int_lanes snrq_keep_cheapest(snrq_beam_shape s, bool first, snrq_extensions *e)
{
    int last = snrq_beam_last(s);
    snrq_int_lanes kept[SNRQ_MAX_VECTORS], next[SNRQ_MAX_VECTORS], worst[SNRQ_MAX_VECTORS];
    snrq_lanes cost[SNRQ_MAX_VECTORS], level[SNRQ_MAX_VECTORS];
    snrq_int_lanes from[SNRQ_MAX_VECTORS];
    snrq_extension_keys(s, e->kept, kept);
    snrq_extension_keys(s, e->next, next);
    snrq_beam_sort(s, false, kept);
    snrq_beam_sort(s, true, next);
    if (s.width < s.slots) { /* those beyond the width came first */
        for (int v = 0; v < s.vectors; v++)
            from[v] = (snrq_beam_lane_numbers(v) + (s.slots - s.width) * s.rows) & last;
        for (int v = 0; v < s.vectors; v++) worst[v] = snrq_beam_pick_int(s, next, from[v]);
        for (int v = 0; v < s.vectors; v++) next[v] = worst[v];
    }
    for (int v = 0; v < s.vectors; v++) {
        snrq_mask changes = snrq_int_lanes_less(next[v], kept[v]);
        snrq_int_lanes key = snrq_int_lanes_min(next[v], kept[v]), lane = key & last;
        cost[v] = snrq_lanes_select(changes, snrq_beam_pick(s, e->next, lane),
                                    snrq_beam_pick(s, e->kept, lane));
        level[v] = snrq_lanes_select(changes, snrq_beam_pick(s, e->next_level, lane),
                                     snrq_beam_pick(s, e->kept_level, lane));
        from[v] = lane;
        if (!first)
            from[v] = snrq_int_lanes_select(changes, lane, snrq_beam_pick_int(s, e->from, lane));
        worst[v] = key;
        if (s.width < s.slots) {
            snrq_int_lanes beyond = snrq_beam_beyond(s, snrq_beam_lane_numbers(v));
            worst[v] &= ~beyond;
            cost[v] = snrq_lanes_select(snrq_int_lanes_equal(beyond, (snrq_int_lanes){0}), cost[v],
                                        snrq_lanes_all(INFINITY));
        }
    }
    for (int v = 0; v < s.vectors; v++) {
        e->kept[v] = cost[v];
        e->kept_level[v] = level[v];
        e->from[v] = from[v];
    }
    return snrq_beam_highest(s, worst);
}

/* bound: what a third level costs at least. It is a step behind the nearest. */
SNRQ_INLINE void snrq_bound_third(snrq_beam_shape s, const snrq_extensions *e, snrq_lanes *bound)
{
    for (int v = 0; v < s.vectors; v++) {
        snrq_lanes miss = e->value[v] - e->kept_level[v];
        bound[v] = snrq_extension_cost(e, v, snrq_lanes_max(miss, -miss) + 1.0f);
    }
}

/* Keeps the K cheapest of all extensions, when those of the nearest two levels are known: worst is
 * what snrq_keep_cheapest returned for them, bound the costs of the third nearest at least. */
SNRQ_INLINE void snrq_keep_more(snrq_beam_shape s, snrq_lanes *bound, snrq_int_lanes worst,
                                snrq_extensions *e)
{
    for (;;) {
        bool more = false;
        for (int v = 0; v < s.vectors; v++)
            more |= snrq_mask_any(
                snrq_int_lanes_less((snrq_int_lanes)bound[v], worst & ~snrq_beam_last(s)));
        if (__builtin_expect(!more, 1)) return;
        snrq_find_next(s, e);
        for (int v = 0; v < s.vectors; v++) bound[v] = e->next[v];
        worst = snrq_keep_cheapest(s, false, e);
    }
}

/* What some rows round in a column. */
SNRQ_INLINE void snrq_start_extensions(snrq_beam_shape s, const snrq_beam_column *column, int group,
                                       const snrq_lanes *costs, const snrq_lanes *y,
                                       snrq_extensions *e)
{
    int row = group * s.rows, first = group * s.vectors;
    snrq_lanes steps = snrq_lanes_spread(column->steps + row, s.rows);
    e->weight = snrq_lanes_spread(column->weight + row, s.rows);
    e->lowest = snrq_lanes_spread(column->lowest + row, s.rows);
    e->highest = e->lowest + column->top;
    for (int v = 0; v < s.vectors; v++) {
        e->value[v] = y[column->at * s.slots + first + v] * steps;
        e->cost[v] = costs[first + v];
    }
}

/* Makes the extensions that are kept the beams: y of the strip's columns to come goes with them,
 * and takes what this column feeds back. */
SNRQ_INLINE void snrq_take_extensions(snrq_beam_shape s, const snrq_beam_column *column, int group,
                                      const float *u, const snrq_extensions *e, snrq_lanes *costs,
                                      snrq_lanes *y, snrq_lanes *level, snrq_int_lanes *from)
{
    int row = group * s.rows, first = group * s.vectors, now = column->at * s.slots + first;
    snrq_lanes scale = snrq_lanes_spread(column->scale + row, s.rows);
    snrq_lanes target = snrq_lanes_spread(column->target + row, s.rows);
    for (int v = 0; v < s.vectors; v++) {
        costs[first + v] = e->kept[v];
        level[now + v] = e->kept_level[v];
        from[now + v] = e->from[v];
    }
    for (int i = 0; i < column->at; i++) {
        snrq_lanes before[SNRQ_MAX_VECTORS];
        for (int v = 0; v < s.vectors; v++) before[v] = y[i * s.slots + first + v];
        for (int v = 0; v < s.vectors; v++) {
            snrq_lanes error = target - scale * e->kept_level[v];
            y[i * s.slots + first + v] =
                snrq_lanes_madd(error, snrq_lanes_all(u[i]), snrq_beam_pick(s, before, e->from[v]));
        }
    }
}

/* Decides a column for the rows of groups `group` and the next one, side by side: one alone is a
 * chain of instructions that wait for each other. costs [P]; y, level, from [SNRQ_STRIP][P]; u
 * [SNRQ_STRIP]. */
SNRQ_INLINE void snrq_beam_decide(snrq_beam_shape s, const snrq_beam_column *column, int group,
                                  const float *u, snrq_lanes *costs, snrq_lanes *y,
                                  snrq_lanes *level, snrq_int_lanes *from)
{
    snrq_extensions one, other;
    snrq_lanes one_bound[SNRQ_MAX_VECTORS], other_bound[SNRQ_MAX_VECTORS];
    snrq_start_extensions(s, column, group, costs, y, &one);
    snrq_start_extensions(s, column, group + 1, costs, y, &other);
    snrq_extend(s, &one);
    snrq_extend(s, &other);
    snrq_bound_third(s, &one, one_bound);
    snrq_bound_third(s, &other, other_bound);
    snrq_int_lanes one_worst = snrq_keep_cheapest(s, true, &one);
    snrq_int_lanes other_worst = snrq_keep_cheapest(s, true, &other);
    snrq_keep_more(s, one_bound, one_worst, &one);
    snrq_keep_more(s, other_bound, other_worst, &other);
    snrq_take_extensions(s, column, group, u, &one, costs, y, level, from);
    snrq_take_extensions(s, column, group + 1, u, &other, costs, y, level, from);
}

#endif
