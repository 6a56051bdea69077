/* Token ids in files; see token_file.h. */
#include "io/tokenizer/token_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/npy_header.h"
#include "io/tokenizer/text_tokens.h"

/* Far above any calibration text, far below what would be mistaken for one. */
static const size_t max_file = (size_t)16 << 30;

/* ---- .npy ---- */

/* The integer at `at`, as it was written. *negative: it is below zero, and *value its distance. */
static void integer_at(const snrq_npy_header *h, const unsigned char *at, uint64_t *value,
                       bool *negative)
{
    uint64_t bits = 0;
    for (int i = 0; i < h->item_bytes; i++)
        bits = bits << 8 | at[h->big_endian ? i : h->item_bytes - 1 - i];
    int unused = 64 - 8 * h->item_bytes;
    *negative = h->kind == 'i' && ((bits << unused) >> 63) != 0;
    if (*negative) bits = (UINT64_MAX >> unused) - bits + 1;
    *value = bits;
}

static snrq_status check_array(const char *path, const snrq_npy_header *h)
{
    bool whole = (h->kind == 'i' || h->kind == 'u') && (h->item_bytes == 1 || h->item_bytes == 2 ||
                                                        h->item_bytes == 4 || h->item_bytes == 8);
    if (!whole)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: elements of type %c%d, expected integers (i1 to i8, u1 to u8): "
                         "numpy.save(NEW, ids.astype('i4')) writes them so",
                         path, h->kind, h->item_bytes);
    if (h->dims != 1 && h->dims != 2)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %d dimensions, expected ids as [tokens] or [n, length]", path,
                         h->dims);
    if (h->dims == 2 && h->fortran_order && h->shape[0] > 1 && h->shape[1] > 1)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: column by column (fortran_order), expected row by row: "
                         "numpy.save(NEW, numpy.ascontiguousarray(ids)) writes it so",
                         path);
    if (h->count == 0) return snrq_fail(SNRQ_BAD_DATA, "%s: there are no token ids", path);
    return SNRQ_OK;
}

static snrq_status read_npy(const char *path, const char *data, size_t bytes, int64_t vocabulary,
                            int32_t **ids, int64_t *count)
{
    snrq_npy_header h;
    int32_t *out;
    SNRQ_TRY(snrq_npy_header_read(path, data, bytes, &h));
    SNRQ_TRY(check_array(path, &h));
    SNRQ_TRY(snrq_allocate_scratch((size_t)h.count, sizeof *out, path, &out));
    const unsigned char *at = (const unsigned char *)data + h.begin;
    for (int64_t i = 0; i < h.count; i++, at += h.item_bytes) {
        uint64_t value;
        bool negative;
        integer_at(&h, at, &value, &negative);
        if (!negative && value < (uint64_t)vocabulary && value <= INT32_MAX) {
            out[i] = (int32_t)value;
            continue;
        }
        free(out);
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: token %" PRId64 " is id %s%" PRIu64 ", expected 0..%" PRId64
                         " (the model's vocabulary): was the file made with this model's "
                         "tokenizer?",
                         path, i, negative ? "-" : "", value, vocabulary - 1);
    }
    *ids = out;
    *count = h.count;
    return SNRQ_OK;
}

/* ---- raw files that look like something else ---- */

/* The start of an unknown file, as far as it is looked at. */
typedef struct unknown {
    const unsigned char *data;
    size_t bytes;
    int64_t vocabulary;
} unknown;

enum { LOOKED_AT = 1 << 20, FEWEST = 4 /* ids that show a pattern */ };

static int32_t word_at(const unknown *u, size_t i)
{
    int32_t word;
    memcpy(&word, u->data + 4 * i, sizeof word);
    return word;
}

static bool is_id(const unknown *u, int64_t id)
{
    return id >= 0 && id < u->vocabulary;
}

/* High words are 0, or -1 for padding; low ones are not. `high` is the place of the high word. */
static bool looks_like_int64(const unknown *u, size_t high)
{
    size_t pairs = u->bytes / 8, other = 0;
    if (u->bytes % 8 != 0 || pairs < FEWEST) return false;
    for (size_t i = 0; i < pairs; i++) {
        int32_t word = word_at(u, 2 * i + high);
        if (word != 0 && word != -1) return false;
        other += word_at(u, 2 * i + 1 - high) != 0;
    }
    return 2 * other > pairs;
}

static bool looks_like_float32(const unknown *u)
{
    size_t other = 0;
    for (size_t i = 0; i < u->bytes / 4; i++) {
        float value;
        memcpy(&value, u->data + 4 * i, sizeof value);
        if (!(value >= 0.0f && value < (float)u->vocabulary) || value != floorf(value))
            return false;
        other += value != 0.0f;
    }
    return other >= FEWEST;
}

static bool looks_like_float64(const unknown *u)
{
    size_t other = 0;
    for (size_t i = 0; i < u->bytes / 8; i++) {
        double value;
        memcpy(&value, u->data + 8 * i, sizeof value);
        if (!(value >= 0.0 && value < (double)u->vocabulary) || value != floor(value)) return false;
        other += value != 0.0;
    }
    return u->bytes % 8 == 0 && other >= FEWEST;
}

static bool looks_like_big_endian(const unknown *u)
{
    size_t words = u->bytes / 4;
    for (size_t i = 0; i < words; i++)
        if (!is_id(u, (int32_t)__builtin_bswap32((uint32_t)word_at(u, i)))) return false;
    return words >= FEWEST;
}

/* All halves are ids, though most words are not. */
static bool looks_like_uint16(const unknown *u)
{
    size_t words = u->bytes / 4, beyond = 0;
    for (size_t i = 0; i < words; i++) {
        uint32_t word = (uint32_t)word_at(u, i);
        if (!is_id(u, word & 0xffffu) || !is_id(u, word >> 16)) return false;
        beyond += !is_id(u, (int32_t)word);
    }
    return words >= FEWEST && 2 * beyond > words;
}

static bool looks_like_text(const unknown *u)
{
    for (size_t i = 0; i < u->bytes; i++)
        if (u->data[i] < 0x20 && u->data[i] != '\n' && u->data[i] != '\r' && u->data[i] != '\t')
            return false;
    return u->bytes >= 4 * FEWEST;
}

/* Tokens of the GPT-2 trainer in C: 256 words of header, then uint16 or uint32. */
static bool looks_like_llm_c(const unknown *u)
{
    if (u->bytes < 1024) return false;
    int32_t magic = word_at(u, 0);
    return magic == 20240520 || magic == 20240801;
}

/* NULL, or NumPy's name of the type that it looks like; *what is for people. */
static const char *guess_type(const unknown *u, bool valid, const char **what)
{
    static const char *const names[] = {
        "int64", "float64", "float32", "big-endian int64", "big-endian int32", "uint16"};
    static const char *const types[] = {"<i8", "<f8", "<f4", ">i8", ">i4", "<u2"};
    const bool looks[] = {looks_like_int64(u, 1),
                          !valid && looks_like_float64(u),
                          !valid && looks_like_float32(u),
                          !valid && looks_like_int64(u, 0),
                          !valid && looks_like_big_endian(u),
                          !valid && looks_like_uint16(u)};
    for (size_t i = 0; i < sizeof looks / sizeof looks[0]; i++) {
        *what = names[i];
        if (looks[i]) return types[i];
    }
    return NULL;
}

static snrq_status refuse_type(const char *path, const unknown *u, bool valid)
{
    const char *what, *type = guess_type(u, valid, &what);
    if (type != NULL)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: expected little-endian int32 token ids, found what looks like %s; "
                         "numpy.save('NEW.npy', numpy.fromfile('%s', '%s')%s) makes a file that "
                         "can be read",
                         path, what, path, type, type[1] == 'f' ? ".astype('i4')" : "");
    if (!valid && looks_like_llm_c(u))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: expected little-endian int32 token ids, found a file of llm.c: "
                         "numpy.save('NEW.npy', numpy.fromfile('%s', '%s', offset=1024)) makes a "
                         "file that can be read",
                         path, path, word_at(u, 0) == 20240520 ? "<u2" : "<u4");
    if (!valid && looks_like_text(u))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: expected little-endian int32 token ids, found a text: `snrq "
                         "tokenize` makes ids of it",
                         path);
    return SNRQ_OK;
}

static snrq_status check_raw(const char *path, const char *data, size_t bytes, int64_t vocabulary)
{
    bool divides = bytes > 0 && bytes % sizeof(int32_t) == 0;
    size_t looked_at = bytes < LOOKED_AT ? bytes : LOOKED_AT;
    const unknown u = {(const unsigned char *)data, looked_at, vocabulary};
    const int32_t *ids = (const int32_t *)(const void *)data; /* from malloc: aligned */
    snrq_status status = SNRQ_OK;
    if (!divides)
        status = snrq_fail(
            SNRQ_BAD_DATA,
            "%s: %zu bytes, expected a multiple of 4 above 0: little-endian int32 token ids", path,
            bytes);
    if (divides)
        status = snrq_ids_check(
            path, ids, (int64_t)(bytes / sizeof *ids), vocabulary,
            "was the file made with this model's tokenizer, as little-endian int32?");
    if (status == SNRQ_OK) return refuse_type(path, &u, true);
    char message[1024];
    snprintf(message, sizeof message, "%s", snrq_error_message());
    SNRQ_TRY(refuse_type(path, &u, false));
    return snrq_fail(status, "%s", message);
}

snrq_status snrq_token_file(const char *path, int64_t vocabulary, int32_t **ids, int64_t *count)
{
    char *data;
    size_t bytes;
    *ids = NULL;
    *count = 0;
    SNRQ_TRY(snrq_file_read(path, max_file, &data, &bytes));
    if (snrq_npy_is(data, bytes)) {
        snrq_status status = read_npy(path, data, bytes, vocabulary, ids, count);
        free(data);
        return status;
    }
    snrq_status status = check_raw(path, data, bytes, vocabulary);
    if (status != SNRQ_OK) {
        free(data);
        return status;
    }
    *ids = (int32_t *)(void *)data; /* the format is the machine's */
    *count = (int64_t)(bytes / sizeof **ids);
    return SNRQ_OK;
}
