/* Packed codes; see codes.h. */
#include "io/codes.h"

/* Columns are written in runs of this many rows: whole cache lines. */
enum { RUN = 16, CODES = 32, MAX_BITS = 8 };

int64_t snrq_packed_bytes(int64_t count, int bits)
{
    return (count * bits + 7) / 8;
}

void snrq_pack_codes(const uint8_t *codes, int64_t count, int bits, uint8_t *packed)
{
    /* Eight codes are `bits` whole bytes; a 64-bit word holds them, first code lowest. */
    for (int64_t i = 0; i < count; i += 8) {
        int items = count - i < 8 ? (int)(count - i) : 8;
        int bytes = (items * bits + 7) / 8;
        uint64_t word = 0;
        for (int k = 0; k < items; k++) word |= (uint64_t)codes[i + k] << (k * bits);
        for (int k = 0; k < bytes; k++) *packed++ = (uint8_t)(word >> (8 * k));
    }
}

void snrq_unpack_codes(const uint8_t *packed, int64_t count, int bits, uint8_t *codes)
{
    uint64_t mask = (UINT64_C(1) << bits) - 1;
    for (int64_t i = 0; i < count; i += 8) {
        int items = count - i < 8 ? (int)(count - i) : 8;
        int bytes = (items * bits + 7) / 8;
        uint64_t word = 0;
        for (int k = 0; k < bytes; k++) word |= (uint64_t)*packed++ << (8 * k);
        for (int k = 0; k < items; k++) codes[i + k] = (uint8_t)((word >> (k * bits)) & mask);
    }
}

int64_t snrq_packed_words(int64_t count, int bits)
{
    return (count * bits + 31) / 32;
}

/* Up to 32 codes of a stream; all `bits` words are set, those behind the last code to 0. */
static void pack_some(const uint8_t *codes, int64_t count, int bits, uint32_t *words)
{
    for (int w = 0; w < bits; w++) words[w] = 0;
    /* On a little-endian machine (dtype.c) bytes and words of a stream are the same. */
    snrq_pack_codes(codes, count, bits, (uint8_t *)words);
}

void snrq_pack_rows(const uint8_t *codes, int64_t rows, int64_t columns, int bits, uint32_t *words)
{
    const int64_t width = snrq_packed_words(columns, bits);
    for (int64_t r = 0; r < rows; r++, codes += columns, words += width) {
        words[width - 1] = 0;
        snrq_pack_codes(codes, columns, bits, (uint8_t *)words);
    }
}

void snrq_pack_columns(const uint8_t *codes, int64_t rows, int64_t columns, int bits,
                       uint32_t *words, int64_t stride)
{
    const int64_t width = snrq_packed_words(columns, bits);
    uint32_t some[RUN][MAX_BITS];
    for (int64_t r = 0; r < rows; r += RUN) {
        const int64_t run = rows - r < RUN ? rows - r : RUN;
        for (int64_t c = 0; c < columns; c += CODES) {
            const int64_t count = columns - c < CODES ? columns - c : CODES;
            const int64_t first = c / CODES * bits;
            for (int64_t i = 0; i < run; i++)
                pack_some(codes + (r + i) * columns + c, count, bits, some[i]);
            for (int64_t w = 0; w < bits && first + w < width; w++)
                for (int64_t i = 0; i < run; i++) words[(first + w) * stride + r + i] = some[i][w];
        }
    }
}
