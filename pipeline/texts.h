/* The texts of a command: files in order, and what to tell about them. */
#ifndef SNRQ_TEXTS_H
#define SNRQ_TEXTS_H

#include "io/tokenizer/text_tokens.h"
#include "mpi/context.h"
#include "pipeline/options.h"

/* Reads the texts of --calibration or --text; their tokens follow each other. Every rank reads the
 * same files; rank 0 notes what a user may not expect of them. Not collective. Release with
 * snrq_tokens_free(), after a failure, too. */
snrq_status snrq_texts_read(const snrq_context *context, const snrq_options *options,
                            const snrq_tokenizer *tokenizer, int64_t vocabulary, snrq_tokens *out);

/* What messages call them all: "a.txt", "a.txt and 2 others". */
void snrq_texts_name(const snrq_options *options, char *out, size_t size);

#endif
