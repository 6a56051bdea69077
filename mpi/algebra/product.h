/* Matrix products C [rows, columns] = A^T B in fp32, of operands that are packed once and
 * multiplied often, so that no product packs for itself, as BLAS does.
 *
 * B is packed into strips of SNRQ_PRODUCT_COLUMNS columns, [depth][SNRQ_PRODUCT_COLUMNS] each; what
 * is missing in the last may be anything that is finite. A is read in strips of SNRQ_PRODUCT_ROWS
 * rows of C: packed, [depth][SNRQ_PRODUCT_ROWS], or where it lies.
 *
 * What is added to an element of C is the sum of its products in the order of depth, one after the
 * other, whatever the sizes and wherever it lies. So its bits do not depend on how C is cut into
 * pieces, on the number of threads, or on a BLAS library; only on how depth is cut.
 */
#ifndef SNRQ_PRODUCT_H
#define SNRQ_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SNRQ_PRODUCT_ROWS = 12,
    SNRQ_PRODUCT_COLUMNS = 32,
    SNRQ_PRODUCT_SLAB = 96, /* both are whole strips of it */
    SNRQ_PRODUCT_FETCHED = 8,
    SNRQ_PRODUCT_DEPTH = 384 /* a depth at which operands stay in the near caches */
};

/* x rounded up to whole strips of `width`. */
static inline int64_t snrq_product_padded(int64_t x, int64_t width)
{
    return (x + width - 1) / width * width;
}

/* One strip: out [depth][width] <- in [count, depth] with row stride `stride`; columns from `count`
 * on are zero. width is SNRQ_PRODUCT_ROWS or SNRQ_PRODUCT_COLUMNS. Not collective. */
void snrq_product_pack(const float *in, int64_t stride, int64_t count, int64_t depth, int64_t width,
                       float *out);

/* C <- A^T B, or C += A^T B. Strips of A and B begin a_stride and b_stride floats after one
 * another; in a strip of A, rows of C are a_row floats apart and steps of depth a_step (1 and
 * SNRQ_PRODUCT_ROWS where it was packed). c has row stride ldc. While packed tiles are summed up,
 * the machine fetches from memory what will be needed later: SNRQ_PRODUCT_FETCHED floats from
 * `fetch` on for each tile and step of depth, unless it is NULL. Not collective; may be called from
 * many threads at a time. */
typedef struct snrq_product {
    int64_t rows, columns, depth;
    const float *a, *b;
    int64_t a_stride, a_row, a_step, b_stride;
    bool add;
    float *c;
    int64_t ldc;
    const float *fetch;
} snrq_product;
void snrq_product_run(const snrq_product *product);

/* Twin of snrq_product_run: plain loops in fp64. For tests. */
void snrq_product_reference(const snrq_product *product);

#endif
