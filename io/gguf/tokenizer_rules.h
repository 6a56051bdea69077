/* Internal to tokenizer.c: what stands around the vocabulary in tokenizer.json, as far as
 * llama.cpp can do the same. */
#ifndef SNRQ_GGUF_TOKENIZER_RULES_H
#define SNRQ_GGUF_TOKENIZER_RULES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

typedef struct snrq_tokenizer_rules {
    bool sentencepiece;    /* else byte-level */
    const char *pre;       /* llama.cpp's name of the pattern that cuts words */
    bool space_prefix;     /* a space is put before the text */
    int64_t before, after; /* id put before, after the text; -1: none */
    const char *unknown;   /* text of the unknown token, or NULL; borrowed from the JSON */
} snrq_tokenizer_rules;

/* Without what tokenizer_config.json says. SNRQ_BAD_DATA names the part that llama.cpp has no
 * counterpart of. */
snrq_status snrq_tokenizer_rules_read(const char *where, const json_t *root,
                                      snrq_tokenizer_rules *out);

#endif
