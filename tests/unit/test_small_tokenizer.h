/* For the tests of tokenizers: small tokenizer.json files and what they make of a text. */
#ifndef TEST_SMALL_TOKENIZER_H
#define TEST_SMALL_TOKENIZER_H

#include "io/tokenizer/tokenizer.h"
#include "tests/unit/test_files.h"

#define VOCAB                                                                                      \
    "\"<unk>\":0,\"<s>\":1,\"</"                                                                   \
    "s>\":2,\"_\":3,\"a\":4,\"b\":5,\"c\":6,\"ab\":7,\"_a\":8,\"abc\":9,"                          \
    "\"bc\":10,\"__\":11"
#define MERGES "\"a b\",\"b c\",\"ab c\",\"_ a\",\"_ _\""

/* Parts of such a file. */
#define PREPEND "{\"type\":\"Prepend\",\"prepend\":\"_\"}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}"
#define TEMPLATE(items)                                                                            \
    "{\"type\":\"TemplateProcessing\",\"single\":[" items                                          \
    "],\"special_tokens\":{\"B\":{\"ids\":[1]},\"E\":{\"ids\":[2,2]}}}"
#define SPECIAL(name) "{\"SpecialToken\":{\"id\":\"" name "\"}}"
#define TEXT "{\"Sequence\":{\"id\":\"A\"}}"

/* A tokenizer.json of this model (keys beside vocab and merges) and these other keys, in the
 * scratch directory. */
static inline snrq_status read_small(const char *model, const char *others, snrq_tokenizer **out)
{
    static char text[1 << 14];
    snprintf(text, sizeof text,
             "{%s%s\"model\":{%s%s\"vocab\":{" VOCAB "},\"merges\":[" MERGES "]}}", others,
             others[0] != '\0' ? "," : "", model, model[0] != '\0' ? "," : "");
    scratch_write_text("tokenizer.json", text);
    return snrq_tokenizer_read(scratch(), out);
}

/* The ids of `text` as "1 2 3". */
static inline const char *encoded(const snrq_tokenizer *tokenizer, const char *text, bool special)
{
    static char out[256];
    int32_t *ids;
    int64_t count;
    size_t used = 0;
    out[0] = '\0';
    if (!assert_ok(snrq_tokenizer_encode(tokenizer, text, strlen(text), special, &ids, &count)))
        return out;
    for (int64_t i = 0; i < count && used < sizeof out - 16; i++)
        used += (size_t)snprintf(out + used, sizeof out - used, i > 0 ? " %d" : "%d", (int)ids[i]);
    free(ids);
    return out;
}

static inline void encodes(const snrq_tokenizer *tokenizer, const char *text, const char *expected)
{
    const char *found = encoded(tokenizer, text, true);
    if (strcmp(found, expected) != 0)
        fprintf(stderr, "\"%s\": expected ids %s, found %s\n", text, expected, found);
    CU_ASSERT_STRING_EQUAL(found, expected);
}

static inline void decodes(const snrq_tokenizer *tokenizer, const int32_t *ids, int64_t count,
                           const char *expected)
{
    char *text;
    size_t bytes;
    if (!assert_ok(snrq_tokenizer_decode(tokenizer, ids, count, true, &text, &bytes))) return;
    if (strcmp(text, expected) != 0)
        fprintf(stderr, "expected text \"%s\", found \"%s\"\n", expected, text);
    CU_ASSERT_STRING_EQUAL(text, expected);
    CU_ASSERT_EQUAL(bytes, strlen(expected));
    free(text);
}

static inline void refused(const char *model, const char *others, const char *fragment)
{
    snrq_tokenizer *tokenizer;
    assert_failed(read_small(model, others, &tokenizer), SNRQ_BAD_DATA, fragment);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "tokenizer.json"));
    CU_ASSERT_PTR_NULL(tokenizer);
}

#endif
