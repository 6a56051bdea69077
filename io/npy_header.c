/* The beginning of a .npy file; see npy_header.h.
 *
 * Layout: "\x93NUMPY", major, minor, length of the header (u16, from version 2 on u32, both
 * little-endian), header, data. The header is a Python dict with the keys descr, fortran_order and
 * shape, and nothing else.
 */
#include "io/npy_header.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"

enum { MAGIC = 6, MOST_TEXT = 10000 /* NumPy's own limit */, MOST_DIGITS = 18 };

bool snrq_npy_is(const void *data, size_t bytes)
{
    return bytes >= MAGIC && memcmp(data, "\x93NUMPY", MAGIC) == 0;
}

/* The header's text, on the way through it. Ended by a NUL. */
typedef struct cursor {
    const char *path, *at;
} cursor;

static snrq_status refuse(const cursor *c, const char *expected)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(SNRQ_BAD_DATA, "%s: the header of .npy: expected %s, found '%s'", c->path,
                     expected, snrq_shown(c->at, shown));
}

static bool accept(cursor *c, const char *word)
{
    size_t length = strlen(word);
    c->at += strspn(c->at, " \n\t");
    if (strncmp(c->at, word, length) != 0) return false;
    c->at += length;
    return true;
}

static snrq_status read_string(cursor *c, char *out, size_t room)
{
    c->at += strspn(c->at, " \n\t");
    char quote = *c->at;
    const char *end = quote == '\'' || quote == '"' ? strchr(c->at + 1, quote) : NULL;
    if (end == NULL) return refuse(c, "a string");
    size_t length = (size_t)(end - c->at) - 1;
    if (length >= room) return refuse(c, "a shorter string");
    memcpy(out, c->at + 1, length);
    out[length] = '\0';
    c->at = end + 1;
    return SNRQ_OK;
}

/* '<i8': byte order, kind, bytes. */
static snrq_status read_type(cursor *c, snrq_npy_header *h)
{
    char type[16];
    const cursor before = *c;
    SNRQ_TRY(read_string(c, type, sizeof type));
    if (strchr("<>|=", type[0]) == NULL || strlen(type) < 3 || strspn(type + 2, "0123456789") > 3 ||
        type[2 + strspn(type + 2, "0123456789")] != '\0')
        return refuse(&before, "a type such as '<i4'");
    h->big_endian = type[0] == '>';
    h->kind = type[1];
    h->item_bytes = atoi(type + 2);
    return SNRQ_OK;
}

static snrq_status read_shape(cursor *c, snrq_npy_header *h)
{
    h->dims = 0;
    h->count = 1;
    if (!accept(c, "(")) return refuse(c, "'('");
    while (!accept(c, ")")) {
        c->at += strspn(c->at, " \n\t");
        size_t digits = strspn(c->at, "0123456789");
        if (digits == 0 || digits > MOST_DIGITS || h->dims == SNRQ_NPY_DIMENSIONS)
            return refuse(c, "at most 8 dimensions below 10^18");
        int64_t dimension = strtoll(c->at, NULL, 10);
        if (dimension > 0 && h->count > INT64_MAX / 1024 / dimension)
            return refuse(c, "fewer elements");
        h->count *= dimension;
        h->shape[h->dims++] = dimension;
        c->at += digits;
        if (!accept(c, ",") && *(c->at += strspn(c->at, " \n\t")) != ')') return refuse(c, "','");
    }
    return SNRQ_OK;
}

static snrq_status read_dict(cursor *c, snrq_npy_header *h)
{
    bool seen[3] = {false};
    if (!accept(c, "{")) return refuse(c, "'{'");
    while (!accept(c, "}")) {
        char key[16];
        const cursor before = *c;
        SNRQ_TRY(read_string(c, key, sizeof key));
        if (!accept(c, ":")) return refuse(c, "':'");
        int which = strcmp(key, "descr") == 0           ? 0
                    : strcmp(key, "fortran_order") == 0 ? 1
                    : strcmp(key, "shape") == 0         ? 2
                                                        : -1;
        if (which < 0 || seen[which])
            return refuse(&before, "the keys descr, fortran_order and shape, each once");
        seen[which] = true;
        if (which == 0) SNRQ_TRY(read_type(c, h));
        if (which == 2) SNRQ_TRY(read_shape(c, h));
        if (which == 1) {
            h->fortran_order = accept(c, "True");
            if (!h->fortran_order && !accept(c, "False")) return refuse(c, "True or False");
        }
        if (!accept(c, ",") && *(c->at += strspn(c->at, " \n\t")) != '}') return refuse(c, "','");
    }
    if (!seen[0] || !seen[1] || !seen[2])
        return refuse(c, "the keys descr, fortran_order and shape");
    c->at += strspn(c->at, " \n\t");
    return *c->at == '\0' ? SNRQ_OK : refuse(c, "nothing after the dict");
}

static snrq_status check_size(const char *path, size_t bytes, const snrq_npy_header *h)
{
    uint64_t wanted = (uint64_t)h->count * (uint64_t)h->item_bytes;
    if (bytes - h->begin == wanted) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: %" PRId64 " elements of %d bytes are %" PRIu64
                     " bytes, found %zu behind the header: was the file cut, or written twice?",
                     path, h->count, h->item_bytes, wanted, bytes - h->begin);
}

snrq_status snrq_npy_header_read(const char *path, const void *data, size_t bytes,
                                 snrq_npy_header *out)
{
    const unsigned char *byte = data;
    *out = (snrq_npy_header){0};
    size_t prefix = bytes > MAGIC && byte[MAGIC] == 1 ? 10 : 12;
    if (bytes < prefix)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %zu bytes, expected the header of .npy", path, bytes);
    if (byte[MAGIC] < 1 || byte[MAGIC] > 3)
        return snrq_fail(SNRQ_BAD_DATA, "%s: version %d.%d of .npy, expected 1.0, 2.0 or 3.0", path,
                         byte[MAGIC], byte[MAGIC + 1]);
    size_t length = (size_t)byte[8] | (size_t)byte[9] << 8;
    if (prefix == 12) length |= (size_t)byte[10] << 16 | (size_t)byte[11] << 24;
    if (length > MOST_TEXT || length > bytes - prefix)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: a header of %zu bytes, expected at most %d and no more than the file "
                         "has",
                         path, length, (int)MOST_TEXT);
    char text[MOST_TEXT + 1];
    memcpy(text, byte + prefix, length);
    text[length] = '\0';
    cursor c = {path, text};
    if (strlen(text) != length) {
        c.at += strlen(text);
        return refuse(&c, "no NUL");
    }
    out->begin = prefix + length;
    SNRQ_TRY(read_dict(&c, out));
    return check_size(path, bytes, out);
}
