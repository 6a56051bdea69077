/* Texts; see text_tokens.h. */
#include "io/tokenizer/text_tokens.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_lines.h"
#include "io/text_file.h"

/* Far above any calibration text, far below what would be mistaken for one. */
static const uint64_t max_text = (uint64_t)16 << 30;
enum { HEAD = 1 << 20, /* what a file is, is seen in so many bytes */ MAX_LINE = 1 << 30 };

snrq_status snrq_ids_check(const char *where, const int32_t *ids, int64_t count, int64_t vocabulary,
                           const char *hint)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: token %" PRId64 " is id %" PRId32 ", expected 0..%" PRId64
                             " (the model's vocabulary): %s",
                             where, i, ids[i], vocabulary - 1, hint);
    return SNRQ_OK;
}

/* ---- tokens ---- */

void snrq_tokens_free(snrq_tokens *t)
{
    free(t->ids);
    *t = (snrq_tokens){0};
}

/* Takes `ids` [count] over. */
static snrq_status tokens_append(snrq_tokens *t, int32_t *ids, int64_t count)
{
    if (t->ids == NULL) {
        *t = (snrq_tokens){ids, count, (size_t)count};
        return SNRQ_OK;
    }
    snrq_status status =
        snrq_grow((size_t)(t->count + count), sizeof *ids, "token ids", &t->ids, &t->room);
    if (status == SNRQ_OK && count > 0) memcpy(t->ids + t->count, ids, (size_t)count * sizeof *ids);
    if (status == SNRQ_OK) t->count += count;
    free(ids);
    return status;
}

/* ---- the part of a file that is in memory ---- */

typedef struct part {
    snrq_text_file *file;
    char *data;              /* [room] owned */
    size_t begin, end, room; /* bytes [begin, end) are still to be used */
    bool complete;           /* the file has no others */
} part;

static snrq_status reserve(part *p, size_t room)
{
    return snrq_grow(room, 1, "text", &p->data, &p->room);
}

/* Reads on behind what is there, at least a byte if there is one. */
static snrq_status read_more(part *p)
{
    size_t got;
    if (p->begin > 0) memmove(p->data, p->data + p->begin, p->end - p->begin);
    p->end -= p->begin;
    p->begin = 0;
    if (p->end == p->room) SNRQ_TRY(reserve(p, 2 * p->room));
    SNRQ_TRY(snrq_text_file_read(p->file, p->data + p->end, p->room - p->end, &got));
    p->complete = got < p->room - p->end;
    p->end += got;
    return SNRQ_OK;
}

/* ---- what is it? ---- */

/* Files that are no text, or not yet, and are given as one all the same. */
static snrq_status refuse_others(const char *path, const char *head, size_t bytes)
{
    static const struct {
        const char *magic;
        size_t at, bytes;
        const char *what;
    } others[] = {
        {"\xff\xfe", 0, 2, "is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` converts it"},
        {"\xfe\xff", 0, 2, "is UTF-16, expected UTF-8: `iconv -f UTF-16 -t UTF-8` converts it"},
        {"\x1f\x8b", 0, 2, "is gzip in gzip: unpack it once"},
        {"\x28\xb5\x2f\xfd", 0, 4, "is packed with Zstandard: `zstd -d` unpacks it"},
        {"BZh91AY&SY", 0, 10, "is packed with bzip2: `bunzip2` unpacks it"},
        {"\xfd"
         "7zXZ",
         0, 5, "is packed with xz: `unxz` unpacks it"},
        {"PK\x03\x04", 0, 4, "is a zip archive: `unzip` unpacks it"},
        {"ustar", 257, 5, "is a tar archive: `tar -xf` unpacks it"},
        {"PAR1", 0, 4,
         "is a Parquet file: write its texts as JSON lines (pandas: to_json with "
         "orient=\"records\", lines=True)"},
        {"ARROW1", 0, 6, "is an Arrow file: write its texts as JSON lines"},
        {"%PDF-", 0, 5, "is a PDF file: `pdftotext` extracts its text"},
        {"\x93NUMPY", 0, 6, "is a .npy file: token ids belong to --token-file"},
        {"version https://git-lfs.github.com/", 0, 35,
         "is a git-lfs pointer, not the file itself: `git lfs pull` fetches it"},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (bytes >= others[i].at + others[i].bytes &&
            memcmp(head + others[i].at, others[i].magic, others[i].bytes) == 0)
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s", path, others[i].what);
    return SNRQ_OK;
}

static snrq_status begin_text(const char *path, part *p, snrq_text_facts *facts)
{
    static const char mark[] = "\xef\xbb\xbf";
    uint64_t bytes = snrq_text_file_bytes(p->file);
    SNRQ_TRY(reserve(p, bytes < HEAD ? (size_t)bytes + 1 : HEAD));
    while (!p->complete && p->end < HEAD) SNRQ_TRY(read_more(p));
    SNRQ_TRY(refuse_others(path, p->data, p->end));
    facts->byte_order_mark = p->end >= 3 && memcmp(p->data, mark, 3) == 0;
    if (facts->byte_order_mark) p->begin = 3;
    return snrq_json_lines_detect(path, p->data + p->begin, p->end - p->begin, p->complete,
                                  &facts->json_lines);
}

/* ---- documents ---- */

typedef struct source {
    const char *path, *key;
    const snrq_tokenizer *tokenizer;
    int64_t vocabulary;
    snrq_tokens *tokens;
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

/* A text of at least one byte; `where` names it. */
static snrq_status document_tokens(const source *s, const char *where, const char *text,
                                   size_t bytes)
{
    int32_t *ids;
    int64_t count;
    count_bytes(text, bytes, s->facts);
    snrq_status status = snrq_tokenizer_encode(s->tokenizer, text, bytes, true, &ids, &count);
    if (status != SNRQ_OK) return snrq_fail(status, "%s: %s", where, snrq_error_message());
    status = snrq_ids_check(where, ids, count, s->vocabulary,
                            "do tokenizer.json and config.json belong to the same model?");
    if (status == SNRQ_OK) return tokens_append(s->tokens, ids, count);
    free(ids);
    return status;
}

static snrq_status plain_tokens(const source *s, part *p)
{
    if (!p->complete && !snrq_text_file_packed(p->file))
        SNRQ_TRY(reserve(p, (size_t)snrq_text_file_bytes(p->file) + 1));
    while (!p->complete) SNRQ_TRY(read_more(p));
    if (p->begin == p->end) return snrq_fail(SNRQ_BAD_DATA, "%s: the text is empty", s->path);
    return document_tokens(s, s->path, p->data + p->begin, p->end - p->begin);
}

static snrq_status line_tokens(const source *s, int64_t number, char *line, size_t bytes)
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
    snprintf(where, sizeof where, "%s: line %" PRId64, s->path, number);
    snrq_status status = text_bytes > 0 ? document_tokens(s, where, text, text_bytes) : SNRQ_OK;
    json_decref(object);
    return status;
}

static snrq_status lines_tokens(const source *s, part *p)
{
    for (int64_t number = 1; p->begin < p->end || !p->complete; number++) {
        char *line = p->data + p->begin, *newline;
        while ((newline = memchr(line, '\n', p->end - p->begin)) == NULL && !p->complete) {
            if (p->end - p->begin >= MAX_LINE)
                return snrq_fail(SNRQ_BAD_DATA,
                                 "%s: line %" PRId64 " is longer than %d bytes: cut the document",
                                 s->path, number, (int)MAX_LINE);
            SNRQ_TRY(read_more(p));
            line = p->data + p->begin;
        }
        size_t bytes = newline != NULL ? (size_t)(newline - line) : p->end - p->begin;
        SNRQ_TRY(line_tokens(s, number, line, bytes));
        p->begin += bytes + (newline != NULL);
    }
    if (s->facts->empty < s->facts->documents) return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: there is no text in its %" PRId64
                     " documents: key \"%s\" is empty in all of them; --text-key KEY names another",
                     s->path, s->facts->documents, s->key);
}

snrq_status snrq_text_tokens(const char *path, const char *key, const snrq_tokenizer *tokenizer,
                             int64_t vocabulary, snrq_tokens *tokens, snrq_text_facts *facts)
{
    const source s = {path, key, tokenizer, vocabulary, tokens, facts};
    int64_t before = tokens->count;
    part p = {0};
    *facts = (snrq_text_facts){0};
    snrq_status status = snrq_text_file_open(path, max_text, &p.file);
    if (status == SNRQ_OK) status = begin_text(path, &p, facts);
    if (status == SNRQ_OK) status = facts->json_lines ? lines_tokens(&s, &p) : plain_tokens(&s, &p);
    snrq_text_file_close(&p.file);
    free(p.data);
    if (status != SNRQ_OK) tokens->count = before;
    if (status != SNRQ_OK && before == 0) snrq_tokens_free(tokens);
    return status;
}
