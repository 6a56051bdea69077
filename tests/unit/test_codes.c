/* Packed codes in bytes and in 32-bit words: against a twin that sets one bit at a time. */
#include <string.h>

#include "io/codes.h"
#include "tests/snrq_test.h"

enum { MOST_CODES = 1 << 14, MOST_WORDS = 1 << 13 };

static uint8_t codes[MOST_CODES];
static uint32_t words[MOST_WORDS], expected[MOST_WORDS];

static void fill_codes(int64_t count, int bits)
{
    uint64_t h = 88172645463325252u + (uint64_t)bits;
    for (int64_t i = 0; i < count; i++) {
        h ^= h << 13;
        h ^= h >> 7;
        h ^= h << 17;
        codes[i] = (uint8_t)(h & ((1u << bits) - 1));
    }
}

/* Word w of stream r is at w * step + r * next. */
static void pack_reference(int64_t rows, int64_t columns, int bits, int64_t step, int64_t next)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < columns * bits; k++)
            if (codes[r * columns + k / bits] >> (k % bits) & 1)
                expected[k / 32 * step + r * next] |= (uint32_t)1 << (k % 32);
}

static void check_rows(int64_t rows, int64_t columns, int bits)
{
    int64_t width = (columns * bits + 31) / 32;
    memset(words, 0xa5, sizeof words);
    memset(expected, 0, sizeof expected);
    fill_codes(rows * columns, bits);
    snrq_pack_rows(codes, rows, columns, bits, words);
    pack_reference(rows, columns, bits, 1, width);
    CU_ASSERT_EQUAL(snrq_packed_words(columns, bits), width);
    CU_ASSERT_EQUAL(memcmp(words, expected, (size_t)(rows * width) * sizeof *words), 0);
    CU_ASSERT_EQUAL(words[rows * width], 0xa5a5a5a5u); /* nothing behind them */
}

/* Columns [at, at + rows) of a table that is wider. */
static void check_columns(int64_t rows, int64_t columns, int bits, int64_t at, int64_t stride)
{
    int64_t width = (columns * bits + 31) / 32;
    memset(words, 0, sizeof words);
    memset(expected, 0, sizeof expected);
    fill_codes(rows * columns, bits);
    snrq_pack_columns(codes, rows, columns, bits, words + at, stride);
    pack_reference(rows, columns, bits, stride, 1);
    CU_ASSERT_EQUAL(memcmp(words + at, expected, (size_t)(width * stride) * sizeof *words), 0);
    for (int64_t i = 0; i < at; i++) CU_ASSERT_EQUAL(words[i], 0);
}

static void rows_are_streams(void)
{
    static const int64_t lengths[] = {1, 7, 31, 32, 33, 64, 100, 128};
    for (int bits = 2; bits <= 8; bits++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            check_rows(5, lengths[i], bits);
}

static void columns_are_streams(void)
{
    static const int64_t lengths[] = {1, 31, 32, 40, 96};
    for (int bits = 2; bits <= 8; bits++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            check_columns(1, lengths[i], bits, 0, 1);
            check_columns(16, lengths[i], bits, 0, 16);
            check_columns(37, lengths[i], bits, 3, 45);
        }
}

/* The words that GPTQ checkpoints are known by. */
static void known_words(void)
{
    memset(codes, 7, 8);
    snrq_pack_rows(codes, 1, 8, 4, words);
    CU_ASSERT_EQUAL(words[0], 0x77777777u);
    for (int i = 0; i < 32; i++) codes[i] = i == 10 || i == 21 ? 7 : 0;
    snrq_pack_rows(codes, 1, 32, 3, words);
    CU_ASSERT_EQUAL(words[0], 0xc0000000u);
    CU_ASSERT_EQUAL(words[1], 0x80000001u);
    CU_ASSERT_EQUAL(words[2], 0x00000003u);
}

static void bytes_are_a_stream(void)
{
    enum { MOST = 70 };
    for (int bits = 2; bits <= 8; bits++)
        for (int count = 0; count <= MOST; count++) {
            uint8_t some[MOST] = {0}, back[MOST] = {0}, packed[MOST + 1], naive[MOST + 1] = {0};
            memset(packed, 0xee, sizeof packed);
            for (int i = 0; i < count; i++)
                some[i] = (uint8_t)((i * 37 + bits) & ((1 << bits) - 1));
            for (int i = 0; i < count * bits; i++)
                naive[i / 8] |= (uint8_t)((some[i / bits] >> (i % bits) & 1) << (i % 8));
            int64_t bytes = snrq_packed_bytes(count, bits);
            CU_ASSERT_EQUAL(bytes, (count * bits + 7) / 8);
            snrq_pack_codes(some, count, bits, packed);
            CU_ASSERT_EQUAL(memcmp(packed, naive, (size_t)bytes), 0);
            CU_ASSERT_EQUAL(packed[bytes], 0xee);
            snrq_unpack_codes(packed, count, bits, back);
            CU_ASSERT_EQUAL(memcmp(some, back, sizeof some), 0);
        }
}

int main(void)
{
    const snrq_test tests[] = {SNRQ_TEST(bytes_are_a_stream), SNRQ_TEST(rows_are_streams),
                               SNRQ_TEST(columns_are_streams), SNRQ_TEST(known_words)};
    return snrq_run_tests("codes", tests, sizeof tests / sizeof *tests, 1);
}
