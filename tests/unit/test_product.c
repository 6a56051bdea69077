/* Products of packed operands against their twin, and the same bits wherever an element lies. */
#include "mpi/algebra/product.h"

#include <math.h>
#include <string.h>

#include "tests/snrq_test.h"

enum { MOST = 100, DEPTH = 77 };

static float number(int64_t i)
{
    return (float)sin((double)(i * i % 1009));
}

/* a, b: rows of `depth` numbers, packed strip by strip. */
static void pack(const float *rows, int64_t count, int64_t depth, int64_t width, float *out)
{
    for (int64_t r = 0; r < count; r += width)
        snrq_product_pack(rows + r * depth, depth, count - r < width ? count - r : width, depth,
                          width, out + r * depth);
}

static snrq_product product(int64_t rows, int64_t columns, int64_t depth, const float *a,
                            const float *b, bool add, float *c)
{
    return (snrq_product){.rows = rows,
                          .columns = columns,
                          .depth = depth,
                          .a = a,
                          .b = b,
                          .a_stride = depth * SNRQ_PRODUCT_ROWS,
                          .a_row = 1,
                          .a_step = SNRQ_PRODUCT_ROWS,
                          .b_stride = depth * SNRQ_PRODUCT_COLUMNS,
                          .add = add,
                          .c = c,
                          .ldc = MOST};
}

static float x[MOST * DEPTH], y[MOST * DEPTH], a[2 * MOST * DEPTH], b[2 * MOST * DEPTH];

static void fill(void)
{
    for (int64_t i = 0; i < MOST * DEPTH; i++) {
        x[i] = number(i);
        y[i] = number(i + 5);
    }
}

/* Sums of up to 77 products of numbers up to 1 in fp32: half an ulp of 77 at each of 77 steps. */
static void agrees_with_its_twin(void)
{
    static const int64_t shapes[][3] = {{1, 1, 1}, {12, 32, 16}, {13, 33, 77}, {100, 97, 50}};
    static float fast[MOST * MOST], plain[MOST * MOST];
    fill();
    for (int i = 0; i < 8; i++) {
        const int64_t *s = shapes[i / 2];
        bool add = i % 2 == 1;
        for (int64_t k = 0; k < MOST * MOST; k++) fast[k] = plain[k] = number(k + 9);
        pack(x, s[0], s[2], SNRQ_PRODUCT_ROWS, a);
        pack(y, s[1], s[2], SNRQ_PRODUCT_COLUMNS, b);
        snrq_product p = product(s[0], s[1], s[2], a, b, add, fast);
        snrq_product_run(&p);
        p.c = plain;
        snrq_product_reference(&p);
        for (int64_t k = 0; k < MOST * MOST; k++)
            CU_ASSERT(fabsf(fast[k] - plain[k]) <= 77 * 32 * 0x1p-23f);
    }
}

/* Rows of A where they lie, the last of them at the end of memory, against packed ones. */
static void rows_need_not_be_packed(void)
{
    static const int64_t shapes[][3] = {{1, 1, 1}, {12, 32, 16}, {13, 33, 77}, {100, 97, 50}};
    static float packed[MOST * MOST], plain[MOST * MOST];
    fill();
    for (int i = 0; i < 4; i++) {
        const int64_t *s = shapes[i];
        float *rows = malloc((size_t)(s[0] * s[2]) * sizeof *rows);
        memcpy(rows, x, (size_t)(s[0] * s[2]) * sizeof *rows);
        pack(x, s[0], s[2], SNRQ_PRODUCT_ROWS, a);
        pack(y, s[1], s[2], SNRQ_PRODUCT_COLUMNS, b);
        snrq_product p = product(s[0], s[1], s[2], a, b, false, packed);
        snrq_product_run(&p);
        p.c = plain;
        p.a = rows;
        p.a_stride = SNRQ_PRODUCT_ROWS * s[2];
        p.a_row = s[2];
        p.a_step = 1;
        snrq_product_run(&p);
        CU_ASSERT(memcmp(packed, plain, sizeof packed) == 0);
        free(rows);
    }
}

/* Row 5 and column 7 of a large product as the only ones of a small one. */
static void an_element_does_not_depend_on_where_it_lies(void)
{
    static float all[MOST * MOST], one[MOST];
    fill();
    pack(x, 90, DEPTH, SNRQ_PRODUCT_ROWS, a);
    pack(y, 90, DEPTH, SNRQ_PRODUCT_COLUMNS, b);
    snrq_product p = product(90, 90, DEPTH, a, b, false, all);
    snrq_product_run(&p);
    pack(x + 5 * DEPTH, 1, DEPTH, SNRQ_PRODUCT_ROWS, a);
    pack(y + 7 * DEPTH, 1, DEPTH, SNRQ_PRODUCT_COLUMNS, b);
    p = product(1, 1, DEPTH, a, b, false, one);
    snrq_product_run(&p);
    CU_ASSERT_EQUAL(memcmp(&one[0], &all[5 * MOST + 7], sizeof one[0]), 0);
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(agrees_with_its_twin),
                                      SNRQ_TEST(rows_need_not_be_packed),
                                      SNRQ_TEST(an_element_does_not_depend_on_where_it_lies)};
    return snrq_run_tests("product", tests, sizeof tests / sizeof *tests, 1);
}
