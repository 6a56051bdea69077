/* Files of documents; see documents.h. */
#include "io/tokenizer/documents.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_lines.h"
#include "io/text_lines.h"

typedef struct source {
    const char *path, *key;
    snrq_document_function put;
    void *user;
    snrq_text_facts *facts;
} source;

static void count_bytes(const char *text, size_t bytes, snrq_text_facts *facts)
{
    const char *end = text + bytes;
    for (const char *at = text; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++) {
        facts->line_ends++;
        facts->crlf += at > text && at[-1] == '\r';
    }
    for (const char *at = text; (at = memchr(at, '\0', (size_t)(end - at))) != NULL; at++)
        facts->nul++;
}

static snrq_status plain_document(const source *s, snrq_text_lines *lines)
{
    const char *text;
    size_t bytes;
    SNRQ_TRY(snrq_text_lines_all(lines, &text, &bytes));
    if (bytes == 0) return snrq_fail(SNRQ_BAD_DATA, "%s: the text is empty", s->path);
    count_bytes(text, bytes, s->facts);
    return s->put(s->user, s->path, text, bytes);
}

static snrq_status line_document(const source *s, int64_t number, char *line, size_t bytes)
{
    json_t *object;
    const char *text;
    size_t text_bytes;
    char where[4200];
    SNRQ_TRY(
        snrq_json_line_text(s->path, number, line, bytes, s->key, &object, &text, &text_bytes));
    if (text == NULL) return SNRQ_OK;
    s->facts->documents++;
    s->facts->empty += text_bytes == 0;
    count_bytes(text, text_bytes, s->facts);
    snprintf(where, sizeof where, "%s: line %" PRId64, s->path, number);
    snrq_status status = s->put(s->user, where, text, text_bytes);
    json_decref(object);
    return status;
}

static snrq_status line_documents(const source *s, snrq_text_lines *lines)
{
    char *line;
    size_t bytes;
    int64_t number;
    for (;;) {
        SNRQ_TRY(snrq_text_lines_next(lines, &line, &bytes, &number));
        if (line == NULL) break;
        SNRQ_TRY(line_document(s, number, line, bytes));
    }
    if (s->facts->empty < s->facts->documents) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: there is no text in its %" PRId64
                     " documents: key \"%s\" is empty in all of them; --text-key KEY names another",
                     s->path, s->facts->documents, s->key);
}

snrq_status snrq_documents_read(const char *path, const char *key, snrq_document_function put,
                                void *user, snrq_text_facts *facts)
{
    const source s = {path, key, put, user, facts};
    snrq_text_lines *lines;
    *facts = (snrq_text_facts){0};
    SNRQ_TRY(snrq_text_lines_open(path, &lines));
    facts->byte_order_mark = snrq_text_lines_have_mark(lines);
    snrq_status status = snrq_text_lines_detect_json(lines, &facts->json_lines);
    if (status == SNRQ_OK)
        status = facts->json_lines ? line_documents(&s, lines) : plain_document(&s, lines);
    snrq_text_lines_close(&lines);
    return status;
}

static snrq_status hold(void *user, const char *where, const char *text, size_t bytes)
{
    snrq_documents *d = user;
    (void)where;
    SNRQ_TRY(snrq_grow(d->used + bytes, 1, "documents", &d->text, &d->room));
    SNRQ_TRY(snrq_grow((size_t)d->count + 1, sizeof *d->end, "documents", &d->end, &d->end_room));
    if (bytes > 0) memcpy(d->text + d->used, text, bytes);
    d->used += bytes;
    d->end[d->count++] = d->used;
    return SNRQ_OK;
}

snrq_status snrq_documents_hold(const char *path, const char *key, snrq_documents *documents,
                                snrq_text_facts *facts)
{
    return snrq_documents_read(path, key, hold, documents, facts);
}

void snrq_documents_free(snrq_documents *d)
{
    free(d->text);
    free(d->end);
    *d = (snrq_documents){0};
}

const char *snrq_documents_text(const snrq_documents *d, int64_t index, size_t *bytes)
{
    size_t begin = index > 0 ? d->end[index - 1] : 0;
    *bytes = d->end[index] - begin;
    return d->text + begin;
}
