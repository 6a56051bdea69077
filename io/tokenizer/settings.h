/* tokenizer_config.json, as far as it says which tokens stand around a text.
 *
 * What tokenizer.json's post-processor adds may be overruled here: where add_bos_token or
 * add_eos_token is given, transformers makes the post-processor anew, with bos_token and eos_token.
 * A flag that is not given leaves its side as it is. */
#ifndef SNRQ_TOKENIZER_SETTINGS_H
#define SNRQ_TOKENIZER_SETTINGS_H

#include <jansson.h>

#include "mpi/status.h"

typedef enum snrq_flag { SNRQ_UNSAID = -1, SNRQ_OFF, SNRQ_ON } snrq_flag;

typedef struct snrq_tokenizer_settings {
    json_t *root;          /* owned; NULL: there is no such file */
    const char *bos, *eos; /* texts of the tokens, or NULL; borrowed from root */
    snrq_flag add_bos, add_eos;
} snrq_tokenizer_settings;

/* Reads DIRECTORY/tokenizer_config.json; without such a file nothing is said. Not collective.
 * SNRQ_BAD_DATA names file, key, expected and found. */
snrq_status snrq_tokenizer_settings_read(const char *directory, snrq_tokenizer_settings *out);
void snrq_tokenizer_settings_free(snrq_tokenizer_settings *settings);

#endif
