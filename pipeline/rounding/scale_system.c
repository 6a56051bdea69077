/* Cholesky factorization and solution of packed systems, rows side by side; see scale_system.h. */
#include "pipeline/rounding/scale_system.h"

#include <math.h>

/* x - sum over k of a_k b_k */
static inline __attribute__((always_inline)) void subtract_products(int64_t count,
                                                                    const snrq_system_lanes *a,
                                                                    const snrq_system_lanes *b,
                                                                    snrq_system_lanes *x)
{
    snrq_system_lanes sum = *x;
    for (int64_t k = 0; k < count; k++) sum -= a[k] * b[k];
    *x = sum;
}

/* Replaces a pivot by its root. Where it is not positive, the row is marked and goes on with one.
 */
static unsigned take_root(snrq_system_lanes *pivot)
{
    unsigned failed = 0;
    for (int l = 0; l < SNRQ_SYSTEM_ROWS; l++)
        if ((*pivot)[l] > 0.0)
            (*pivot)[l] = sqrt((*pivot)[l]);
        else {
            (*pivot)[l] = 1.0;
            failed |= 1u << l;
        }
    return failed;
}

unsigned snrq_system_solve(int64_t n, snrq_system_lanes *a, snrq_system_lanes *b)
{
    unsigned failed = 0;
    for (int64_t g = 0; g < n; g++) {
        snrq_system_lanes *row = a + snrq_system_at(g, 0);
        for (int64_t h = 0; h < g; h++) {
            const snrq_system_lanes *other = a + snrq_system_at(h, 0);
            subtract_products(h, row, other, &row[h]);
            row[h] /= other[h];
        }
        subtract_products(g, row, row, &row[g]);
        failed |= take_root(&row[g]);
        subtract_products(g, row, b, &b[g]);
        b[g] /= row[g];
    }
    for (int64_t g = n - 1; g >= 0; g--) {
        const snrq_system_lanes *row = a + snrq_system_at(g, 0);
        b[g] /= row[g];
        for (int64_t h = 0; h < g; h++) b[h] -= row[h] * b[g];
    }
    return failed;
}
