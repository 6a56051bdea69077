/* Texts become token ids. A plain text is tokenized as a whole, with what the tokenizer puts around
 * a text. Of several documents (documents.h) each is tokenized by itself in the same way; their
 * tokens follow each other; empty ones are left out.
 */
#ifndef SNRQ_TEXT_TOKENS_H
#define SNRQ_TEXT_TOKENS_H

#include <stdint.h>

#include "io/tokenizer/documents.h"
#include "io/tokenizer/tokenizer.h"

typedef struct snrq_tokens {
    int32_t *ids; /* [count] owned */
    int64_t count;
    size_t room;
} snrq_tokens;

void snrq_tokens_free(snrq_tokens *tokens);

/* Encodes a document of a model's text: as snrq_tokenizer_encode(), with special tokens, and every
 * id is in [0, vocabulary). `where` begins messages. The caller frees *ids. */
snrq_status snrq_document_tokens(const char *where, const char *text, size_t bytes,
                                 const snrq_tokenizer *tokenizer, int64_t vocabulary, int32_t **ids,
                                 int64_t *count);

/* Appends the tokens of a file to *tokens (zeroed before the first). `key`: where JSON lines hold
 * the text. Every id is in [0, vocabulary). Not collective. SNRQ_BAD_DATA names the file, and the
 * line of JSON lines: a file without any text, invalid UTF-8, no text at all but another kind of
 * file. On failure *tokens has what it had.
 *
 * Memory: a plain text is held as a whole; of JSON lines the longest line. */
snrq_status snrq_text_tokens(const char *path, const char *key, const snrq_tokenizer *tokenizer,
                             int64_t vocabulary, snrq_tokens *tokens, snrq_text_facts *facts);

/* Every id [count] must be in [0, vocabulary): SNRQ_BAD_DATA with the first that is not. `where`
 * begins the message; `hint` is what to do about it. */
snrq_status snrq_ids_check(const char *where, const int32_t *ids, int64_t count, int64_t vocabulary,
                           const char *hint);

#endif
