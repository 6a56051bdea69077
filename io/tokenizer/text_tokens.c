/* Texts; see text_tokens.h. */
#include "io/tokenizer/text_tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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

snrq_status snrq_document_tokens(const char *where, const char *text, size_t bytes,
                                 const snrq_tokenizer *tokenizer, int64_t vocabulary, int32_t **ids,
                                 int64_t *count)
{
    snrq_status status = snrq_tokenizer_encode(tokenizer, text, bytes, true, ids, count);
    if (status != SNRQ_OK) return snrq_fail(status, "%s: %s", where, snrq_error_message());
    status = snrq_ids_check(where, *ids, *count, vocabulary,
                            "do tokenizer.json and config.json belong to the same model?");
    if (status == SNRQ_OK) return SNRQ_OK;
    free(*ids);
    *ids = NULL;
    return status;
}

typedef struct reading {
    const snrq_tokenizer *tokenizer;
    int64_t vocabulary;
    snrq_tokens *tokens;
} reading;

static snrq_status append_document(void *user, const char *where, const char *text, size_t bytes)
{
    const reading *r = user;
    int32_t *ids;
    int64_t count;
    if (bytes == 0) return SNRQ_OK;
    SNRQ_TRY(snrq_document_tokens(where, text, bytes, r->tokenizer, r->vocabulary, &ids, &count));
    return tokens_append(r->tokens, ids, count);
}

snrq_status snrq_text_tokens(const char *path, const char *key, const snrq_tokenizer *tokenizer,
                             int64_t vocabulary, snrq_tokens *tokens, snrq_text_facts *facts)
{
    reading r = {tokenizer, vocabulary, tokens};
    int64_t before = tokens->count;
    snrq_status status = snrq_documents_read(path, key, append_document, &r, facts);
    if (status != SNRQ_OK) tokens->count = before;
    if (status != SNRQ_OK && before == 0) snrq_tokens_free(tokens);
    return status;
}
