/* Internal to the beams: slots as lanes; see beam.h for P, R and V.
 *
 * Everything here is for a shape that the compiler knows where it matters, so that the loops over a
 * row's vectors vanish.
 */
#ifndef SNRQ_BEAM_SHAPE_H
#define SNRQ_BEAM_SHAPE_H

#include "mpi/algebra/lanes.h"

/* Part of a function that is compiled once for every common shape. */
#define SNRQ_INLINE static inline __attribute__((always_inline))

enum { SNRQ_MAX_BEAM = 256, SNRQ_BEAM_LANE_VECTORS = SNRQ_MAX_BEAM / SNRQ_LANES };

typedef struct snrq_beam_shape {
    int width, slots, rows, vectors; /* K, P, R, V */
    bool book;                       /* levels are those of a code book, else integers */
} snrq_beam_shape;

SNRQ_INLINE snrq_beam_shape snrq_beam_shape_of(int width, int slots)
{
    bool wide = slots > SNRQ_LANES;
    return (snrq_beam_shape){width, slots, wide ? 1 : SNRQ_LANES / slots,
                             wide ? slots / SNRQ_LANES : 1, false};
}

SNRQ_INLINE snrq_beam_shape snrq_beam_shape_of_book(int width, int slots)
{
    snrq_beam_shape shape = snrq_beam_shape_of(width, slots);
    shape.book = true;
    return shape;
}

/* Row (of SNRQ_LANES) and slot that lane `lane` of vector `vector` (of P) belongs to. */
SNRQ_INLINE int snrq_beam_row(snrq_beam_shape s, int vector, int lane)
{
    return vector / s.vectors * s.rows + lane % s.rows;
}

SNRQ_INLINE int snrq_beam_slot(snrq_beam_shape s, int vector, int lane)
{
    return lane / s.rows * s.vectors + vector % s.vectors;
}

/* Numbers of the lanes of the v-th vector of a row. */
SNRQ_INLINE snrq_int_lanes snrq_beam_lane_numbers(int v)
{
    return snrq_lanes_numbers() + SNRQ_LANES * v;
}

/* The slots that lanes of these numbers are. */
SNRQ_INLINE snrq_int_lanes snrq_beam_slots(snrq_beam_shape s, snrq_int_lanes number)
{
    if (s.vectors == 1) return number / s.rows;
    return number % SNRQ_LANES * s.vectors + number / SNRQ_LANES;
}

/* All bits set in the lanes of slots that are none of the K. */
SNRQ_INLINE snrq_int_lanes snrq_beam_beyond(snrq_beam_shape s, int v)
{
    return s.width == s.slots ? (snrq_int_lanes){0}
                              : snrq_beam_slots(s, snrq_beam_lane_numbers(v)) >= s.width;
}

/* The last number of a lane of a row's V vectors, and a mask for these numbers. */
SNRQ_INLINE int snrq_beam_last(snrq_beam_shape s)
{
    return s.vectors * SNRQ_LANES - 1;
}

/* Lane l: number from[l] of x [vectors], which is one or an even number. */
SNRQ_INLINE snrq_lanes snrq_beam_pick(int vectors, const snrq_lanes *x, snrq_int_lanes from)
{
    if (vectors == 1) return snrq_lanes_permute(x[0], from);
    snrq_lanes y = snrq_lanes_permute_pair(x[0], x[1], from);
    for (int v = 2; v < vectors; v += 2)
        y = snrq_lanes_select(
            snrq_int_lanes_equal(from / (2 * SNRQ_LANES), snrq_int_lanes_all(v / 2)),
            snrq_lanes_permute_pair(x[v], x[v + 1], from), y);
    return y;
}

SNRQ_INLINE snrq_int_lanes snrq_beam_pick_int(int vectors, const snrq_int_lanes *x,
                                              snrq_int_lanes from)
{
    snrq_lanes y[SNRQ_BEAM_LANE_VECTORS];
    for (int v = 0; v < vectors; v++) y[v] = (snrq_lanes)x[v];
    return (snrq_int_lanes)snrq_beam_pick(vectors, y, from);
}

/* Slots become vectors, rows lanes, and back: x [P] <-> vector: slot, lane: row. */
SNRQ_INLINE void snrq_beam_transpose(snrq_beam_shape s, snrq_int_lanes *x)
{
#ifdef __AVX512F__
    SNRQ_TRANSPOSE_BIT(snrq_int_lanes, x, s.slots, 8 / s.rows * s.vectors, 8)
#endif
    if (s.rows <= 4) SNRQ_TRANSPOSE_BIT(snrq_int_lanes, x, s.slots, 4 / s.rows * s.vectors, 4)
    if (s.rows <= 2) SNRQ_TRANSPOSE_BIT(snrq_int_lanes, x, s.slots, 2 / s.rows * s.vectors, 2)
    if (s.rows <= 1) SNRQ_TRANSPOSE_BIT(snrq_int_lanes, x, s.slots, s.vectors, 1)
}

/* One step of Batcher's odd-even merge sort of x [slots], lane by lane. */
SNRQ_INLINE void snrq_beam_sort_step(int slots, int run, int distance, snrq_int_lanes *x)
{
    int skipped = distance % run;
    for (int i = skipped; i + distance < slots; i++) {
        int j = i + distance;
        if (((i - skipped) & distance) != 0 || (i ^ j) >= 2 * run) continue; /* of other runs */
        snrq_int_lanes low = snrq_int_lanes_min(x[i], x[j]);
        x[j] = snrq_int_lanes_max(x[i], x[j]);
        x[i] = low;
    }
}

/* The steps of one run length, and all of them; written out because compilers do not unroll loops
 * over powers of 2. */
SNRQ_INLINE void snrq_beam_sort_runs(int slots, int run, snrq_int_lanes *x)
{
    for (int distance = run; distance > 8; distance /= 2)
        snrq_beam_sort_step(slots, run, distance, x);
    if (run >= 8) snrq_beam_sort_step(slots, run, 8, x);
    if (run >= 4) snrq_beam_sort_step(slots, run, 4, x);
    if (run >= 2) snrq_beam_sort_step(slots, run, 2, x);
    snrq_beam_sort_step(slots, run, 1, x);
}

SNRQ_INLINE void snrq_beam_sort(int slots, snrq_int_lanes *x)
{
    snrq_beam_sort_runs(slots, 1, x);
    if (slots > 2) snrq_beam_sort_runs(slots, 2, x);
    if (slots > 4) snrq_beam_sort_runs(slots, 4, x);
    if (slots > 8) snrq_beam_sort_runs(slots, 8, x);
    for (int run = 16; run < slots; run *= 2) snrq_beam_sort_runs(slots, run, x);
}

/* Each lane: the highest key of its row [V]. */
SNRQ_INLINE snrq_int_lanes snrq_beam_highest(snrq_beam_shape s, const snrq_int_lanes *key)
{
    snrq_int_lanes most = snrq_int_lanes_all(INT32_MIN);
    for (int v = 0; v < s.vectors; v++) most = snrq_int_lanes_max(most, key[v]);
    for (int distance = s.rows; distance < SNRQ_LANES; distance *= 2) {
        snrq_int_lanes other =
            (snrq_int_lanes)snrq_lanes_permute((snrq_lanes)most, snrq_lanes_numbers() ^ distance);
        most = snrq_int_lanes_max(most, other);
    }
    return most;
}

#endif
