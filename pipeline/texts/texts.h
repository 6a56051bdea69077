/* The texts of a command: files in order, and what to tell about them. */
#ifndef SNRQ_TEXTS_H
#define SNRQ_TEXTS_H

#include "io/tokenizer/text_tokens.h"
#include "mpi/context.h"

/* Files that belong together, and the key under which those that are JSON lines hold the text. All
 * borrowed. */
typedef struct snrq_texts {
    int count;
    const char *const *path; /* [count] */
    const char *key;         /* NULL: "text" */
} snrq_texts;

/* Reads texts; their tokens follow each other. Rank 0 notes what a user may not expect of them. Not
 * collective. Release with snrq_tokens_free(), after a failure, too. */
snrq_status snrq_texts_read(const snrq_context *context, const snrq_texts *texts,
                            const snrq_tokenizer *tokenizer, int64_t vocabulary, snrq_tokens *out);

/* Reads texts into memory, as they are. Otherwise as above. Release with snrq_documents_free(). */
snrq_status snrq_texts_hold(const snrq_context *context, const snrq_texts *texts,
                            snrq_documents *out);

/* What messages call them all: "a.txt", "a.txt and 2 others". */
void snrq_texts_name(const snrq_texts *texts, char *out, size_t size);

#endif
