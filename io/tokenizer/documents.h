/* Texts: files of documents.
 *
 * A file is a plain text, or JSON lines (io/json_lines.h); either may be gzip (io/text_file.h). The
 * content says which, not the name. A plain text is one document. Of JSON lines each line has one,
 * which may be empty.
 *
 * A byte order mark at the beginning of a file is no text and is left out. Every other byte counts.
 */
#ifndef SNRQ_DOCUMENTS_H
#define SNRQ_DOCUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

/* What was found in a file that its reader may not expect. */
typedef struct snrq_text_facts {
    bool json_lines, byte_order_mark;
    int64_t documents, empty; /* JSON lines: all of them, those without any text */
    int64_t line_ends, crlf;  /* in the text: of both kinds; CR LF */
    int64_t nul;              /* bytes that are zero */
} snrq_text_facts;

/* What receives the documents of a file, one after the other; `where` names it in messages. */
typedef snrq_status (*snrq_document_function)(void *user, const char *where, const char *text,
                                              size_t bytes);

/* Hands the documents of a file to `put`. `key`: where JSON lines hold the text. Not collective.
 * SNRQ_BAD_DATA names the file, and the line of JSON lines: a file without any text, no text at all
 * but another kind of file; or what `put` returned.
 *
 * Memory: a plain text is held as a whole; of JSON lines the longest line. */
snrq_status snrq_documents_read(const char *path, const char *key, snrq_document_function put,
                                void *user, snrq_text_facts *facts);

/* Documents in memory, in order. Zero-initialized is none. */
typedef struct snrq_documents {
    char *text; /* of all of them, one after the other; owned */
    size_t used, room;
    size_t *end; /* [count] where each ends in `text`; owned */
    int64_t count;
    size_t end_room;
} snrq_documents;

/* Adds the documents of a file, as snrq_documents_read() hands them out. */
snrq_status snrq_documents_hold(const char *path, const char *key, snrq_documents *documents,
                                snrq_text_facts *facts);
void snrq_documents_free(snrq_documents *documents);
/* A document's text (borrowed) and its bytes. */
const char *snrq_documents_text(const snrq_documents *documents, int64_t index, size_t *bytes);

#endif
