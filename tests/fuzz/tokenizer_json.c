/* Input: a tokenizer.json. If it is accepted, it encodes and decodes a fixed text and the end of
 * the input itself, which has the strings of its own tokens. */
#include "io/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

enum { PART = 512, SOME_IDS = 64 };

static const char fixed[] =
    "A b  c<s>\xe2\x96\x81"
    "d\xc3\xa9"
    "e\xcc\x81\xf0\x9f\x98\x80 12345\r\n\n\t'LL x"
    "                                           aaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

static void encode_and_decode(const snrq_tokenizer *tokenizer, const char *text, size_t bytes)
{
    int32_t *ids;
    int64_t count;
    char *back;
    size_t back_bytes;
    if (snrq_tokenizer_encode(tokenizer, text, bytes, true, &ids, &count) != SNRQ_OK) return;
    for (int64_t i = 0; i < count; i++)
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < snrq_tokenizer_size(tokenizer));
    for (int skip = 0; skip < 2; skip++)
        if (snrq_tokenizer_decode(tokenizer, ids, count, skip, &back, &back_bytes) == SNRQ_OK)
            free(back);
    const int32_t *inner = ids;
    int64_t inner_count = count;
    snrq_tokenizer_trim(tokenizer, &inner, &inner_count);
    FUZZ_CHECK(inner >= ids && inner_count >= 0 && inner + inner_count <= ids + count);
    free(ids);
}

static void decode_low_ids(const snrq_tokenizer *tokenizer)
{
    int32_t ids[SOME_IDS];
    char *text;
    size_t bytes;
    for (int32_t i = 0; i < SOME_IDS; i++) {
        ids[0] = i;
        if (snrq_tokenizer_decode(tokenizer, ids, 1, false, &text, &bytes) == SNRQ_OK) free(text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_tokenizer *tokenizer;
    const char *text = (const char *)data;
    if (snrq_tokenizer_parse("tokenizer.json", text, size, &tokenizer) != SNRQ_OK) {
        FUZZ_CHECK(tokenizer == NULL && strstr(snrq_error_message(), "tokenizer.json") != NULL);
        return 0;
    }
    size_t part = size < PART ? size : PART;
    encode_and_decode(tokenizer, fixed, sizeof fixed - 1);
    encode_and_decode(tokenizer, text + size - part, part);
    encode_and_decode(tokenizer, text, part);
    decode_low_ids(tokenizer);
    snrq_tokenizer_destroy(&tokenizer);
    return 0;
}
