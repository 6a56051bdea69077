/* The linear systems of the least-squares scales (regrid.h), solved for several rows at a time.
 */
#ifndef SNRQ_SCALE_SYSTEM_H
#define SNRQ_SCALE_SYSTEM_H

#include <stdint.h>

enum { SNRQ_SYSTEM_ROWS = 8 }; /* are solved at a time */

/* One number of each of the rows. */
typedef double snrq_system_lanes
    __attribute__((vector_size(SNRQ_SYSTEM_ROWS * sizeof(double)), aligned(sizeof(double))));

/* Where A_gh, h <= g, is in a packed lower triangle, and how many elements it has. */
static inline int64_t snrq_system_at(int64_t g, int64_t h)
{
    return g * (g + 1) / 2 + h;
}

static inline int64_t snrq_system_cells(int64_t groups)
{
    return snrq_system_at(groups, 0);
}

/* Solves A x = b by Cholesky for each row; a [cells] and b [groups] are used up, x replaces b.
 * Returns one bit per row: set where A is not positive definite, and x means nothing. Not
 * collective. */
unsigned snrq_system_solve(int64_t groups, snrq_system_lanes *a, snrq_system_lanes *b);

#endif
