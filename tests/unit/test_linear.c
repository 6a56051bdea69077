/* Linear modules of all kinds against plain sums, and the same bits forward and back, for any batch
 * and any number of threads. */
#include "pipeline/model/linear.h"

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "tests/snrq_test.h"

/* More columns than one piece of a sum, and odd; rows of several panels. */
enum { COLUMNS = 459, ROWS = 301, FEW_ROWS = 7, STRIDE = ROWS + FEW_ROWS + 3, TOKENS = 413 };

static unsigned char dense[4 * ROWS * COLUMNS];
static uint8_t codes[ROWS * COLUMNS], zeros[ROWS * 4];
static float scales[ROWS * 4], x[TOKENS * COLUMNS];
static int32_t g_idx[COLUMNS];

static float number(int64_t i)
{
    return (float)sin(0.37 * (double)i + (double)(i % 7));
}

static snrq_weight make_dense(snrq_dtype type, int64_t rows)
{
    for (int64_t i = 0; i < ROWS * COLUMNS; i++) {
        float value = number(3 * i);
        uint16_t bits = type == SNRQ_F16 ? snrq_float_to_f16(value) : snrq_float_to_bf16(value);
        if (type == SNRQ_F32)
            memcpy(dense + 4 * i, &value, 4);
        else
            memcpy(dense + 2 * i, &bits, 2);
    }
    return (snrq_weight){.rows = rows, .columns = COLUMNS, .dtype = type, .dense = dense};
}

/* Groups of consecutive columns, or scattered ones. */
static snrq_weight make_quantized(bool scattered)
{
    for (int64_t i = 0; i < ROWS * COLUMNS; i++) codes[i] = (uint8_t)(i * 7 % 16);
    for (int64_t i = 0; i < ROWS * 4; i++) {
        zeros[i] = (uint8_t)(i % 16);
        scales[i] = 0.1f + 0.01f * (float)(i % 5);
    }
    for (int32_t c = 0; c < COLUMNS; c++) g_idx[c] = scattered ? c * 3 % 4 : c / 128;
    return (snrq_weight){.rows = ROWS,
                         .columns = COLUMNS,
                         .codes = codes,
                         .scales = scales,
                         .zeros = zeros,
                         .g_idx = g_idx,
                         .groups = 4};
}

static double value(const snrq_weight *w, int64_t row, int64_t column)
{
    int64_t at = row * w->columns + column;
    float v;
    if (w->dense == NULL) {
        int64_t g = row * w->groups + w->g_idx[column];
        return (double)w->scales[g] * (double)(w->codes[at] - w->zeros[g]);
    }
    snrq_widen(w->dtype, w->dense + (size_t)at * snrq_dtype_size(w->dtype), 1, &v);
    return (double)v;
}

/* To a share of 2^-24 per step of the sum of magnitudes, of which there are fewer than 512. */
static void check(const snrq_weight *w)
{
    static float y[TOKENS * STRIDE];
    for (int64_t i = 0; i < TOKENS * COLUMNS; i++) x[i] = number(i + 1);
    CU_ASSERT_EQUAL_FATAL(snrq_linear_apply(w, 1, x, TOKENS, y, STRIDE), SNRQ_OK);
    for (int64_t t = 0; t < TOKENS; t += 59)
        for (int64_t r = 0; r < w->rows; r++) {
            double sum = 0.0, magnitude = 0.0;
            for (int64_t c = 0; c < COLUMNS; c++) {
                double product = value(w, r, c) * (double)x[t * COLUMNS + c];
                sum += product;
                magnitude += fabs(product);
            }
            CU_ASSERT(fabs((double)y[t * STRIDE + r] - sum) <= 512 * 0x1p-24 * magnitude);
        }
}

static void agrees_for_every_type(void)
{
    snrq_weight w;
    for (int type = SNRQ_F32; type <= SNRQ_BF16; type++) {
        w = make_dense((snrq_dtype)type, ROWS);
        check(&w);
    }
    w = make_quantized(false);
    check(&w);
    w = make_quantized(true);
    check(&w);
}

/* Two modules side by side: all tokens on 1, 2 and 3 threads, and each batch of 100 alone. */
static void bits_depend_on_neither_threads_nor_batch(void)
{
    static float first[TOKENS * STRIDE], y[TOKENS * STRIDE];
    snrq_weight w[2] = {make_dense(SNRQ_BF16, ROWS), make_dense(SNRQ_BF16, FEW_ROWS)};
    for (int64_t i = 0; i < TOKENS * COLUMNS; i++) x[i] = number(i + 1);
    int threads = omp_get_max_threads();
    for (int n = 1; n <= 3; n++) {
        omp_set_num_threads(n);
        CU_ASSERT_EQUAL(snrq_linear_apply(w, 2, x, TOKENS, n == 1 ? first : y, STRIDE), SNRQ_OK);
        if (n > 1) CU_ASSERT_EQUAL(memcmp(first, y, sizeof y), 0);
    }
    memset(y, 0, sizeof y);
    for (int64_t t = 0; t < TOKENS; t += 100)
        CU_ASSERT_EQUAL(snrq_linear_apply(w, 2, x + t * COLUMNS,
                                          TOKENS - t < 100 ? TOKENS - t : 100, y + t * STRIDE,
                                          STRIDE),
                        SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(first, y, sizeof y), 0);
    omp_set_num_threads(threads);
}

/* gx of two weights side by side against plain sums. */
static void check_backward(const snrq_weight w[2])
{
    static float gy[TOKENS * STRIDE], gx[TOKENS * COLUMNS];
    for (int64_t i = 0; i < TOKENS * STRIDE; i++) gy[i] = number(i + 5);
    CU_ASSERT_EQUAL_FATAL(snrq_linear_backward(w, 2, gy, TOKENS, STRIDE, gx), SNRQ_OK);
    for (int64_t t = 0; t < TOKENS; t += 59)
        for (int64_t c = 0; c < COLUMNS; c++) {
            double sum = 0.0, magnitude = 0.0;
            for (int64_t r = 0; r < w[0].rows + w[1].rows; r++) {
                int m = r >= w[0].rows;
                double product =
                    value(&w[m], m == 0 ? r : r - w[0].rows, c) * (double)gy[t * STRIDE + r];
                sum += product;
                magnitude += fabs(product);
            }
            CU_ASSERT(fabs((double)gx[t * COLUMNS + c] - sum) <= 512 * 0x1p-24 * magnitude);
        }
}

static void backward_agrees_for_every_type(void)
{
    for (int type = SNRQ_F32; type <= SNRQ_BF16; type++)
        check_backward((snrq_weight[]){make_dense((snrq_dtype)type, ROWS),
                                       make_dense((snrq_dtype)type, FEW_ROWS)});
    snrq_weight quantized = make_quantized(true), few = quantized;
    few.rows = FEW_ROWS;
    check_backward((snrq_weight[]){quantized, few});
}

static void bits_backward_depend_on_neither_threads_nor_batch(void)
{
    static float gy[TOKENS * STRIDE], first[TOKENS * COLUMNS], gx[TOKENS * COLUMNS];
    snrq_weight w[2] = {make_dense(SNRQ_BF16, ROWS), make_dense(SNRQ_BF16, FEW_ROWS)};
    for (int64_t i = 0; i < TOKENS * STRIDE; i++) gy[i] = number(i + 5);
    int threads = omp_get_max_threads();
    for (int n = 1; n <= 3; n++) {
        omp_set_num_threads(n);
        CU_ASSERT_EQUAL(snrq_linear_backward(w, 2, gy, TOKENS, STRIDE, n == 1 ? first : gx),
                        SNRQ_OK);
        if (n > 1) CU_ASSERT_EQUAL(memcmp(first, gx, sizeof gx), 0);
    }
    memset(gx, 0, sizeof gx);
    for (int64_t t = 0; t < TOKENS; t += 100)
        CU_ASSERT_EQUAL(snrq_linear_backward(w, 2, gy + t * STRIDE,
                                             TOKENS - t < 100 ? TOKENS - t : 100, STRIDE,
                                             gx + t * COLUMNS),
                        SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(first, gx, sizeof gx), 0);
    omp_set_num_threads(threads);
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(agrees_for_every_type),
                                      SNRQ_TEST(bits_depend_on_neither_threads_nor_batch),
                                      SNRQ_TEST(backward_agrees_for_every_type),
                                      SNRQ_TEST(bits_backward_depend_on_neither_threads_nor_batch)};
    return snrq_run_tests("linear", tests, sizeof tests / sizeof *tests, 1);
}
