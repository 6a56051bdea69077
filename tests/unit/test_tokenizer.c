/* Tokenizers: the recorded vectors of real files, each rule on a small file of its own, a slow twin
 * of the byte pair encoding, and damaged files. */
#include "io/tokenizer.h"

#include <jansson.h>
#include <time.h>

#include "io/file.h"
#include "io/tokenizer_internal.h"
#include "tests/unit/test_files.h"

#define VOCAB                                                                                      \
    "\"<unk>\":0,\"<s>\":1,\"</"                                                                   \
    "s>\":2,\"_\":3,\"a\":4,\"b\":5,\"c\":6,\"ab\":7,\"_a\":8,\"abc\":9,"                          \
    "\"bc\":10,\"__\":11"
#define MERGES "\"a b\",\"b c\",\"ab c\",\"_ a\",\"_ _\""

/* A tokenizer.json of this model (keys beside vocab and merges) and these other keys, in the
 * scratch directory. */
static snrq_status read_small(const char *model, const char *others, snrq_tokenizer **out)
{
    static char text[1 << 14];
    snprintf(text, sizeof text,
             "{%s%s\"model\":{%s%s\"vocab\":{" VOCAB "},\"merges\":[" MERGES "]}}", others,
             others[0] != '\0' ? "," : "", model, model[0] != '\0' ? "," : "");
    scratch_write_text("tokenizer.json", text);
    return snrq_tokenizer_read(scratch(), out);
}

/* The ids of `text` as "1 2 3". */
static const char *encoded(const snrq_tokenizer *tokenizer, const char *text, bool special)
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

static void encodes(const snrq_tokenizer *tokenizer, const char *text, const char *expected)
{
    const char *found = encoded(tokenizer, text, true);
    if (strcmp(found, expected) != 0)
        fprintf(stderr, "\"%s\": expected ids %s, found %s\n", text, expected, found);
    CU_ASSERT_STRING_EQUAL(found, expected);
}

static void decodes(const snrq_tokenizer *tokenizer, const int32_t *ids, int64_t count,
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

static void refused(const char *model, const char *others, const char *fragment)
{
    snrq_tokenizer *tokenizer;
    assert_failed(read_small(model, others, &tokenizer), SNRQ_BAD_DATA, fragment);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "tokenizer.json"));
    CU_ASSERT_PTR_NULL(tokenizer);
}

static void merges_go_by_rank_then_from_the_left(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small("", "", &t))) return;
    encodes(t, "abc", "9");
    encodes(t, "_abc", "3 9"); /* "a b" ranks before "_ a" */
    encodes(t, "_a", "8");
    encodes(t, "___", "11 3");
    encodes(t, "cbcb", "6 10 5");
    encodes(t, "", "");
    snrq_tokenizer_destroy(&t);
    CU_ASSERT_PTR_NULL(t);
}

static void merges_may_be_pairs(void)
{
    snrq_tokenizer *t;
    scratch_write_text("tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0,\" \":1,\"a \":2},"
                                         "\"merges\":[[\"a\",\" \"]]}}");
    if (!assert_ok(snrq_tokenizer_read(scratch(), &t))) return;
    encodes(t, "a a", "2 0");
    snrq_tokenizer_destroy(&t);
}

static void unknown_characters_vanish_without_an_unknown_token(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small("", "", &t))) return;
    encodes(t, "xayb", "7"); /* as neighbours, a and b merge */
    snrq_tokenizer_destroy(&t);
}

static void unknown_characters_become_one_token_each_or_fused(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small("\"unk_token\":\"<unk>\"", "", &t))) return;
    encodes(t, "xyaz", "0 0 4 0");
    snrq_tokenizer_destroy(&t);
    if (!assert_ok(read_small("\"unk_token\":\"<unk>\",\"fuse_unk\":true", "", &t))) return;
    encodes(t, "xyaz", "0 4 0");
    snrq_tokenizer_destroy(&t);
}

/* Writes a tokenizer whose vocabulary is the byte tokens `first`..255 and a few letters. */
static void write_byte_tokenizer(int first, const char *others)
{
    static char text[1 << 14];
    int used =
        snprintf(text, sizeof text, "{%s\"model\":{\"byte_fallback\":true,\"vocab\":{", others);
    for (int i = first; i < 256; i++)
        used +=
            snprintf(text + used, sizeof text - (size_t)used, "\"<0x%02X>\":%d,", (unsigned)i, i);
    snprintf(text + used, sizeof text - (size_t)used,
             "\"a\":256,\"b\":257,\"ab\":258},\"merges\":[\"a b\"]}}");
    scratch_write_text("tokenizer.json", text);
}

static void characters_without_a_token_become_bytes(void)
{
    snrq_tokenizer *t;
    write_byte_tokenizer(0, "");
    if (!assert_ok(snrq_tokenizer_read(scratch(), &t))) return;
    encodes(t, "ab\xc3\xa4\nb", "258 195 164 10 257");
    snrq_tokenizer_destroy(&t);
}

static void an_incomplete_set_of_byte_tokens_is_refused(void)
{
    snrq_tokenizer *t;
    write_byte_tokenizer(1, "");
    assert_failed(snrq_tokenizer_read(scratch(), &t), SNRQ_BAD_DATA, "only 255 of the 256");
}

static void a_whole_word_can_come_before_the_merges(void)
{
    snrq_tokenizer *t;
    scratch_write_text("tokenizer.json",
                       "{\"model\":{\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,"
                       "\"aba\":2,\"ab\":3},\"merges\":[\"a b\"]}}");
    if (!assert_ok(snrq_tokenizer_read(scratch(), &t))) return;
    encodes(t, "aba", "2");
    encodes(t, "abab", "3 3");
    snrq_tokenizer_destroy(&t);
}

#define PREPEND "{\"type\":\"Prepend\",\"prepend\":\"_\"}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}"

static void the_normalizer_prepends_and_replaces_in_order(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small(
            "", "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" PREPEND "," REPLACE "]}",
            &t)))
        return;
    encodes(t, "a a", "8 8");
    encodes(t, " a", "3 8");
    encodes(t, "", "");
    snrq_tokenizer_destroy(&t);
}

static void metaspace_prepends_as_its_scheme_says(void)
{
    static const struct {
        const char *scheme, *plain, *spaced, *behind_token;
    } cases[] = {
        {"\"prepend_scheme\":\"first\",\"split\":false", "8 8", "8", "1 4"},
        {"\"prepend_scheme\":\"always\",\"split\":false", "8 8", "8", "1 8"},
        {"\"prepend_scheme\":\"never\",\"split\":false", "4 8", "8", "1 4"},
        {"\"add_prefix_space\":false,\"split\":false", "4 8", "8", "1 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char others[512];
        snrq_tokenizer *t;
        snprintf(others, sizeof others,
                 "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true}],"
                 "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",%s}",
                 cases[i].scheme);
        if (!assert_ok(read_small("", others, &t))) continue;
        encodes(t, "a a", cases[i].plain);
        encodes(t, " a", cases[i].spaced);
        encodes(t, "_a", cases[i].spaced);
        encodes(t, "<s>a", cases[i].behind_token);
        snrq_tokenizer_destroy(&t);
    }
}

static void metaspace_can_split_into_words(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small("",
                              "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\","
                              "\"prepend_scheme\":\"never\",\"split\":true}",
                              &t)))
        return;
    encodes(t, "ab  a", "7 3 8"); /* "_ _" would merge within one word */
    snrq_tokenizer_destroy(&t);
}

static void added_tokens_are_cut_out_longest_first(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small("",
                              "\"added_tokens\":["
                              "{\"id\":1,\"content\":\"<s>\",\"normalized\":false},"
                              "{\"id\":12,\"content\":\"<s><s>!\",\"normalized\":false},"
                              "{\"id\":5,\"content\":\"b\",\"normalized\":true}]",
                              &t)))
        return;
    encodes(t, "abc", "4 5 6");
    encodes(t, "<s><s>!<s>", "12 1");
    encodes(t, "<s><s><s>", "1 1 1");
    encodes(t, "a<s", "4");
    snrq_tokenizer_destroy(&t);
}

static void an_added_token_must_have_the_id_of_the_vocabulary(void)
{
    refused("", "\"added_tokens\":[{\"id\":12,\"content\":\"b\"}]",
            "\"b\" has id 12, but 5 in the vocabulary");
    refused("", "\"added_tokens\":[{\"id\":5,\"content\":\"new\"}]",
            "\"new\" has id 5, which \"b\" has already");
    refused("", "\"added_tokens\":[{\"id\":12,\"content\":\"\"}]", "content is empty");
    refused("", "\"added_tokens\":[{\"id\":12,\"content\":\"x\"},{\"id\":12,\"content\":\"x\"}]",
            "\"x\"");
    refused("", "\"added_tokens\":{}", "\"added_tokens\": expected an array");
    refused("", "\"added_tokens\":[{\"content\":\"x\"}]", "added_tokens[0]: key \"id\" is missing");
    refused("", "\"added_tokens\":[{\"id\":99999999,\"content\":\"x\"}]",
            "added_tokens[0]: key \"id\"");
}

static void stripping_tokens_swallow_white_space(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small("\"unk_token\":\"<unk>\"",
                              "\"added_tokens\":[{\"id\":12,\"content\":\"<l>\",\"lstrip\":true},"
                              "{\"id\":13,\"content\":\"<r>\",\"rstrip\":true},"
                              "{\"id\":14,\"content\":\"<n>\"}]",
                              &t)))
        return;
    encodes(t, "a \t<l> b", "4 12 0 5");
    encodes(t, "a <r>\xe3\x80\x80\n b", "4 0 13 5");
    encodes(t, "a <n> b", "4 0 14 0 5");
    encodes(t, "<r> <l>", "13 12");
    encodes(t, "  <l>", "12");
    snrq_tokenizer_destroy(&t);
}

static void single_words_are_not_cut_out_of_others(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small(
            "\"unk_token\":\"<unk>\"",
            "\"added_tokens\":[{\"id\":12,\"content\":\"aa\",\"single_word\":true}]", &t)))
        return;
    encodes(t, "aa", "12");
    encodes(t, "c-aa!", "6 0 12 0");
    encodes(t, "caa", "6 4 4");
    encodes(t, "aa_", "4 4 3");
    encodes(t, "aa\xc3\xa9", "4 4 0"); /* e with acute: a letter */
    encodes(t,
            "\xe2\x80\x9c"
            "aa",
            "0 12"); /* a quotation mark is none */
    encodes(t, "aaaa aa", "4 4 4 4 0 12");
    snrq_tokenizer_destroy(&t);
}

static void normalized_tokens_are_looked_for_in_normalized_text(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(
            read_small("",
                       "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" PREPEND "," REPLACE
                       "]},\"added_tokens\":[{\"id\":12,\"content\":\"c a\",\"normalized\":true}]",
                       &t)))
        return;
    encodes(t, "c ab", "12 5");
    encodes(t, "bc a", "3 10 8"); /* "_c_a" is looked for */
    encodes(t, "b c a", "3 5 12");
    snrq_tokenizer_destroy(&t);
}

#define TEMPLATE(items)                                                                            \
    "{\"type\":\"TemplateProcessing\",\"single\":[" items                                          \
    "],\"special_tokens\":{\"B\":{\"ids\":[1]},\"E\":{\"ids\":[2,2]}}}"
#define SPECIAL(name) "{\"SpecialToken\":{\"id\":\"" name "\"}}"
#define TEXT "{\"Sequence\":{\"id\":\"A\"}}"

static void the_template_puts_tokens_around_the_text(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_small(
            "", "\"post_processor\":" TEMPLATE(SPECIAL("B") "," TEXT "," SPECIAL("E")), &t)))
        return;
    encodes(t, "ab", "1 7 2 2");
    encodes(t, "", "1 2 2");
    CU_ASSERT_STRING_EQUAL(encoded(t, "ab", false), "7");
    snrq_tokenizer_destroy(&t);
}

static void templates_in_a_sequence_nest(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(
            read_small("",
                       "\"post_processor\":{\"type\":\"Sequence\",\"processors\":["
                       "{\"type\":\"ByteLevel\"}," TEMPLATE(SPECIAL("B") "," TEXT) "," TEMPLATE(
                           SPECIAL("E") "," TEXT "," SPECIAL("B")) "]}",
                       &t)))
        return;
    encodes(t, "ab", "2 2 1 7 1");
    snrq_tokenizer_destroy(&t);
}

static void a_template_that_is_wrong_is_refused(void)
{
    refused("", "\"post_processor\":" TEMPLATE(SPECIAL("B")), "the sequence \"A\" is missing");
    refused("", "\"post_processor\":" TEMPLATE(TEXT "," TEXT), "just once");
    refused("", "\"post_processor\":" TEMPLATE(TEXT "," SPECIAL("X")),
            "special_tokens has no \"X\"");
    refused("",
            "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" TEXT
            "," SPECIAL("B") "],\"special_tokens\":{\"B\":{\"ids\":[12]}}}",
            "expected a token id of the vocabulary");
}

static void unknown_kinds_are_refused_by_name(void)
{
    refused("\"type\":\"Unigram\"", "",
            "model: type \"Unigram\" is not supported (supported: BPE)");
    refused("", "\"normalizer\":{\"type\":\"NFC\"}", "normalizer: type \"NFC\"");
    refused("", "\"pre_tokenizer\":{\"type\":\"ByteLevel\"}", "pre_tokenizer: type \"ByteLevel\"");
    refused("", "\"post_processor\":{\"type\":\"RobertaProcessing\"}",
            "type \"RobertaProcessing\"");
    refused("", "\"decoder\":{\"type\":\"WordPiece\"}", "decoder: type \"WordPiece\"");
    refused("",
            "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}",
            "Regex pattern is not supported");
    refused("\"dropout\":0.1", "", "dropout 0.1");
    refused("\"continuing_subword_prefix\":\"##\"", "", "continuing_subword_prefix \"##\"");
    refused("\"unk_token\":\"?\"", "", "unk_token \"?\" is not in the vocabulary");
}

static void a_model_that_is_wrong_is_refused(void)
{
    static const struct {
        const char *text, *fragment;
    } cases[] = {
        {"{}", "key \"model\" is missing"},
        {"{\"model\":{\"merges\":[]}}", "\"vocab\" is missing"},
        {"{\"model\":{\"vocab\":{\"a\":0}}}", "\"merges\" is missing"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "token \"a\": expected an id from 0"},
        {"{\"model\":{\"vocab\":{\"a\":4194304},\"merges\":[]}}", "token \"a\": expected an id"},
        {"{\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", "token \"a\": expected an id"},
        {"{\"model\":{\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}",
         "\"b\" has id 1, which \"a\" has"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}",
         "merges[0] makes \"ab\": it is not"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "its right side is not"},
        {"{\"model\":{\"vocab\":{\"b\":0},\"merges\":[\"a b\"]}}", "its left side is not"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}",
         "merges[0]: expected \"LEFT RIGHT\""},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", "merges[0]: expected"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]}}", "merges[0]: expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snrq_tokenizer *tokenizer;
        scratch_write_text("tokenizer.json", cases[i].text);
        assert_failed(snrq_tokenizer_read(scratch(), &tokenizer), SNRQ_BAD_DATA, cases[i].fragment);
    }
}

static void a_missing_file_is_no_input(void)
{
    snrq_tokenizer *tokenizer;
    remove(scratch_path("tokenizer.json"));
    assert_failed(snrq_tokenizer_read(scratch(), &tokenizer), SNRQ_NO_INPUT, "tokenizer.json");
}

static void text_that_is_not_utf8_is_refused_with_its_position(void)
{
    static const char *const bad[] = {"ab\x80",
                                      "ab\xc3",
                                      "ab\xc0\x80",
                                      "ab\xed\xa0\x80",
                                      "ab\xf5\x80\x80\x80",
                                      "ab\xe0\x80\x80",
                                      "ab\xf4\x90\x80\x80",
                                      "ab\xf0\x9f\x98"};
    snrq_tokenizer *t;
    int32_t *ids;
    int64_t count;
    if (!assert_ok(read_small("", "", &t))) return;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_failed(snrq_tokenizer_encode(t, bad[i], strlen(bad[i]), true, &ids, &count),
                      SNRQ_BAD_DATA, "byte 2 of the text");
    snrq_tokenizer_destroy(&t);
}

static void without_a_decoder_tokens_are_joined_by_spaces(void)
{
    snrq_tokenizer *t;
    const int32_t ids[] = {7, 1, 4};
    if (!assert_ok(read_small(
            "", "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true}]", &t)))
        return;
    decodes(t, ids, 3, "ab a");
    decodes(t, ids, 0, "");
    snrq_tokenizer_destroy(&t);
}

static void decoder_steps_work_in_order(void)
{
    snrq_tokenizer *t;
    const int32_t ids[] = {8, 8, 3};
    if (!assert_ok(
            read_small("",
                       "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
                       "\"pattern\":{\"String\":\"_\"},\"content\":\" \"},{\"type\":\"Fuse\"},"
                       "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":1}]}",
                       &t)))
        return;
    decodes(t, ids, 3, "a a");
    snrq_tokenizer_destroy(&t);
}

static void without_fuse_every_token_is_stripped(void)
{
    snrq_tokenizer *t;
    const int32_t ids[] = {8, 11, 4};
    if (!assert_ok(read_small(
            "", "\"decoder\":{\"type\":\"Strip\",\"content\":\"_\",\"start\":1,\"stop\":0}", &t)))
        return;
    decodes(t, ids, 3, "a_a");
    snrq_tokenizer_destroy(&t);
}

static void the_metaspace_decoder_drops_the_first_space(void)
{
    snrq_tokenizer *t;
    const int32_t ids[] = {8, 8};
    if (!assert_ok(read_small("",
                              "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"_\","
                              "\"prepend_scheme\":\"first\"}",
                              &t)))
        return;
    decodes(t, ids, 2, "a a");
    snrq_tokenizer_destroy(&t);
    if (!assert_ok(read_small("",
                              "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"_\","
                              "\"prepend_scheme\":\"never\"}",
                              &t)))
        return;
    decodes(t, ids, 2, " a a");
    snrq_tokenizer_destroy(&t);
}

static void bytes_become_characters_or_replacement_characters(void)
{
    snrq_tokenizer *t;
    const int32_t good[] = {256, 0xc3, 0xa4, 256}, bad[] = {0xc3, 256, 0xa4, 0xff};
    write_byte_tokenizer(0, "\"decoder\":{\"type\":\"ByteFallback\"},");
    if (!assert_ok(snrq_tokenizer_read(scratch(), &t))) return;
    decodes(t, good, 4,
            "a\xc3\xa4"
            "a");
    decodes(t, bad, 4,
            "\xef\xbf\xbd"
            "a\xef\xbf\xbd\xef\xbf\xbd");
    snrq_tokenizer_destroy(&t);
}

static void an_id_the_tokenizer_does_not_have_is_named(void)
{
    snrq_tokenizer *t;
    char *text;
    size_t bytes;
    const int32_t high[] = {4, 20}, hole[] = {13}, negative[] = {-1};
    if (!assert_ok(read_small("", "\"added_tokens\":[{\"id\":15,\"content\":\"far\"}]", &t)))
        return;
    CU_ASSERT_EQUAL(snrq_tokenizer_size(t), 16);
    assert_failed(snrq_tokenizer_decode(t, high, 2, true, &text, &bytes), SNRQ_BAD_DATA,
                  "token 1 is id 20");
    assert_failed(snrq_tokenizer_decode(t, hole, 1, true, &text, &bytes), SNRQ_BAD_DATA,
                  "token 0 is id 13");
    assert_failed(snrq_tokenizer_decode(t, negative, 1, true, &text, &bytes), SNRQ_BAD_DATA,
                  "id -1");
    snrq_tokenizer_destroy(&t);
}

static int check_line(const snrq_tokenizer *tokenizer, const char *line, size_t bytes)
{
    json_t *root = json_loadb(line, bytes, JSON_ALLOW_NUL, NULL);
    const json_t *text = json_object_get(root, "text"), *expected = json_object_get(root, "ids");
    int32_t *ids = NULL;
    int64_t count = 0;
    snrq_status status = snrq_tokenizer_encode(tokenizer, json_string_value(text),
                                               json_string_length(text), true, &ids, &count);
    int wrong = root == NULL || status != SNRQ_OK || (size_t)count != json_array_size(expected);
    for (int64_t i = 0; !wrong && i < count; i++)
        wrong = ids[i] != json_integer_value(json_array_get(expected, (size_t)i));
    free(ids);
    json_decref(root);
    return wrong;
}

/* Every line of `vectors` [JSON lines {"text", "ids"}] is encoded exactly. */
static void check_vectors(const char *directory, const char *vectors)
{
    snrq_tokenizer *tokenizer;
    char *data;
    size_t bytes, lines = 0;
    int wrong = 0;
    if (!assert_ok(snrq_file_read(vectors, 1 << 26, &data, &bytes))) return;
    if (assert_ok(snrq_tokenizer_read(directory, &tokenizer))) {
        for (size_t begin = 0; begin < bytes; lines++) {
            const char *end = memchr(data + begin, '\n', bytes - begin);
            size_t length = end != NULL ? (size_t)(end - data) - begin : bytes - begin;
            wrong += check_line(tokenizer, data + begin, length);
            begin += length + 1;
        }
        snrq_tokenizer_destroy(&tokenizer);
    }
    if (wrong > 0) fprintf(stderr, "%s: %d of %zu lines are wrong\n", vectors, wrong, lines);
    CU_ASSERT_TRUE(lines > 10);
    CU_ASSERT_EQUAL(wrong, 0);
    free(data);
}

static void recorded_vectors_of_real_tokenizers_are_met(void)
{
    static const char *const directories[] = {
        "data/models/stories3M",
        "data/models/stories260K",
        "data/models/fixtures/tiny_llama2",
        "data/models/fixtures/strong_mistral",
        "data/models/fixtures/tiny_phi3",
        "data/tokenizers/llama2",
        "data/tokenizers/phi3",
    };
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        char vectors[PATH_MAX + 32];
        const char *path = test_data("SNRQ_SHARED", directories[i]);
        if (path == NULL) continue;
        snprintf(vectors, sizeof vectors, "%s/vectors.jsonl", path);
        check_vectors(path, vectors);
    }
}

static void recorded_vectors_of_the_bundled_model_are_met(void)
{
    char directory[PATH_MAX];
    const char *path = test_data("SNRQ_TEST_DATA", "model/tokenizer.json");
    if (path == NULL) return;
    snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
    path = test_data("SNRQ_TEST_DATA", "vectors.jsonl");
    if (path != NULL) check_vectors(directory, path);
}

enum { LETTERS = 4, MERGE_COUNT = 60, WORD = 300 };

/* A random tokenizer: letters a.., and merges of two random tokens each. */
static void write_random_tokenizer(uint64_t *state)
{
    json_t *vocab = json_object(), *merges = json_array();
    char tokens[LETTERS + MERGE_COUNT][64];
    int count = 0;
    for (; count < LETTERS; count++) snprintf(tokens[count], 64, "%c", 'a' + count);
    for (int i = 0; i < count; i++) json_object_set_new(vocab, tokens[i], json_integer(i));
    while (json_array_size(merges) < MERGE_COUNT) {
        const char *a = tokens[test_random(state) % (uint64_t)count];
        const char *b = tokens[test_random(state) % (uint64_t)count];
        char joined[64];
        if (strlen(a) + strlen(b) > 12) continue;
        snprintf(joined, sizeof joined, "%.30s%.30s", a, b);
        json_array_append_new(merges, json_pack("[s,s]", a, b));
        if (json_object_get(vocab, joined) != NULL) continue;
        json_object_set_new(vocab, joined, json_integer(count));
        strcpy(tokens[count++], joined);
    }
    json_t *root = json_pack("{s:{s:o,s:o}}", "model", "vocab", vocab, "merges", merges);
    char *text = json_dumps(root, 0);
    scratch_write_text("tokenizer.json", text);
    free(text);
    json_decref(root);
}

/* Merges as the definition says: look for the best pair everywhere, merge it, begin again. */
static int64_t slow_encode(const snrq_vocabulary *vocabulary, const char *word, int32_t *ids)
{
    int64_t count = (int64_t)strlen(word);
    for (int64_t i = 0; i < count; i++) ids[i] = snrq_vocabulary_find(vocabulary, word + i, 1);
    for (;;) {
        uint64_t best = UINT64_MAX;
        int64_t at = -1;
        for (int64_t i = 0; i + 1 < count; i++) {
            uint64_t merge = snrq_map_get(&vocabulary->merges,
                                          (uint64_t)(uint32_t)ids[i] << 32 | (uint32_t)ids[i + 1]);
            if (merge == UINT64_MAX || merge >> 32 >= best >> 32) continue;
            best = merge;
            at = i;
        }
        if (at < 0) return count;
        ids[at] = (int32_t)(uint32_t)best;
        memmove(ids + at + 1, ids + at + 2, (size_t)(count - at - 2) * sizeof *ids);
        count--;
    }
}

static void random_words_encode_as_the_slow_twin(void)
{
    uint64_t state = 11;
    int wrong = 0;
    for (int round = 0; round < 40; round++) {
        snrq_tokenizer *t;
        write_random_tokenizer(&state);
        if (!assert_ok(snrq_tokenizer_read(scratch(), &t))) return;
        for (int i = 0; i < 20; i++) {
            char word[WORD + 1] = {0};
            int32_t slow[WORD], *fast;
            int64_t count;
            size_t length = test_random(&state) % WORD;
            for (size_t j = 0; j < length; j++)
                word[j] = (char)('a' + (int)(test_random(&state) % LETTERS));
            int64_t expected = slow_encode(&t->vocabulary, word, slow);
            if (!assert_ok(snrq_tokenizer_encode(t, word, length, true, &fast, &count))) return;
            wrong += count != expected || memcmp(fast, slow, (size_t)count * sizeof *slow) != 0;
            free(fast);
        }
        snrq_tokenizer_destroy(&t);
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

static void cutting_a_word_does_not_change_its_ids(void)
{
    char *text;
    size_t bytes;
    snrq_tokenizer *t;
    int32_t *cut, *whole;
    int64_t cut_count, whole_count;
    const char *path = test_data("SNRQ_TEST_DATA", "heldout.txt");
    if (path == NULL || !assert_ok(snrq_file_read(path, 1 << 26, &text, &bytes))) return;
    path = test_data("SNRQ_TEST_DATA", "model");
    if (path != NULL && assert_ok(snrq_tokenizer_read(path, &t))) {
        CU_ASSERT_TRUE(t->vocabulary.cuttable);
        assert_ok(snrq_tokenizer_encode(t, text, bytes, true, &cut, &cut_count));
        t->vocabulary.cuttable = false;
        assert_ok(snrq_tokenizer_encode(t, text, bytes, true, &whole, &whole_count));
        CU_ASSERT_EQUAL(cut_count, whole_count);
        CU_ASSERT_EQUAL(memcmp(cut, whole, (size_t)cut_count * sizeof *cut), 0);
        free(cut);
        free(whole);
        snrq_tokenizer_destroy(&t);
    }
    free(text);
}

/* A merge of byte tokens makes symbols that do not cover their own text: such a word must not be
 * cut. */
static void merges_of_byte_tokens_prevent_cutting(void)
{
    static char text[1 << 14];
    int used = snprintf(text, sizeof text, "{\"model\":{\"byte_fallback\":true,\"vocab\":{");
    for (int i = 0; i < 256; i++)
        used +=
            snprintf(text + used, sizeof text - (size_t)used, "\"<0x%02X>\":%d,", (unsigned)i, i);
    snprintf(text + used, sizeof text - (size_t)used,
             "\"<0xC3><0xA4>\":256},\"merges\":[\"<0xC3> <0xA4>\"]}}");
    snrq_tokenizer *t;
    scratch_write_text("tokenizer.json", text);
    if (!assert_ok(snrq_tokenizer_read(scratch(), &t))) return;
    CU_ASSERT_FALSE(t->vocabulary.cuttable);
    encodes(t, "\xc3\xa4", "256");
    snrq_tokenizer_destroy(&t);
}

static double encoding_seconds(const snrq_tokenizer *tokenizer, const char *text, size_t bytes)
{
    int32_t *ids;
    int64_t count;
    clock_t before = clock();
    if (assert_ok(snrq_tokenizer_encode(tokenizer, text, bytes, true, &ids, &count))) free(ids);
    return (double)(clock() - before) / CLOCKS_PER_SEC;
}

/* Sixteen times the text, at most 64 times the time: quadratic would be 256 times. */
static void a_long_word_takes_no_quadratic_time(void)
{
    enum { LENGTH = 1 << 20 };
    uint64_t state = 5;
    char *text = malloc(LENGTH);
    snrq_tokenizer *t;
    scratch_write_text(
        "tokenizer.json",
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"ab\":3,\"ba\":4,\"aaaa\":5,"
        "\"abba\":6,\"bb\":7},\"merges\":[\"a a\",\"a b\",\"b a\",\"b b\",\"aa aa\",\"ab ba\"]}}");
    if (!assert_ok(snrq_tokenizer_read(scratch(), &t))) return;
    for (int letters = 1; letters <= 2; letters++) {
        for (size_t i = 0; i < LENGTH; i++)
            text[i] = (char)('a' + (int)(test_random(&state) % (uint64_t)letters));
        double part = encoding_seconds(t, text, LENGTH / 16),
               whole = encoding_seconds(t, text, LENGTH);
        CU_ASSERT_TRUE(whole < 64 * part + 0.1);
    }
    free(text);
    snrq_tokenizer_destroy(&t);
}

/* A file with every kind of part, cut anywhere and with any bit turned over. */
static void damaged_files_never_crash(void)
{
    static const char text[] =
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" PREPEND "," REPLACE "]},"
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
        "\"first\"},"
        "\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true,\"normalized\":true}],"
        "\"post_processor\":" TEMPLATE(SPECIAL(
            "B") "," TEXT) ","
                           "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":"
                           "\"ByteFallback\"},{\"type\":\"Fuse\"},"
                           "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
                           "\"model\":{\"type\":\"BPE\",\"unk_token\":\"_\",\"vocab\":{\"_\":0,"
                           "\"a\":1,\"b\":2,\"ab\":3},"
                           "\"merges\":[\"a b\"]}}";
    static char damaged[sizeof text];
    snrq_tokenizer *t;
    for (size_t cut = 0; cut + 1 < sizeof text; cut++) {
        scratch_write("tokenizer.json", text, cut);
        CU_ASSERT_EQUAL(snrq_tokenizer_read(scratch(), &t), SNRQ_BAD_DATA);
    }
    for (size_t bit = 0; bit < 8 * (sizeof text - 1); bit++) {
        int32_t *ids;
        int64_t count;
        memcpy(damaged, text, sizeof text);
        damaged[bit / 8] = (char)(damaged[bit / 8] ^ 1 << bit % 8);
        scratch_write("tokenizer.json", damaged, sizeof text - 1);
        snrq_status status = snrq_tokenizer_read(scratch(), &t);
        CU_ASSERT_TRUE(status == SNRQ_OK || status == SNRQ_BAD_DATA);
        if (status != SNRQ_OK) continue;
        if (snrq_tokenizer_encode(t, "ab <s>_a b", 10, true, &ids, &count) == SNRQ_OK) {
            char *back;
            size_t bytes;
            if (snrq_tokenizer_decode(t, ids, count, false, &back, &bytes) == SNRQ_OK) free(back);
            free(ids);
        }
        snrq_tokenizer_destroy(&t);
    }
}

static void nesting_and_growth_are_bounded(void)
{
    static char text[1 << 13];
    size_t used = (size_t)snprintf(text, sizeof text, "\"normalizer\":");
    snrq_tokenizer *t;
    for (int i = 0; i < 20; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 20; i++) used += (size_t)snprintf(text + used, sizeof text - used, "]}");
    refused("", text, "nested deeper than 8");
    used = (size_t)snprintf(text, sizeof text,
                            "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 16; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},"
                                 "\"content\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
                                 i > 0 ? "," : "");
    snprintf(text + used, sizeof text - used, "]}");
    if (!assert_ok(read_small("", text, &t))) return;
    int32_t *ids;
    int64_t count;
    assert_failed(snrq_tokenizer_encode(t, "aaaaaaaa", 8, true, &ids, &count), SNRQ_BAD_DATA,
                  "16 times longer");
    snrq_tokenizer_destroy(&t);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(merges_go_by_rank_then_from_the_left),
        SNRQ_TEST(merges_may_be_pairs),
        SNRQ_TEST(unknown_characters_vanish_without_an_unknown_token),
        SNRQ_TEST(unknown_characters_become_one_token_each_or_fused),
        SNRQ_TEST(characters_without_a_token_become_bytes),
        SNRQ_TEST(an_incomplete_set_of_byte_tokens_is_refused),
        SNRQ_TEST(a_whole_word_can_come_before_the_merges),
        SNRQ_TEST(the_normalizer_prepends_and_replaces_in_order),
        SNRQ_TEST(metaspace_prepends_as_its_scheme_says),
        SNRQ_TEST(metaspace_can_split_into_words),
        SNRQ_TEST(added_tokens_are_cut_out_longest_first),
        SNRQ_TEST(an_added_token_must_have_the_id_of_the_vocabulary),
        SNRQ_TEST(stripping_tokens_swallow_white_space),
        SNRQ_TEST(single_words_are_not_cut_out_of_others),
        SNRQ_TEST(normalized_tokens_are_looked_for_in_normalized_text),
        SNRQ_TEST(the_template_puts_tokens_around_the_text),
        SNRQ_TEST(templates_in_a_sequence_nest),
        SNRQ_TEST(a_template_that_is_wrong_is_refused),
        SNRQ_TEST(unknown_kinds_are_refused_by_name),
        SNRQ_TEST(a_model_that_is_wrong_is_refused),
        SNRQ_TEST(a_missing_file_is_no_input),
        SNRQ_TEST(text_that_is_not_utf8_is_refused_with_its_position),
        SNRQ_TEST(without_a_decoder_tokens_are_joined_by_spaces),
        SNRQ_TEST(decoder_steps_work_in_order),
        SNRQ_TEST(without_fuse_every_token_is_stripped),
        SNRQ_TEST(the_metaspace_decoder_drops_the_first_space),
        SNRQ_TEST(bytes_become_characters_or_replacement_characters),
        SNRQ_TEST(an_id_the_tokenizer_does_not_have_is_named),
        SNRQ_TEST(recorded_vectors_of_real_tokenizers_are_met),
        SNRQ_TEST(recorded_vectors_of_the_bundled_model_are_met),
        SNRQ_TEST(random_words_encode_as_the_slow_twin),
        SNRQ_TEST(cutting_a_word_does_not_change_its_ids),
        SNRQ_TEST(merges_of_byte_tokens_prevent_cutting),
        SNRQ_TEST(a_long_word_takes_no_quadratic_time),
        SNRQ_TEST(damaged_files_never_crash),
        SNRQ_TEST(nesting_and_growth_are_bounded),
    };
    int result = snrq_run_tests("tokenizer", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
