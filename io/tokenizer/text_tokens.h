/* Texts: files that become token ids.
 *
 * A file is a plain text, or JSON lines (io/json_lines.h); either may be gzip (io/text_file.h). The
 * content says which, not the name. A plain text is one document: tokenized as a whole, with what
 * the tokenizer puts around a text. Of JSON lines each text is a document, tokenized by itself in
 * the same way; their tokens follow each other; empty documents are left out.
 *
 * A byte order mark at the beginning of a file is no text and is left out. Every other byte counts.
 */
#ifndef SNRQ_TEXT_TOKENS_H
#define SNRQ_TEXT_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "io/tokenizer/tokenizer.h"

typedef struct snrq_tokens {
    int32_t *ids; /* [count] owned */
    int64_t count;
    size_t room;
} snrq_tokens;

void snrq_tokens_free(snrq_tokens *tokens);

/* What was found in a file that its reader may not expect. */
typedef struct snrq_text_facts {
    bool json_lines, byte_order_mark;
    int64_t documents, empty; /* JSON lines: all of them, those without any text */
    int64_t line_ends, crlf;  /* in the text: of both kinds; CR LF */
    int64_t nul;              /* bytes that are zero */
} snrq_text_facts;

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
