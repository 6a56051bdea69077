/* The windows of a command; see windows.h. */
#include "pipeline/windows.h"

#include <stdio.h>

#include "io/tokenizer/token_file.h"
#include "pipeline/texts.h"

enum { DEFAULT_SEQUENCES = 128, LONGEST_DEFAULT = 2048 };

static snrq_status window_length(const snrq_options *o, const snrq_config *c, int64_t *length)
{
    *length = o->length > 0
                  ? o->length
                  : (c->max_positions < LONGEST_DEFAULT ? c->max_positions : LONGEST_DEFAULT);
    if (*length > c->max_positions)
        return snrq_fail(SNRQ_USAGE, "--length %lld: the model's context is %lld tokens",
                         (long long)*length, (long long)c->max_positions);
    if (*length < 2)
        return snrq_fail(SNRQ_USAGE, "--length %lld: a window needs at least 2 tokens",
                         (long long)*length);
    return SNRQ_OK;
}

static snrq_status read_tokens(const snrq_context *context, const snrq_options *o,
                               const snrq_model *m, snrq_tokens *out)
{
    snrq_tokenizer *tokenizer = NULL;
    *out = (snrq_tokens){0};
    if (o->token_file != NULL)
        return snrq_token_file(o->token_file, m->config.vocabulary, &out->ids, &out->count);
    snrq_status status = snrq_tokenizer_read(m->path, &tokenizer);
    if (status != SNRQ_OK)
        return snrq_fail(status,
                         "%s; instead of a text, give its token ids, made by the model's own "
                         "software: --token-file FILE (little-endian int32)",
                         snrq_error_message());
    status = snrq_texts_read(context, o, tokenizer, m->config.vocabulary, out);
    snrq_tokenizer_destroy(&tokenizer);
    return status;
}

static snrq_status read_windows(const snrq_context *context, const snrq_options *o,
                                const snrq_model *m, snrq_windows *out)
{
    bool quantize = o->command == SNRQ_COMMAND_QUANTIZE;
    char source[4200];
    int64_t length = 0, count = o->sequences;
    snrq_tokens tokens;
    if (o->token_file != NULL)
        snprintf(source, sizeof source, "%s", o->token_file);
    else
        snrq_texts_name(o, source, sizeof source);
    SNRQ_TRY(window_length(o, &m->config, &length));
    snrq_status status = read_tokens(context, o, m, &tokens);
    if (status == SNRQ_OK && quantize && o->token_file == NULL && !o->consecutive)
        status = snrq_windows_random(source, tokens.ids, tokens.count,
                                     count > 0 ? count : DEFAULT_SEQUENCES, length,
                                     (uint64_t)o->seed, out);
    else if (status == SNRQ_OK)
        status = snrq_windows_consecutive(
            source, tokens.ids, tokens.count,
            count == 0 && quantize && o->token_file == NULL ? DEFAULT_SEQUENCES : count, length,
            out);
    snrq_tokens_free(&tokens);
    return status;
}

snrq_status snrq_command_windows(const snrq_context *context, const snrq_options *options,
                                 const snrq_model *model, snrq_windows *out)
{
    *out = (snrq_windows){0};
    snrq_status status = snrq_agree(context, read_windows(context, options, model, out));
    if (status != SNRQ_OK) snrq_windows_free(out);
    return status;
}
