/* Sums of fixed-point numbers over ranks; see fixed.h. */
#include "pipeline/model/fixed.h"

#include <stdlib.h>

enum {
    PART_BITS = 42,
    PARTS = 3,      /* of a number, on its way through MPI */
    PIECE = 1 << 18 /* numbers at a time */
};

/* Numbers in parts that can be added up without carry. */
static void split(const snrq_fixed *sum, int64_t count, int64_t *parts)
{
    const snrq_fixed mask = ((snrq_fixed)1 << PART_BITS) - 1;
    for (int64_t i = 0; i < count; i++) {
        parts[PARTS * i] = (int64_t)(sum[i] & mask);
        parts[PARTS * i + 1] = (int64_t)(sum[i] >> PART_BITS & mask);
        parts[PARTS * i + 2] = (int64_t)(sum[i] >> 2 * PART_BITS);
    }
}

static bool join(const int64_t *parts, int64_t count, snrq_fixed *sum)
{
    const snrq_fixed part = (snrq_fixed)1 << PART_BITS;
    bool good = true;
    for (int64_t i = 0; i < count; i++) {
        snrq_fixed high;
        good &= !__builtin_mul_overflow(part * part, (snrq_fixed)parts[PARTS * i + 2], &high);
        good &=
            !__builtin_add_overflow(high, part * parts[PARTS * i + 1] + parts[PARTS * i], &sum[i]);
    }
    return good;
}

snrq_status snrq_fixed_sum(const snrq_context *c, snrq_fixed *sums, int64_t count)
{
    int64_t most = count < PIECE ? count : PIECE, *parts = NULL;
    bool good = true;
    snrq_status status =
        snrq_allocate_scratch((size_t)(most * PARTS), sizeof *parts, "sums", &parts);
    status = snrq_agree(c, status);
    for (int64_t at = 0; status == SNRQ_OK && at < count; at += PIECE) {
        int64_t piece = count - at < PIECE ? count - at : PIECE;
        split(sums + at, piece, parts);
        status = snrq_sum_int64(c, parts, PARTS * piece);
        if (status == SNRQ_OK) good &= join(parts, piece, sums + at);
    }
    free(parts);
    if (status != SNRQ_OK || good) return status;
    return snrq_fail(SNRQ_BAD_DATA, "gradients are too large to be added up");
}
