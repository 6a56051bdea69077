/* The pieces of a SentencePiece model (tokenizer.model): their texts, scores and kinds. Nothing
 * else of the file is looked at: text is cut by tokenizer.json (tokenizer.h). */
#ifndef SNRQ_SENTENCEPIECE_H
#define SNRQ_SENTENCEPIECE_H

#include <stdint.h>

#include "mpi/status.h"

typedef struct snrq_sentencepiece {
    const char *text; /* [bytes] UTF-8 without NUL at its end; borrowed from the file */
    size_t bytes;
    float score;
    int kind; /* 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte */
} snrq_sentencepiece;

typedef struct snrq_sentencepieces {
    char *file;                 /* owned */
    snrq_sentencepiece *pieces; /* [count] by id; owned */
    int64_t count;
} snrq_sentencepieces;

/* Reads a file. Not collective. SNRQ_NO_INPUT if there is none, SNRQ_BAD_DATA if it is no such
 * model (with the position). The caller frees it. */
snrq_status snrq_sentencepieces_read(const char *path, snrq_sentencepieces *out);
void snrq_sentencepieces_free(snrq_sentencepieces *pieces);

#endif
