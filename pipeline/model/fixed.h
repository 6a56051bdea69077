/* Fixed-point numbers of 128 bits with a unit of 2^-72, for sums over sequences that do not depend
 * on their order. */
#ifndef SNRQ_FIXED_H
#define SNRQ_FIXED_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "mpi/collective.h"

__extension__ typedef __int128 snrq_fixed;

enum {
    SNRQ_FIXED_UNIT_BITS = 72,
    SNRQ_FIXED_LIMIT_BITS = 40 /* of what is added: less than 2^40 */
};

/* Adds x to *sum; false: x is not finite, or one of both is too large. */
static inline bool snrq_fixed_add(float x, snrq_fixed *sum)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 23 & 0xff);
    snrq_fixed value = (bits & 0x7fffff) | (exponent > 0 ? 0x800000 : 0);
    int shift = (exponent > 0 ? exponent : 1) - 150 + SNRQ_FIXED_UNIT_BITS;
    if (shift > SNRQ_FIXED_LIMIT_BITS + SNRQ_FIXED_UNIT_BITS - 24) return value == 0;
    if (shift >= 0)
        value <<= shift;
    else
        value = shift > -24 ? value >> -shift : 0;
    return !__builtin_add_overflow(*sum, bits >> 31 ? -value : value, sum);
}

static inline double snrq_fixed_value(snrq_fixed x)
{
    return ldexp((double)x, -SNRQ_FIXED_UNIT_BITS);
}

/* sums [count] <- their sums over all ranks. SNRQ_BAD_DATA if one is too large. Collective; agreed.
 */
snrq_status snrq_fixed_sum(const snrq_context *context, snrq_fixed *sums, int64_t count);

#endif
