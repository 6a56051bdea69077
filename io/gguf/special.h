/* Internal to tokenizer.c: which tokens begin and end texts, as GGUF metadata. */
#ifndef SNRQ_GGUF_SPECIAL_H
#define SNRQ_GGUF_SPECIAL_H

#include "io/config.h"
#include "io/gguf/tokenizer.h"
#include "io/gguf/tokenizer_rules.h"
#include "io/tokenizer/settings.h"

/* Puts the ids of the tokens that begin and end texts, of the unknown token, and whether llama.cpp
 * adds them and a space.
 *
 * The first of these is the end of a text, further ones are end of turn (eot) and end of message
 * (eom), which end a generation as well: what the post-processor puts behind a text; eos_token of
 * tokenizer_config.json; eos_token_id of generation_config.json, then of config.json, a number or a
 * list. A token with "eom" in its text is taken for end of message. Ids beyond the vocabulary are
 * passed over. facts->stops_left_out counts what found no place.
 *
 * root: tokenizer.json. Not collective. SNRQ_BAD_DATA names file, key, expected and found. */
snrq_status snrq_gguf_put_special_tokens(snrq_gguf_writer *writer, const char *directory,
                                         const json_t *root, const snrq_tokenizer_rules *rules,
                                         const snrq_tokenizer_settings *settings,
                                         const snrq_config *config,
                                         snrq_gguf_tokenizer_facts *facts);

#endif
