/* Texts and token ids as files. */
#ifndef SNRQ_TOKENIZE_H
#define SNRQ_TOKENIZE_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* `snrq tokenize MODEL --text FILE -o IDS`: texts as io/tokenizer/text_tokens.h reads them, with
 * what the tokenizer's post-processor adds to each document, as little-endian int32 ids that
 * --token-file reads.
 * `--decode IDS -o FILE`: back, without what the post-processor added around all of them. The
 * output appears under its name when it is complete. Rank 0 works and prints one line. Collective;
 * agreed. */
snrq_status snrq_tokenize(const snrq_context *context, const snrq_options *options);

#endif
