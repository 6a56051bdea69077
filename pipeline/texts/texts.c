/* The texts of a command; see texts.h. */
#include "pipeline/texts/texts.h"

#include <stdio.h>

#include "mpi/log.h"

static void note_facts(const snrq_context *c, const char *path, const snrq_text_facts *f)
{
    if (f->json_lines)
        snrq_note(c, "%s: JSON lines, %lld documents", path, (long long)f->documents);
    if (f->empty > 0)
        snrq_note(c, "note: %s: %lld of %lld documents are empty: left out", path,
                  (long long)f->empty, (long long)f->documents);
    if (f->byte_order_mark)
        snrq_note(c, "note: %s: begins with a byte order mark (BOM), which is no text: left out",
                  path);
    if (f->crlf > 0)
        snrq_note(c,
                  "note: %s: %lld of %lld lines end in CR LF (Windows), which counts as text: the "
                  "tokens differ from those of LF alone; `sed 's/\\r$//'` takes CR away",
                  path, (long long)f->crlf, (long long)f->line_ends);
    if (f->nul > 0)
        snrq_note(c,
                  "note: %s: %lld bytes are NUL, which counts as text: is it a file of another "
                  "kind? Token ids belong to --token-file",
                  path, (long long)f->nul);
}

/* One file: tokens, or documents. */
typedef snrq_status (*file_reader)(const char *path, const char *key, void *out,
                                   snrq_text_facts *facts);

static snrq_status read_all(const snrq_context *c, const snrq_texts *texts, file_reader read_file,
                            void *out)
{
    bool json_lines = false;
    for (int i = 0; i < texts->count; i++) {
        snrq_text_facts facts;
        SNRQ_TRY(read_file(texts->path[i], texts->key != NULL ? texts->key : "text", out, &facts));
        note_facts(c, texts->path[i], &facts);
        json_lines |= facts.json_lines;
    }
    if (texts->key == NULL || json_lines) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "--text-key %s: %s: no JSON lines, and a plain text has no keys",
                     texts->key, texts->path[0]);
}

typedef struct tokens_reader {
    const snrq_tokenizer *tokenizer;
    int64_t vocabulary;
    snrq_tokens *tokens;
} tokens_reader;

static snrq_status read_tokens(const char *path, const char *key, void *out, snrq_text_facts *facts)
{
    const tokens_reader *r = out;
    return snrq_text_tokens(path, key, r->tokenizer, r->vocabulary, r->tokens, facts);
}

snrq_status snrq_texts_read(const snrq_context *c, const snrq_texts *texts,
                            const snrq_tokenizer *tokenizer, int64_t vocabulary, snrq_tokens *out)
{
    tokens_reader r = {tokenizer, vocabulary, out};
    *out = (snrq_tokens){0};
    return read_all(c, texts, read_tokens, &r);
}

static snrq_status hold_documents(const char *path, const char *key, void *out,
                                  snrq_text_facts *facts)
{
    return snrq_documents_hold(path, key, out, facts);
}

snrq_status snrq_texts_hold(const snrq_context *c, const snrq_texts *texts, snrq_documents *out)
{
    *out = (snrq_documents){0};
    return read_all(c, texts, hold_documents, out);
}

void snrq_texts_name(const snrq_texts *texts, char *out, size_t size)
{
    char others[40] = "";
    int more = texts->count - 1;
    if (more > 0) snprintf(others, sizeof others, " and %d other%s", more, more > 1 ? "s" : "");
    snprintf(out, size, "%s%s", texts->path[0], others);
}
