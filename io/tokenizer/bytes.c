/* Byte-level text: every byte of UTF-8 stands as one printable character, and back.
 *
 * The bytes 33-126, 161-172 and 174-255 are the characters of the same number; the other 68 are,
 * in order, U+0100, U+0101, ... Source: the byte encoder of GPT-2.
 */
#include <string.h>

#include "io/tokenizer/internal.h"

enum { ALPHABET = 256, OTHERS = 68 };

static bool stands_for_itself(int byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

void snrq_byte_alphabet_create(snrq_byte_alphabet *out)
{
    uint32_t other = 0;
    memset(out->bytes, 0xff, sizeof out->bytes);
    for (int byte = 0; byte < ALPHABET; byte++) {
        uint32_t character = stands_for_itself(byte) ? (uint32_t)byte : ALPHABET + other++;
        bool two = character >= 0x80;
        out->bytes[character] = (int16_t)byte;
        out->length[byte] = two ? 2 : 1;
        out->text[byte][0] = (char)(two ? 0xc0 | character >> 6 : character);
        out->text[byte][1] = (char)(0x80 | (character & 0x3f));
    }
}

snrq_status snrq_bytes_spell(const snrq_byte_alphabet *alphabet, const char *text, size_t bytes,
                             snrq_buffer *out)
{
    SNRQ_TRY(snrq_buffer_reserve(out, 2 * bytes));
    char *to = out->data + out->used;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)text[i];
        to[0] = alphabet->text[byte][0];
        if (alphabet->length[byte] == 2) to[1] = alphabet->text[byte][1];
        to += alphabet->length[byte];
    }
    out->used = (size_t)(to - out->data);
    return SNRQ_OK;
}

snrq_status snrq_bytes_read(const snrq_byte_alphabet *alphabet, const char *text, size_t bytes,
                            snrq_buffer *out)
{
    size_t before = out->used;
    for (size_t at = 0; at < bytes;) {
        uint32_t character = snrq_utf8_next(text, &at);
        int byte = character < ALPHABET + OTHERS ? alphabet->bytes[character] : -1;
        if (byte < 0) { /* such a token is not spelled in bytes */
            out->used = before;
            return snrq_buffer_append(out, text, bytes);
        }
        char c = (char)byte;
        SNRQ_TRY(snrq_buffer_append(out, &c, 1));
    }
    return SNRQ_OK;
}
