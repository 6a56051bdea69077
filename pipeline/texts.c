/* The texts of a command; see texts.h. */
#include "pipeline/texts.h"

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

snrq_status snrq_texts_read(const snrq_context *c, const snrq_options *o,
                            const snrq_tokenizer *tokenizer, int64_t vocabulary, snrq_tokens *out)
{
    const char *key = o->text_key != NULL ? o->text_key : "text";
    bool json_lines = false;
    *out = (snrq_tokens){0};
    for (int i = 0; i < o->texts.count; i++) {
        snrq_text_facts facts;
        const char *path = o->texts.path[i];
        SNRQ_TRY(snrq_text_tokens(path, key, tokenizer, vocabulary, out, &facts));
        note_facts(c, path, &facts);
        json_lines |= facts.json_lines;
    }
    if (o->text_key == NULL || json_lines) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "--text-key %s: %s: no JSON lines, and a plain text has no keys",
                     o->text_key, o->texts.path[0]);
}

void snrq_texts_name(const snrq_options *o, char *out, size_t size)
{
    char others[40] = "";
    int more = o->texts.count - 1;
    if (more > 0) snprintf(others, sizeof others, " and %d other%s", more, more > 1 ? "s" : "");
    snprintf(out, size, "%s%s", o->texts.path[0], others);
}
