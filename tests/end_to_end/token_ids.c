/* Token ids of texts, as the library cuts them: a JSON array of texts on standard input, an
 * array of arrays of ids on standard output.   token_ids MODEL [special] < texts.json
 * With `special`, also the special tokens that the model puts around a text. */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/tokenizer.h"

static json_t *encode(const snrq_tokenizer *tokenizer, const char *text, bool special)
{
    int32_t *ids = NULL;
    int64_t count = 0;
    if (snrq_tokenizer_encode(tokenizer, text, strlen(text), special, &ids, &count) != SNRQ_OK)
        return NULL;
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++) json_array_append_new(list, json_integer(ids[i]));
    free(ids);
    return list;
}

int main(int argc, char **argv)
{
    snrq_tokenizer *tokenizer = NULL;
    json_t *texts = json_loadf(stdin, 0, NULL), *result = json_array(), *text;
    size_t index;
    bool special = argc == 3 && strcmp(argv[2], "special") == 0;
    int failed = (argc != 2 && !special) || texts == NULL ||
                 snrq_tokenizer_read(argv[1], &tokenizer) != SNRQ_OK;
    if (!failed) {
        json_array_foreach(texts, index, text)
        {
            failed |=
                json_array_append_new(result, encode(tokenizer, json_string_value(text), special));
        }
    }
    if (failed)
        fprintf(stderr, "token_ids: %s\n", snrq_error_message());
    else
        json_dumpf(result, stdout, JSON_COMPACT);
    snrq_tokenizer_destroy(&tokenizer);
    json_decref(texts);
    json_decref(result);
    return failed != 0;
}
