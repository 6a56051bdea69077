/* Internal to the beams: slots as lanes; see beam.h for P, R and V.
 *
 * Everything here is for a shape that the compiler knows where it matters, so that the loops over a
 * row's vectors vanish.
 */
#ifndef SNRQ_BEAM_SHAPE_H
#define SNRQ_BEAM_SHAPE_H

#include "mpi/lanes.h"

/* Part of a function that is compiled once for every common shape. */
#define SNRQ_INLINE static inline __attribute__((always_inline))

enum { SNRQ_MAX_BEAM = 256, SNRQ_MAX_VECTORS = SNRQ_MAX_BEAM / SNRQ_LANES };

typedef struct snrq_beam_shape {
    int width, slots, rows, vectors; /* K, P, R, V */
} snrq_beam_shape;

SNRQ_INLINE snrq_beam_shape snrq_beam_shape_of(int width, int slots)
{
    bool wide = slots > SNRQ_LANES;
    return (snrq_beam_shape){width, slots, wide ? 1 : SNRQ_LANES / slots,
                             wide ? slots / SNRQ_LANES : 1};
}

/* All bits set in the lanes of slots that are none of the K. */
SNRQ_INLINE snrq_int_lanes snrq_beam_beyond(snrq_beam_shape s, snrq_int_lanes lane)
{
    return s.width == s.slots ? (snrq_int_lanes){0} : lane >= s.width * s.rows;
}

/* Row (of SNRQ_LANES) and slot that lane `lane` of vector `vector` (of P) belongs to. */
SNRQ_INLINE int snrq_beam_row(snrq_beam_shape s, int vector, int lane)
{
    return vector / s.vectors * s.rows + lane % s.rows;
}

SNRQ_INLINE int snrq_beam_slot(snrq_beam_shape s, int vector, int lane)
{
    return vector % s.vectors * SNRQ_LANES + lane / s.rows;
}

/* Numbers of the lanes of the v-th vector of a row. */
SNRQ_INLINE snrq_int_lanes snrq_beam_lane_numbers(int v)
{
    return snrq_lanes_numbers() + SNRQ_LANES * v;
}

/* The highest of these numbers; they and it are bits that hold them all. */
SNRQ_INLINE int snrq_beam_last(snrq_beam_shape s)
{
    return s.vectors * SNRQ_LANES - 1;
}

/* Lane l: number from[l] of x [V]. */
SNRQ_INLINE snrq_lanes snrq_beam_pick(snrq_beam_shape s, const snrq_lanes *x, snrq_int_lanes from)
{
    snrq_lanes y = snrq_lanes_permute(x[0], from);
    for (int v = 1; v < s.vectors; v++)
        y = snrq_lanes_select(snrq_int_lanes_equal(from / SNRQ_LANES, snrq_int_lanes_all(v)),
                              snrq_lanes_permute(x[v], from), y);
    return y;
}

SNRQ_INLINE snrq_int_lanes snrq_beam_pick_int(snrq_beam_shape s, const snrq_int_lanes *x,
                                              snrq_int_lanes from)
{
    snrq_lanes y[SNRQ_MAX_VECTORS];
    for (int v = 0; v < s.vectors; v++) y[v] = (snrq_lanes)x[v];
    return (snrq_int_lanes)snrq_beam_pick(s, y, from);
}

/* Lane l of the result: lane l ^ distance of x. */
SNRQ_INLINE snrq_int_lanes snrq_beam_exchange(snrq_int_lanes x, int distance)
{
    switch (distance) {
    case 1:
        return SNRQ_EXCHANGE(x, 1);
    case 2:
        return SNRQ_EXCHANGE(x, 2);
    case 4:
        return SNRQ_EXCHANGE(x, 4);
    default:
        return SNRQ_EXCHANGE(x, 8);
    }
}

/* One step of a bitonic sort of each row's keys [V]: slots at `distance` are put in order, the
 * other way round where bit `run` of the slot is set, and again if descending. */
SNRQ_INLINE void snrq_beam_sort_step(snrq_beam_shape s, int run, int distance, bool descending,
                                     snrq_int_lanes *key)
{
    if (distance * s.rows >= SNRQ_LANES) { /* between vectors */
        int apart = distance / SNRQ_LANES;
        for (int v = 0; v < s.vectors; v++) {
            if ((v & apart) != 0) continue;
            bool down = ((v * SNRQ_LANES & run) != 0) != descending;
            snrq_int_lanes low = snrq_int_lanes_min(key[v], key[v + apart]);
            snrq_int_lanes high = snrq_int_lanes_max(key[v], key[v + apart]);
            key[v] = down ? high : low;
            key[v + apart] = down ? low : high;
        }
        return;
    }
    for (int v = 0; v < s.vectors; v++) {
        snrq_int_lanes slot = snrq_beam_lane_numbers(v) / s.rows;
        snrq_int_lanes upper = (slot & distance) == 0, up = (slot & run) == 0;
        snrq_int_lanes other = snrq_beam_exchange(key[v], distance * s.rows);
        snrq_mask higher = snrq_int_lanes_equal(upper, descending ? up : ~up);
        key[v] = snrq_int_lanes_order(higher, key[v], other);
    }
}

/* The steps of one run length, and all of them; written out because compilers do not unroll loops
 * over powers of 2. */
SNRQ_INLINE void snrq_beam_sort_runs(snrq_beam_shape s, int run, bool descending,
                                     snrq_int_lanes *key)
{
    for (int distance = run / 2; distance > 8; distance /= 2)
        snrq_beam_sort_step(s, run, distance, descending, key);
    if (run > 8) snrq_beam_sort_step(s, run, 8, descending, key);
    if (run > 4) snrq_beam_sort_step(s, run, 4, descending, key);
    if (run > 2) snrq_beam_sort_step(s, run, 2, descending, key);
    snrq_beam_sort_step(s, run, 1, descending, key);
}

/* Sorts the keys of each row over its slots. */
SNRQ_INLINE void snrq_beam_sort(snrq_beam_shape s, bool descending, snrq_int_lanes *key)
{
    snrq_beam_sort_runs(s, 2, descending, key);
    if (s.slots > 2) snrq_beam_sort_runs(s, 4, descending, key);
    if (s.slots > 4) snrq_beam_sort_runs(s, 8, descending, key);
    if (s.slots > 8) snrq_beam_sort_runs(s, 16, descending, key);
    for (int run = 32; run <= s.slots; run *= 2) snrq_beam_sort_runs(s, run, descending, key);
}

/* Each lane: the highest key of its row. */
SNRQ_INLINE snrq_int_lanes snrq_beam_highest(snrq_beam_shape s, const snrq_int_lanes *key)
{
    snrq_int_lanes most = key[0];
    for (int v = 1; v < s.vectors; v++) most = snrq_int_lanes_max(most, key[v]);
    if (SNRQ_LANES > 8 && s.rows <= 8) most = snrq_int_lanes_max(most, SNRQ_EXCHANGE(most, 8));
    if (s.rows <= 4) most = snrq_int_lanes_max(most, SNRQ_EXCHANGE(most, 4));
    if (s.rows <= 2) most = snrq_int_lanes_max(most, SNRQ_EXCHANGE(most, 2));
    if (s.rows <= 1) most = snrq_int_lanes_max(most, SNRQ_EXCHANGE(most, 1));
    return most;
}

/* Each lane: the lowest cost (not negative) of its row. */
SNRQ_INLINE snrq_lanes snrq_beam_lowest(snrq_beam_shape s, const snrq_lanes *cost)
{
    snrq_int_lanes key[SNRQ_MAX_VECTORS]; /* such floats are ordered as whole numbers are */
    for (int v = 0; v < s.vectors; v++) key[v] = -(snrq_int_lanes)cost[v];
    return (snrq_lanes)-snrq_beam_highest(s, key);
}

#endif
