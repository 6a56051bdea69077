/* Unicode normalization forms, with the tables of utf8proc.
 *
 * Below a first character that can change (U+0300 for NFC, U+0080 otherwise) every character is
 * its own normal form and composes with none before it. A text is therefore cut in front of such
 * characters: stretches of them are copied, and only those with others are normalized. Marks are
 * sorted here, since utf8proc's own sorting takes quadratic time for long runs of them.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "io/tokenizer/internal.h"

/* What one character can become at most (U+FDFA has 18). */
enum { MAX_DECOMPOSED = 32, CLASSES = 256 };

static bool is_plain(snrq_unicode_form form, const char *text, size_t at)
{
    unsigned char first = (unsigned char)text[at];
    return first < 0x80 ||
           (form == SNRQ_NFC && first < 0xcc); /* 0xcc 0x80 is U+0300; also inner bytes */
}

/* End of the plain stretch that begins at `at`. */
static size_t plain_end(snrq_unicode_form form, const char *text, size_t bytes, size_t at)
{
    while (at < bytes && is_plain(form, text, at)) at++;
    return at;
}

/* End of the stretch that has to be normalized. */
static size_t other_end(snrq_unicode_form form, const char *text, size_t bytes, size_t at)
{
    while (at < bytes && !is_plain(form, text, at)) snrq_utf8_next(text, &at);
    return at;
}

static int mark_class(int32_t character)
{
    return (int)utf8proc_get_property(character)->combining_class;
}

/* Sorts [count] marks by class, those of one class in their order: counting sort. */
static void sort_marks(int32_t *marks, size_t count, int32_t *scratch)
{
    size_t starts[CLASSES + 1] = {0};
    for (size_t i = 0; i < count; i++) starts[mark_class(marks[i]) + 1]++;
    for (int c = 0; c < CLASSES; c++) starts[c + 1] += starts[c];
    for (size_t i = 0; i < count; i++) scratch[starts[mark_class(marks[i])]++] = marks[i];
    memcpy(marks, scratch, count * sizeof *marks);
}

static void sort_all_marks(int32_t *characters, size_t count, int32_t *scratch)
{
    for (size_t begin = 0; begin < count; begin++) {
        size_t end = begin;
        while (end < count && mark_class(characters[end]) != 0) end++;
        if (end - begin > 1) sort_marks(characters + begin, end - begin, scratch);
        begin = end;
    }
}

/* Decomposes `text` into *out [*count], allocated, with as much again behind it as scratch. */
static snrq_status decompose(snrq_unicode_form form, const char *text, size_t bytes, int32_t **out,
                             size_t *count)
{
    bool compatible = form == SNRQ_NFKC || form == SNRQ_NFKD;
    utf8proc_option_t options =
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
    int32_t found[MAX_DECOMPOSED];
    size_t at = 0;
    snrq_buffer all = {0};
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && at < bytes) {
        int boundary = 0;
        int32_t character = (int32_t)snrq_utf8_next(text, &at);
        utf8proc_ssize_t n =
            utf8proc_decompose_char(character, found, MAX_DECOMPOSED, options, &boundary);
        if (n < 0 || n > MAX_DECOMPOSED)
            status = snrq_fail(SNRQ_INTERNAL, "U+%04X cannot be normalized: %s",
                               (unsigned)character, utf8proc_errmsg(n));
        else
            status = snrq_buffer_append(&all, (const char *)found, (size_t)n * sizeof *found);
    }
    *count = all.used / sizeof **out;
    *out = NULL;
    if (status == SNRQ_OK) status = snrq_allocate(2 * *count, sizeof **out, "normalized text", out);
    if (status == SNRQ_OK && all.used > 0) memcpy(*out, all.data, all.used);
    free(all.data);
    return status;
}

static snrq_status append_characters(const int32_t *characters, size_t count, snrq_buffer *out)
{
    for (size_t i = 0; i < count; i++) {
        utf8proc_uint8_t text[4];
        utf8proc_ssize_t bytes = utf8proc_encode_char(characters[i], text);
        SNRQ_TRY(snrq_buffer_append(out, (const char *)text, (size_t)bytes));
    }
    return SNRQ_OK;
}

static snrq_status append_normalized(snrq_unicode_form form, const char *text, size_t bytes,
                                     snrq_buffer *out)
{
    int32_t *characters;
    size_t count;
    SNRQ_TRY(decompose(form, text, bytes, &characters, &count));
    sort_all_marks(characters, count, characters + count);
    if (form == SNRQ_NFC || form == SNRQ_NFKC)
        count = (size_t)utf8proc_normalize_utf32(characters, (utf8proc_ssize_t)count,
                                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    snrq_status status = append_characters(characters, count, out);
    free(characters);
    return status;
}

snrq_status snrq_unicode_normalize(snrq_unicode_form form, const char *text, size_t bytes,
                                   snrq_buffer *out)
{
    for (size_t done = 0; done < bytes;) {
        size_t plain = plain_end(form, text, bytes, done);
        size_t other = other_end(form, text, bytes, plain);
        /* The last plain character may compose with what follows. */
        if (other > plain && plain > done) plain = snrq_utf8_before(text, plain);
        SNRQ_TRY(snrq_buffer_append(out, text + done, plain - done));
        if (other > plain) SNRQ_TRY(append_normalized(form, text + plain, other - plain, out));
        done = other;
    }
    return SNRQ_OK;
}
