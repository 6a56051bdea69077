/* tokenize; see tokenize.h. */
#include "pipeline/tokenize.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/standard_streams.h"
#include "io/tokenizer/token_file.h"
#include "io/user_output.h"
#include "pipeline/options/text_options.h"

/* Writes the file and tells about it. */
static snrq_status put(const snrq_options *o, int64_t tokens, const void *data, size_t bytes,
                       snrq_user_output *out)
{
    FILE *answers = snrq_user_output_answers(out);
    SNRQ_TRY(snrq_user_output_write(out, data, bytes));
    if (o->json)
        fprintf(answers, "{\"tokens\": %lld, \"bytes\": %zu}\n", (long long)tokens, bytes);
    else
        fprintf(answers, "%lld tokens, %zu bytes in %s\n", (long long)tokens, bytes, o->output);
    return snrq_print_end(answers);
}

static snrq_status encode_files(const snrq_context *context, const snrq_options *o,
                                const snrq_tokenizer *tokenizer, snrq_user_output *out)
{
    const snrq_texts texts = snrq_options_texts(o);
    snrq_tokens tokens;
    snrq_status status =
        snrq_texts_read(context, &texts, tokenizer, snrq_tokenizer_size(tokenizer), &tokens);
    if (status == SNRQ_OK)
        status = put(o, tokens.count, tokens.ids, (size_t)tokens.count * sizeof *tokens.ids, out);
    snrq_tokens_free(&tokens);
    return status;
}

static snrq_status decode_file(const snrq_options *o, const snrq_tokenizer *tokenizer,
                               snrq_user_output *out)
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
    if (status == SNRQ_OK) status = put(o, count, text, bytes, out);
    free(text);
    free(ids);
    return status;
}

static snrq_status tokenize(const snrq_context *context, const snrq_options *o)
{
    const char *inputs[SNRQ_MOST_INPUTS];
    snrq_tokenizer *tokenizer = NULL;
    snrq_user_output *out = NULL;
    SNRQ_TRY(snrq_user_output_open(o->output, inputs, snrq_options_inputs(o, inputs), &out));
    snrq_status status = snrq_tokenizer_read(o->path, &tokenizer);
    if (status != SNRQ_OK)
        status = snrq_fail(status,
                           "%s; another program can make the ids: `quantize` and `evaluate` take "
                           "them as --token-file FILE (little-endian int32)",
                           snrq_error_message());
    if (status == SNRQ_OK)
        status = o->decode != NULL ? decode_file(o, tokenizer, out)
                                   : encode_files(context, o, tokenizer, out);
    snrq_tokenizer_destroy(&tokenizer);
    snrq_user_output_close(&out);
    return status;
}

snrq_status snrq_tokenize(const snrq_context *context, const snrq_options *o)
{
    return snrq_agree(context, context->rank == 0 ? tokenize(context, o) : SNRQ_OK);
}
