/* Python's strings; see python_text.h. */
#include "pipeline/evaluate/python_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Of the steps of a match: texts of data sets take far fewer. */
enum { MOST_STEPS = 10 * 1000 * 1000 };

snrq_status snrq_string_add(snrq_string *s, snrq_piece piece)
{
    SNRQ_TRY(snrq_grow(s->bytes + piece.bytes, 1, "text", &s->data, &s->room));
    if (piece.bytes > 0) memcpy(s->data + s->bytes, piece.data, piece.bytes);
    s->bytes += piece.bytes;
    return SNRQ_OK;
}

snrq_piece snrq_string_piece(const snrq_string *s)
{
    return (snrq_piece){s->data != NULL ? s->data : "", s->bytes};
}

snrq_piece snrq_piece_of(const char *text)
{
    return (snrq_piece){text, strlen(text)};
}

/* The character at `at`; its bytes, at least one. */
static int32_t character_at(snrq_piece p, size_t at, size_t *bytes)
{
    utf8proc_int32_t character;
    utf8proc_ssize_t count = utf8proc_iterate((const utf8proc_uint8_t *)p.data + at,
                                              (utf8proc_ssize_t)(p.bytes - at), &character);
    *bytes = count > 0 ? (size_t)count : 1;
    return character;
}

/* str.isspace(): the Unicode property White_Space, and four separators of ASCII. */
static bool is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

snrq_piece snrq_python_rstrip(snrq_piece p)
{
    while (p.bytes > 0) {
        size_t at = p.bytes - 1, bytes;
        while (at > 0 && ((unsigned char)p.data[at] & 0xc0u) == 0x80u) at--;
        if (!is_space(character_at(p, at, &bytes))) break;
        p.bytes = at;
    }
    return p;
}

snrq_piece snrq_python_strip(snrq_piece p)
{
    size_t bytes;
    while (p.bytes > 0 && is_space(character_at(p, 0, &bytes))) {
        p.data += bytes;
        p.bytes -= bytes;
    }
    return snrq_python_rstrip(p);
}

snrq_status snrq_python_capitalize(snrq_piece p, snrq_string *out)
{
    size_t bytes;
    for (size_t at = 0; at < p.bytes; at += bytes) {
        char text[4];
        int32_t c = character_at(p, at, &bytes);
        c = at == 0 ? utf8proc_totitle(c) : utf8proc_tolower(c);
        size_t count = (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)text);
        SNRQ_TRY(snrq_string_add(out, (snrq_piece){text, count}));
    }
    return SNRQ_OK;
}

int64_t snrq_python_length(snrq_piece p)
{
    int64_t count = 0;
    for (size_t i = 0; i < p.bytes; i++) count += ((unsigned char)p.data[i] & 0xc0u) != 0x80u;
    return count;
}

int64_t snrq_python_words(snrq_piece p)
{
    int64_t words = 1;
    bool space = false;
    size_t bytes;
    for (size_t at = 0; at < p.bytes; at += bytes) {
        bool now = is_space(character_at(p, at, &bytes));
        words += now && !space;
        space = now;
    }
    return words;
}

/* The first place of `from` in p at or after `at`, or p.bytes. */
static size_t find(snrq_piece p, size_t at, const char *from, size_t bytes)
{
    while (at + bytes <= p.bytes) {
        const char *first = memchr(p.data + at, from[0], p.bytes - bytes - at + 1);
        if (first == NULL) break;
        if (memcmp(first, from, bytes) == 0) return (size_t)(first - p.data);
        at = (size_t)(first - p.data) + 1;
    }
    return p.bytes;
}

snrq_status snrq_python_replace(snrq_string *s, const char *from, const char *to)
{
    snrq_piece all = snrq_string_piece(s);
    snrq_string out = {0};
    snrq_status status = SNRQ_OK;
    size_t bytes = strlen(from), at = 0, next = find(all, 0, from, bytes);
    if (next == all.bytes) return SNRQ_OK;
    for (; status == SNRQ_OK && next < all.bytes; next = find(all, at, from, bytes)) {
        status = snrq_string_add(&out, (snrq_piece){all.data + at, next - at});
        if (status == SNRQ_OK) status = snrq_string_add(&out, snrq_piece_of(to));
        at = next + bytes;
    }
    if (status == SNRQ_OK)
        status = snrq_string_add(&out, (snrq_piece){all.data + at, all.bytes - at});
    free(status == SNRQ_OK ? s->data : out.data);
    if (status == SNRQ_OK) *s = out;
    return status;
}

/* Substitutes into `out`, which has room for a longer text if this one is not enough. */
static int substitute(const pcre2_code *code, pcre2_match_context *limits, snrq_piece p,
                      const char *to, snrq_string *out)
{
    int result = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE bytes = p.bytes + 64;
    for (int attempt = 0; attempt < 2 && result == PCRE2_ERROR_NOMEMORY; attempt++) {
        if (snrq_grow(bytes, 1, "text", &out->data, &out->room) != SNRQ_OK) return result;
        bytes = out->room;
        result = pcre2_substitute(code, (PCRE2_SPTR)p.data, p.bytes, 0,
                                  PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH, NULL,
                                  limits, (PCRE2_SPTR)to, PCRE2_ZERO_TERMINATED,
                                  (PCRE2_UCHAR *)out->data, &bytes);
    }
    out->bytes = bytes;
    return result;
}

snrq_status snrq_python_substitute(snrq_string *s, const char *pattern, const char *to)
{
    int error;
    PCRE2_SIZE place;
    snrq_string out = {0};
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &error, &place, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    int result = PCRE2_ERROR_NOMEMORY;
    if (code != NULL && limits != NULL) {
        pcre2_set_match_limit(limits, MOST_STEPS);
        result = substitute(code, limits, snrq_string_piece(s), to, &out);
    }
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
    free(result >= 0 ? s->data : out.data);
    if (result >= 0) *s = out;
    if (result >= 0) return SNRQ_OK;
    if (result == PCRE2_ERROR_MATCHLIMIT || result == PCRE2_ERROR_DEPTHLIMIT ||
        result == PCRE2_ERROR_HEAPLIMIT)
        return snrq_fail(SNRQ_BAD_DATA, "the pattern %s takes too long on this text", pattern);
    return snrq_fail(SNRQ_INTERNAL, "the pattern %s: error %d of PCRE2", pattern, result);
}
