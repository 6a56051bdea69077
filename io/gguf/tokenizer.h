/* The tokenizer of a model as GGUF metadata, from tokenizer.json and, if it is there, the
 * scores of tokenizer.model.
 *
 * llama.cpp knows two kinds: "llama" joins the neighbours whose joint token has the best
 * score, from single characters on (SentencePiece); "gpt2" applies a list of merges to words
 * of byte characters that one of its built-in patterns has cut out. A tokenizer that is
 * neither is refused. */
#ifndef SNRQ_GGUF_TOKENIZER_H
#define SNRQ_GGUF_TOKENIZER_H

#include <stdbool.h>

#include "io/config.h"
#include "io/gguf/writer.h"

/* What a reader of the exported file might miss. */
typedef struct snrq_gguf_tokenizer_facts {
    bool found;             /* there is a tokenizer.json */
    int64_t beyond;         /* tokens left out, with ids that the model has no rows for */
    char first_beyond[96];  /* the text of one of them */
    int64_t stops_left_out; /* ids that end a generation beyond the three that a file can name */
} snrq_gguf_tokenizer_facts;

/* Puts general.name, which llama.cpp uses to recognize tokenizers, and all tokenizer.* keys
 * of the model in `directory`, with config->vocabulary tokens; ids without a token become
 * unused ones, tokens with higher ids are left out. Without a tokenizer.json the file declares that
 * it has no tokenizer. Not collective. SNRQ_BAD_DATA names what llama.cpp cannot do. */
snrq_status snrq_gguf_put_tokenizer(snrq_gguf_writer *writer, const char *directory,
                                    const snrq_config *config, snrq_gguf_tokenizer_facts *facts);

/* Would that succeed? Not collective. */
snrq_status snrq_gguf_check_tokenizer(const char *directory, const snrq_config *config,
                                      snrq_gguf_tokenizer_facts *facts);

#endif
