/* tokenize; see tokenize.h. */
#include "pipeline/tokenize.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/file.h"
#include "io/token_file.h"
#include "pipeline/texts.h"

/* `bytes`: written. */
static void print_summary(const snrq_options *o, int64_t tokens, size_t bytes)
{
    if (o->json)
        printf("{\"tokens\": %lld, \"bytes\": %zu}\n", (long long)tokens, bytes);
    else
        printf("%lld tokens, %zu bytes in %s\n", (long long)tokens, bytes, o->output);
    fflush(stdout);
}

static snrq_status encode_files(const snrq_context *context, const snrq_options *o,
                                const snrq_tokenizer *tokenizer)
{
    snrq_tokens tokens;
    snrq_status status =
        snrq_texts_read(context, o, tokenizer, snrq_tokenizer_size(tokenizer), &tokens);
    size_t bytes = (size_t)tokens.count * sizeof *tokens.ids;
    if (status == SNRQ_OK) status = snrq_file_replace(o->output, tokens.ids, bytes);
    if (status == SNRQ_OK) print_summary(o, tokens.count, bytes);
    snrq_tokens_free(&tokens);
    return status;
}

static snrq_status decode_file(const snrq_options *o, const snrq_tokenizer *tokenizer)
{
    int32_t *ids;
    int64_t count;
    char *text = NULL;
    size_t bytes;
    SNRQ_TRY(snrq_token_file(o->decode, snrq_tokenizer_size(tokenizer), &ids, &count));
    const int32_t *inner = ids;
    int64_t inner_count = count;
    snrq_tokenizer_trim(tokenizer, &inner, &inner_count);
    snrq_status status = snrq_tokenizer_decode(tokenizer, inner, inner_count, false, &text, &bytes);
    if (status != SNRQ_OK) snrq_fail(status, "%s: %s", o->decode, snrq_error_message());
    if (status == SNRQ_OK) status = snrq_file_replace(o->output, text, bytes);
    if (status == SNRQ_OK) print_summary(o, count, bytes);
    free(text);
    free(ids);
    return status;
}

static snrq_status tokenize(const snrq_context *context, const snrq_options *o)
{
    snrq_tokenizer *tokenizer;
    SNRQ_TRY(snrq_tokenizer_read(o->path, &tokenizer));
    snrq_status status =
        o->decode != NULL ? decode_file(o, tokenizer) : encode_files(context, o, tokenizer);
    snrq_tokenizer_destroy(&tokenizer);
    return status;
}

snrq_status snrq_tokenize(const snrq_context *context, const snrq_options *o)
{
    return snrq_agree(context, context->rank == 0 ? tokenize(context, o) : SNRQ_OK);
}
