/* Token windows: what calibration and evaluation read.
 *
 * A set of windows is [count, length] token ids, cut from those of texts (text_tokens.h) or of a
 * file of ids (token_file.h), or drawn from documents as published programs do it (sampling.h).
 */
#ifndef SNRQ_WINDOWS_H
#define SNRQ_WINDOWS_H

#include <stdint.h>

#include "mpi/status.h"

/* Where a window was drawn. */
typedef struct snrq_window_place {
    int64_t document, start; /* of the documents, of the document's tokens; both from 0 on */
    int64_t rejected;        /* documents that were drawn before and were too short */
} snrq_window_place;

typedef struct snrq_windows {
    int64_t count, length;
    int64_t held_out;     /* the last of the windows, which nothing is fitted to */
    int64_t first_tokens; /* windows before these in which every token stands alone, as the first of
                             a text */
    int32_t *ids;         /* [count, length] owned */
    int64_t total_tokens; /* tokens of all texts or of the file; 0: not all were counted */
    int64_t distinct;     /* positions among these that windows cover, but for those held out; in
                             several: counted once */
    char fingerprint[33]; /* hash of ids, count and length, in hex */
    int64_t *start;       /* [count] where in the text; NULL: not one text. Owned */
    snrq_window_place *place; /* [count] of windows drawn from documents, else NULL; owned */
} snrq_windows;

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

/* Room for windows that are filled in by the caller, who says how many positions are distinct and
 * then calls snrq_windows_finish(). Errors as above. */
snrq_status snrq_windows_create(const char *source, int64_t total, int64_t count, int64_t length,
                                snrq_windows *out);
void snrq_windows_finish(snrq_windows *windows);

/* Adds windows that share no token with those there are, spread over the text: `wanted`, or as many
 * as fit. ids [total] of the text that the windows were cut from. */
snrq_status snrq_windows_hold_out(const int32_t *ids, int64_t total, int64_t wanted,
                                  snrq_windows *windows);

/* Adds `count` windows of tokens that each stand alone, drawn at random from those of the windows
 * there are, but for those held out, and put before the latter. A token that nothing comes before
 * is what all later ones attend to, and `count` texts show only `count` of them. */
snrq_status snrq_windows_add_first_tokens(int64_t count, uint64_t seed, snrq_windows *windows);

/* The windows that are texts to fit to: without those of single tokens, and those held out. Borrows
 * the ids. */
snrq_windows snrq_windows_of_text(const snrq_windows *windows);

/* Positions that windows from `starts` [count] on cover. Sorts them. */
int64_t snrq_windows_distinct(int64_t *starts, int64_t count, int64_t length);

void snrq_windows_free(snrq_windows *windows);

#endif
