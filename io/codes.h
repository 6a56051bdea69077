/* Codes packed densely: streams of bits, in bytes as block files store them, or in 32-bit words as
 * GPTQ and compressed-tensors do.
 *
 * A stream of codes is one stream of bits, the lowest bit of the first code first: code i takes
 * bits i * bits to (i + 1) * bits - 1. Bit k of the stream is bit k mod 8 of byte k div 8, and bit
 * k mod 32 of word k div 32, which is the same memory on a little-endian machine. A code may cross
 * bytes or words (3 bits); 8 codes make `bits` whole bytes, 32 codes `bits` whole words. Unused
 * bits at the end are 0. Codes are below 2^bits, bits are 1 to 8.
 */
#ifndef SNRQ_CODES_H
#define SNRQ_CODES_H

#include <stdint.h>

/* Bytes of a stream: ceil(count * bits / 8). */
int64_t snrq_packed_bytes(int64_t count, int bits);
/* packed [snrq_packed_bytes(count, bits)] <- codes [count], and back. */
void snrq_pack_codes(const uint8_t *codes, int64_t count, int bits, uint8_t *packed);
void snrq_unpack_codes(const uint8_t *packed, int64_t count, int bits, uint8_t *codes);

/* Words of a stream: ceil(count * bits / 32). */
int64_t snrq_packed_words(int64_t count, int bits);
/* words [rows, snrq_packed_words(columns, bits)] <- codes [rows, columns], every row a stream. */
void snrq_pack_rows(const uint8_t *codes, int64_t rows, int64_t columns, int bits, uint32_t *words);
/* The same streams as columns: word w of row r goes to words[w * stride + r]; words is
 * [snrq_packed_words(columns, bits), stride], stride >= rows. */
void snrq_pack_columns(const uint8_t *codes, int64_t rows, int64_t columns, int bits,
                       uint32_t *words, int64_t stride);

#endif
