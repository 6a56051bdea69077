/* Token windows; see windows.h. */
#include "io/tokenizer/windows.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

/* Far above any calibration text, far below what would be mistaken for one. */
static const size_t max_text = (size_t)16 << 30;

/* Every id must be one of the model's. `hint` is what to do about it. */
static snrq_status ids_check(const char *path, const int32_t *ids, int64_t count,
                             int64_t vocabulary, const char *hint)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: token %" PRId64 " is id %" PRId32 ", expected 0..%" PRId64
                             " (the model's vocabulary): %s",
                             path, i, ids[i], vocabulary - 1, hint);
    return SNRQ_OK;
}

snrq_status snrq_text_tokens(const char *path, const snrq_tokenizer *tokenizer, int64_t vocabulary,
                             int32_t **ids, int64_t *count)
{
    char *text;
    size_t bytes;
    *ids = NULL;
    *count = 0;
    SNRQ_TRY(snrq_file_read(path, max_text, &text, &bytes));
    snrq_status status = SNRQ_OK;
    if (bytes == 0) status = snrq_fail(SNRQ_BAD_DATA, "%s: the text is empty", path);
    if (status == SNRQ_OK) {
        status = snrq_tokenizer_encode(tokenizer, text, bytes, true, ids, count);
        if (status != SNRQ_OK) snrq_fail(status, "%s: %s", path, snrq_error_message());
    }
    free(text);
    if (status == SNRQ_OK)
        status = ids_check(path, *ids, *count, vocabulary,
                           "do tokenizer.json and config.json belong to the same model?");
    if (status != SNRQ_OK) {
        free(*ids);
        *ids = NULL;
        *count = 0;
    }
    return status;
}

snrq_status snrq_token_file(const char *path, int64_t vocabulary, int32_t **ids, int64_t *count)
{
    char *data;
    size_t bytes;
    *ids = NULL;
    *count = 0;
    SNRQ_TRY(snrq_file_read(path, max_text, &data, &bytes));
    snrq_status status = SNRQ_OK;
    int32_t *tokens =
        (int32_t *)(void *)data; /* from malloc: aligned; the format is the machine's */
    int64_t n = (int64_t)(bytes / sizeof *tokens);
    if (bytes == 0 || bytes % sizeof *tokens != 0)
        status = snrq_fail(
            SNRQ_BAD_DATA,
            "%s: %zu bytes, expected a multiple of 4 above 0: little-endian int32 token ids", path,
            bytes);
    if (status == SNRQ_OK)
        status =
            ids_check(path, tokens, n, vocabulary,
                      "was the file made with this model's tokenizer, as little-endian int32?");
    if (status != SNRQ_OK) {
        free(data);
        return status;
    }
    *ids = tokens;
    *count = n;
    return SNRQ_OK;
}

/* The generator splitmix64 (Steele, Lea, Flood 2014): its output function ... */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ... and its step. */
static const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);

/* A uniform number in [0, range) that depends on (seed, index) only. Values below 2^64 mod range
 * are drawn again, so that every result is equally likely. */
static uint64_t uniform(uint64_t seed, uint64_t index, uint64_t range)
{
    uint64_t state = mix(mix(seed + golden) + index * golden);
    uint64_t rejected = (UINT64_MAX - range + 1) % range, drawn;
    do drawn = mix(state += golden);
    while (drawn < rejected);
    return drawn % range;
}

/* XXH3-128 of count, length and the hash of the ids, each count as 8 little-endian bytes. */
static void fingerprint(snrq_windows *windows)
{
    unsigned char summary[2 * sizeof(int64_t) + 33];
    memcpy(summary, &windows->count, sizeof(int64_t));
    memcpy(summary + sizeof(int64_t), &windows->length, sizeof(int64_t));
    snrq_hash(windows->ids, (size_t)(windows->count * windows->length) * sizeof *windows->ids,
              (char *)summary + 2 * sizeof(int64_t));
    snrq_hash(summary, sizeof summary - 1, windows->fingerprint);
}

static snrq_status windows_allocate(const char *source, int64_t total, int64_t count,
                                    int64_t length, snrq_windows *out)
{
    memset(out, 0, sizeof *out);
    if (length < 1 || count < 0)
        return snrq_fail(SNRQ_USAGE,
                         "windows of %" PRId64 " tokens, %" PRId64
                         " of them: expected at least 1 token",
                         length, count);
    if (total < length)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %" PRId64 " tokens, but one window is %" PRId64
                         ": give a longer text or a shorter window",
                         source, total, length);
    if (count > INT64_MAX / 4 / length)
        return snrq_fail(SNRQ_USAGE,
                         "%" PRId64 " windows of %" PRId64 " tokens are more than can be held",
                         count, length);
    SNRQ_TRY(snrq_allocate((size_t)(count * length), sizeof *out->ids, "token windows", &out->ids));
    out->count = count;
    out->length = length;
    out->total_tokens = total;
    return SNRQ_OK;
}

snrq_status snrq_windows_consecutive(const char *source, const int32_t *ids, int64_t total,
                                     int64_t count, int64_t length, snrq_windows *out)
{
    int64_t whole = length > 0 ? total / length : 0;
    if (length > 0 && total >= length && count > whole) {
        memset(out, 0, sizeof *out);
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: %" PRId64 " tokens make %" PRId64 " windows of %" PRId64
                         ", but %" PRId64 " were asked for: give a longer text or ask for fewer",
                         source, total, whole, length, count);
    }
    SNRQ_TRY(windows_allocate(source, total, count == 0 ? whole : count, length, out));
    memcpy(out->ids, ids, (size_t)(out->count * length) * sizeof *ids);
    fingerprint(out);
    return SNRQ_OK;
}

snrq_status snrq_windows_random(const char *source, const int32_t *ids, int64_t total,
                                int64_t count, int64_t length, uint64_t seed, snrq_windows *out)
{
    if (count < 1) {
        memset(out, 0, sizeof *out);
        return snrq_fail(SNRQ_USAGE, "%" PRId64 " random windows: expected at least 1", count);
    }
    SNRQ_TRY(windows_allocate(source, total, count, length, out));
    for (int64_t i = 0; i < count; i++) {
        uint64_t start = uniform(seed, (uint64_t)i, (uint64_t)(total - length) + 1);
        memcpy(out->ids + i * length, ids + start, (size_t)length * sizeof *ids);
    }
    fingerprint(out);
    return SNRQ_OK;
}

void snrq_windows_free(snrq_windows *windows)
{
    free(windows->ids);
    memset(windows, 0, sizeof *windows);
}
