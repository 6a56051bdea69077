/* Input: a text file that may be JSON lines, for a small byte-level tokenizer. */
#include "io/file.h"
#include "io/tokenizer/text_tokens.h"
#include "tests/fuzz/fuzz.h"

static snrq_tokenizer *read_tokenizer(void)
{
    char *data;
    size_t bytes;
    snrq_tokenizer *tokenizer = NULL;
    const char *path = FUZZ_SOURCE "/corpus/tokenizer_json/byte_level.json";
    FUZZ_CHECK(snrq_file_read(path, 1 << 24, &data, &bytes) == SNRQ_OK);
    FUZZ_CHECK(snrq_tokenizer_parse(path, data, bytes, &tokenizer) == SNRQ_OK);
    free(data);
    return tokenizer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static snrq_tokenizer *tokenizer;
    snrq_tokens tokens = {0};
    snrq_text_facts facts;
    const char *path = fuzz_file("text", data, size);
    if (tokenizer == NULL) tokenizer = read_tokenizer();
    int64_t vocabulary = snrq_tokenizer_size(tokenizer);
    if (snrq_text_tokens(path, "t", tokenizer, vocabulary, &tokens, &facts) != SNRQ_OK) {
        FUZZ_CHECK(tokens.ids == NULL && tokens.count == 0);
        FUZZ_CHECK(strstr(snrq_error_message(), path) != NULL);
        return 0;
    }
    FUZZ_CHECK(facts.json_lines == (facts.documents > 0) && facts.crlf <= facts.line_ends);
    FUZZ_CHECK(facts.empty <= facts.documents && (size_t)facts.documents <= size);
    for (int64_t i = 0; i < tokens.count; i++)
        FUZZ_CHECK(tokens.ids[i] >= 0 && tokens.ids[i] < vocabulary);
    snrq_tokens_free(&tokens);
    return 0;
}
