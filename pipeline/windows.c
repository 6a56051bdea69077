/* The windows of a command; see windows.h. */
#include "pipeline/windows.h"

#include <stdlib.h>

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

static snrq_status read_tokens(const snrq_options *o, const snrq_model *m, int32_t **ids,
                               int64_t *count)
{
    const char *text = o->command == SNRQ_COMMAND_QUANTIZE ? o->calibration : o->text;
    snrq_tokenizer *tokenizer = NULL;
    if (o->token_file != NULL)
        return snrq_token_file(o->token_file, m->config.vocabulary, ids, count);
    snrq_status status = snrq_tokenizer_read(m->path, &tokenizer);
    if (status != SNRQ_OK)
        return snrq_fail(status,
                         "%s; instead of a text, give its token ids, made by the model's own "
                         "software: --token-file FILE (little-endian int32)",
                         snrq_error_message());
    status = snrq_text_tokens(text, tokenizer, m->config.vocabulary, ids, count);
    snrq_tokenizer_destroy(&tokenizer);
    return status;
}

static snrq_status read_windows(const snrq_options *o, const snrq_model *m, snrq_windows *out)
{
    bool quantize = o->command == SNRQ_COMMAND_QUANTIZE;
    const char *source = o->token_file ? o->token_file : quantize ? o->calibration : o->text;
    int64_t length = 0, total = 0, count = o->sequences;
    int32_t *ids = NULL;
    SNRQ_TRY(window_length(o, &m->config, &length));
    snrq_status status = read_tokens(o, m, &ids, &total);
    if (status == SNRQ_OK && quantize && o->token_file == NULL && !o->consecutive)
        status = snrq_windows_random(source, ids, total, count > 0 ? count : DEFAULT_SEQUENCES,
                                     length, (uint64_t)o->seed, out);
    else if (status == SNRQ_OK)
        status = snrq_windows_consecutive(
            source, ids, total,
            count == 0 && quantize && o->token_file == NULL ? DEFAULT_SEQUENCES : count, length,
            out);
    free(ids);
    return status;
}

snrq_status snrq_command_windows(const snrq_context *context, const snrq_options *options,
                                 const snrq_model *model, snrq_windows *out)
{
    *out = (snrq_windows){0};
    snrq_status status = snrq_agree(context, read_windows(options, model, out));
    if (status != SNRQ_OK) snrq_windows_free(out);
    return status;
}
