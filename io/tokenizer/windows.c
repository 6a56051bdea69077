/* Token windows; see windows.h. */
#include "io/tokenizer/windows.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

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
void snrq_windows_finish(snrq_windows *windows)
{
    unsigned char summary[2 * sizeof(int64_t) + 33];
    memcpy(summary, &windows->count, sizeof(int64_t));
    memcpy(summary + sizeof(int64_t), &windows->length, sizeof(int64_t));
    snrq_hash(windows->ids, (size_t)(windows->count * windows->length) * sizeof *windows->ids,
              (char *)summary + 2 * sizeof(int64_t));
    snrq_hash(summary, sizeof summary - 1, windows->fingerprint);
}

snrq_status snrq_windows_create(const char *source, int64_t total, int64_t count, int64_t length,
                                snrq_windows *out)
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
    snrq_status status =
        snrq_allocate((size_t)count, sizeof *out->start, "starts of windows", &out->start);
    if (status != SNRQ_OK) {
        snrq_windows_free(out);
        return status;
    }
    out->count = count;
    out->length = length;
    out->total_tokens = total;
    out->distinct = out->count * length;
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
    SNRQ_TRY(snrq_windows_create(source, total, count == 0 ? whole : count, length, out));
    memcpy(out->ids, ids, (size_t)(out->count * length) * sizeof *ids);
    for (int64_t i = 0; i < out->count; i++) out->start[i] = i * length;
    snrq_windows_finish(out);
    return SNRQ_OK;
}

static int compare_starts(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t snrq_windows_distinct(int64_t *starts, int64_t count, int64_t length)
{
    int64_t distinct = length;
    qsort(starts, (size_t)count, sizeof *starts, compare_starts);
    for (int64_t i = 1; i < count; i++) {
        int64_t step = starts[i] - starts[i - 1];
        distinct += step < length ? step : length;
    }
    return distinct;
}

/* Windows in the gaps between `starts` [count, sorted]: how many, and where number `which` is. */
static int64_t find_free(const int64_t *starts, const snrq_windows *w, int64_t total, int64_t which,
                         int64_t *start)
{
    int64_t found = 0, free_from = 0;
    for (int64_t i = 0; i <= w->count; i++) {
        int64_t end = i < w->count ? starts[i] : total;
        int64_t fit = end > free_from ? (end - free_from) / w->length : 0;
        if (which >= found && which < found + fit) *start = free_from + (which - found) * w->length;
        found += fit;
        if (i < w->count && starts[i] + w->length > free_from) free_from = starts[i] + w->length;
    }
    return found;
}

/* Room for so many items of a list that has `used` of them, or is NULL and stays so. */
static snrq_status grow_list(int64_t used, int64_t count, size_t size, const char *what, void *list)
{
    void *old, *wider = NULL;
    memcpy(&old, list, sizeof old);
    if (old == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)count, size, what, &wider));
    memcpy(wider, old, (size_t)used * size);
    free(old);
    memcpy(list, &wider, sizeof wider);
    return SNRQ_OK;
}

/* Room for so many windows. */
static snrq_status grow(int64_t count, snrq_windows *w)
{
    SNRQ_TRY(
        grow_list(w->count, count, (size_t)w->length * sizeof *w->ids, "token windows", &w->ids));
    SNRQ_TRY(grow_list(w->count, count, sizeof *w->start, "starts of windows", &w->start));
    return grow_list(w->count, count, sizeof *w->place, "places of windows", &w->place);
}

snrq_status snrq_windows_hold_out(const int32_t *ids, int64_t total, int64_t wanted,
                                  snrq_windows *w)
{
    int64_t *starts = NULL, start = 0, before = w->count;
    if (wanted < 1 || w->start == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate((size_t)w->count, sizeof *starts, "starts of windows", &starts));
    memcpy(starts, w->start, (size_t)w->count * sizeof *starts);
    qsort(starts, (size_t)w->count, sizeof *starts, compare_starts);
    int64_t room = find_free(starts, w, total, -1, &start), held = wanted < room ? wanted : room;
    snrq_status status = held > 0 ? grow(w->count + held, w) : SNRQ_OK;
    for (int64_t i = 0; status == SNRQ_OK && i < held; i++) {
        find_free(starts, w, total, i * room / held, &start);
        w->start[before + i] = start;
        memcpy(w->ids + (before + i) * w->length, ids + start, (size_t)w->length * sizeof *ids);
    }
    free(starts);
    if (status != SNRQ_OK || held == 0) return status;
    w->count = before + held;
    w->held_out = held;
    snrq_windows_finish(w);
    return SNRQ_OK;
}

snrq_status snrq_windows_add_first_tokens(int64_t count, uint64_t seed, snrq_windows *w)
{
    int64_t fitted = w->count - w->held_out, pool = fitted * w->length;
    if (count < 1 || pool < 1) return SNRQ_OK;
    SNRQ_TRY(grow(w->count + count, w));
    int32_t *ids = w->ids + pool;
    memmove(ids + count * w->length, ids, (size_t)(w->held_out * w->length) * sizeof *ids);
    for (int64_t i = 0; i < count * w->length; i++)
        ids[i] = w->ids[uniform(~seed, (uint64_t)i, (uint64_t)pool)];
    if (w->start != NULL)
        memmove(w->start + fitted + count, w->start + fitted,
                (size_t)w->held_out * sizeof *w->start);
    for (int64_t i = fitted; i < fitted + count; i++) {
        if (w->start != NULL) w->start[i] = 0;
        if (w->place != NULL) w->place[i] = (snrq_window_place){0};
    }
    w->count += count;
    w->first_tokens = count;
    snrq_windows_finish(w);
    return SNRQ_OK;
}

snrq_status snrq_windows_random(const char *source, const int32_t *ids, int64_t total,
                                int64_t count, int64_t length, uint64_t seed, snrq_windows *out)
{
    if (count < 1) {
        memset(out, 0, sizeof *out);
        return snrq_fail(SNRQ_USAGE, "%" PRId64 " random windows: expected at least 1", count);
    }
    int64_t *starts = NULL;
    SNRQ_TRY(snrq_windows_create(source, total, count, length, out));
    snrq_status status = snrq_allocate((size_t)count, sizeof *starts, "starts of windows", &starts);
    if (status != SNRQ_OK) {
        snrq_windows_free(out);
        return status;
    }
    for (int64_t i = 0; i < count; i++) {
        starts[i] = (int64_t)uniform(seed, (uint64_t)i, (uint64_t)(total - length) + 1);
        out->start[i] = starts[i];
        memcpy(out->ids + i * length, ids + starts[i], (size_t)length * sizeof *ids);
    }
    out->distinct = snrq_windows_distinct(starts, count, length);
    free(starts);
    snrq_windows_finish(out);
    return SNRQ_OK;
}

snrq_windows snrq_windows_of_text(const snrq_windows *w)
{
    return (snrq_windows){.count = w->count - w->held_out - w->first_tokens,
                          .length = w->length,
                          .ids = w->ids,
                          .total_tokens = w->total_tokens,
                          .distinct = w->distinct};
}

void snrq_windows_free(snrq_windows *windows)
{
    free(windows->ids);
    free(windows->start);
    free(windows->place);
    memset(windows, 0, sizeof *windows);
}
