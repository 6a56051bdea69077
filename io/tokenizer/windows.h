/* Token windows: what calibration and evaluation read.
 *
 * A set of windows is [count, length] token ids, from a text (tokenized once, as a whole, with
 * special tokens) or from a file of int32 ids. Every rank reads the same file and gets the same
 * windows.
 */
#ifndef SNRQ_WINDOWS_H
#define SNRQ_WINDOWS_H

#include <stdint.h>

#include "io/tokenizer/tokenizer.h"

typedef struct snrq_windows {
    int64_t count, length;
    int32_t *ids;         /* [count, length] owned */
    int64_t total_tokens; /* tokens of the whole text or file */
    char fingerprint[33]; /* hash of ids, count and length, in hex */
} snrq_windows;

/* Tokens of a text file / of a little-endian int32 file. *ids is allocated; the caller frees it.
 * The token file's size must be a multiple of 4 and every id in [0, vocabulary). */
snrq_status snrq_text_tokens(const char *path, const snrq_tokenizer *tokenizer, int64_t vocabulary,
                             int32_t **ids, int64_t *count);
snrq_status snrq_token_file(const char *path, int64_t vocabulary, int32_t **ids, int64_t *count);

/* Cuts consecutive, non-overlapping windows: the first `count`, or as many as there are if count is
 * 0; the remainder is dropped. Random windows: `count` starts drawn uniformly from [0, total -
 * length], with a generator that depends on `seed` and the index of the window only. `source` names
 * the file in messages: a text shorter than one window (or with fewer than count windows) is
 * SNRQ_BAD_DATA and says both numbers. windows->ids is owned by *out; release with
 * snrq_windows_free(). */
snrq_status snrq_windows_consecutive(const char *source, const int32_t *ids, int64_t total,
                                     int64_t count, int64_t length, snrq_windows *out);
snrq_status snrq_windows_random(const char *source, const int32_t *ids, int64_t total,
                                int64_t count, int64_t length, uint64_t seed, snrq_windows *out);
void snrq_windows_free(snrq_windows *windows);

#endif
