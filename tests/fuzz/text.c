/* Input: a text, for the tokenizer of the bundled model (SentencePiece-style) and for a small
 * byte-level one, which must give it back. */
#include "io/file.h"
#include "io/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static snrq_tokenizer *read_tokenizer(const char *path)
{
    char *data;
    size_t bytes;
    snrq_tokenizer *tokenizer = NULL;
    snrq_status status = snrq_file_read(path, 1 << 24, &data, &bytes);
    if (status == SNRQ_OK) status = snrq_tokenizer_parse(path, data, bytes, &tokenizer);
    if (status != SNRQ_OK) fprintf(stderr, "%s\n", snrq_error_message());
    FUZZ_CHECK(status == SNRQ_OK);
    free(data);
    return tokenizer;
}

/* Encodes and decodes; whether the text came back. */
static bool round_trip(const snrq_tokenizer *tokenizer, const char *text, size_t bytes)
{
    int32_t *ids;
    int64_t count;
    char *back = NULL;
    size_t back_bytes;
    if (snrq_tokenizer_encode(tokenizer, text, bytes, true, &ids, &count) != SNRQ_OK) {
        FUZZ_CHECK(strstr(snrq_error_message(), "not valid UTF-8") != NULL);
        return true;
    }
    const int32_t *inner = ids;
    snrq_tokenizer_trim(tokenizer, &inner, &count);
    FUZZ_CHECK(snrq_tokenizer_decode(tokenizer, inner, count, false, &back, &back_bytes) ==
               SNRQ_OK);
    bool same = back_bytes == bytes && (bytes == 0 || memcmp(back, text, bytes) == 0);
    free(back);
    free(ids);
    return same;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static snrq_tokenizer *bundled, *byte_level;
    if (bundled == NULL) {
        bundled = read_tokenizer(FUZZ_DATA "/model/tokenizer.json");
        byte_level = read_tokenizer(FUZZ_SOURCE "/corpus/tokenizer_json/byte_level.json");
    }
    round_trip(bundled, (const char *)data, size);
    FUZZ_CHECK(round_trip(byte_level, (const char *)data, size));
    return 0;
}
