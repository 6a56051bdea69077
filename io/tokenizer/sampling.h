/* Windows as the programs of published results draw them, with Python's random numbers: the same
 * seed gives the same windows.
 *
 * Source: the loaders of the GPTQ code (arXiv 2210.17323), which most later papers took over, and
 * of the SNRQ code. Both draw a document until it has at least as many tokens as a window, then
 * where the window starts; they differ in the last start:
 *
 *     gptq    randint(0, n - length - 1): never the last one, and no start at all in a document of
 *             exactly `length` tokens, where the program ends with an error
 *     snrq    randint(0, n - length), if there is more than one start
 */
#ifndef SNRQ_SAMPLING_H
#define SNRQ_SAMPLING_H

#include "io/tokenizer/documents.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokenizer/windows.h"

typedef enum snrq_sampling_rule { SNRQ_SAMPLING_GPTQ, SNRQ_SAMPLING_SNRQ } snrq_sampling_rule;

/* What windows are drawn from. All borrowed. */
typedef struct snrq_sampling_source {
    const char *name; /* in messages */
    const snrq_documents *documents;
    const snrq_tokenizer *tokenizer;
    int64_t vocabulary;
} snrq_sampling_source;

/* Draws `count` windows of `length` tokens from documents, each tokenized by itself with the
 * special tokens. out->place says where they are. Only documents that are drawn are tokenized. Not
 * collective. SNRQ_BAD_DATA: no document is long enough, or the rule has no start in one that was
 * drawn. Release with snrq_windows_free(). */
snrq_status snrq_sampling_documents(const snrq_sampling_source *source, snrq_sampling_rule rule,
                                    int64_t count, int64_t length, uint64_t seed,
                                    snrq_windows *out);

/* Draws `count` windows from a text of `total` tokens: start = randint(0, total - length - 1), as
 * both codes do for WikiText-2. Errors as snrq_windows_random(). */
snrq_status snrq_sampling_text(const char *source, const int32_t *ids, int64_t total, int64_t count,
                               int64_t length, uint64_t seed, snrq_windows *out);

#endif
