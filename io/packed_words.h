/* Codes packed densely into 32-bit words, as GPTQ and compressed-tensors store them.
 *
 * A stream of codes is one stream of bits, the lowest bit of the first code first: code i takes
 * bits i * bits to (i + 1) * bits - 1, and bit k of the stream is bit k mod 32 of word k div 32, so
 * 32 codes make `bits` words, whether a code crosses words (3 bits) or not. Unused bits at the end
 * are 0.
 */
#ifndef SNRQ_PACKED_WORDS_H
#define SNRQ_PACKED_WORDS_H

#include <stdint.h>

/* Words of a stream: ceil(count * bits / 32). */
int64_t snrq_packed_words(int64_t count, int bits);

/* words [rows, snrq_packed_words(columns, bits)] <- codes [rows, columns], every row a stream. */
void snrq_pack_rows(const uint8_t *codes, int64_t rows, int64_t columns, int bits, uint32_t *words);

/* The same streams as columns: word w of row r goes to words[w * stride + r]; words is
 * [snrq_packed_words(columns, bits), stride], stride >= rows. */
void snrq_pack_columns(const uint8_t *codes, int64_t rows, int64_t columns, int bits,
                       uint32_t *words, int64_t stride);

#endif
