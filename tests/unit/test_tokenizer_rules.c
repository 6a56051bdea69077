/* Tokenizers: each rule of tokenizer.json on a small file of its own, encoding and decoding. */
#include "tests/unit/test_small_tokenizer.h"

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
    refused("", "\"normalizer\":{\"type\":\"Lowercase\"}", "normalizer: type \"Lowercase\"");
    refused("", "\"pre_tokenizer\":{\"type\":\"Whitespace\"}",
            "pre_tokenizer: type \"Whitespace\" is not supported (supported: Sequence, Split");
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
    };
    int result = snrq_run_tests("tokenizer_rules", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
