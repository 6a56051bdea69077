/* Pre-tokenizers: into which words a text is cut, what is refused, and what bounds the work; and
 * the Unicode normal forms. */
#include <time.h>

#include "io/tokenizer/internal.h"
#include "tests/unit/test_small_tokenizer.h"

#define SPLIT(pattern)                                                                             \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\","       \
    "\"invert\":false}"
#define SEQUENCE(steps) "{\"type\":\"Sequence\",\"pretokenizers\":[" steps "]}"
#define BYTE_LEVEL(space, regex)                                                                   \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":" space ",\"use_regex\":" regex "}"
/* Llama-3's. */
#define LLAMA_3                                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|"          \
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static snrq_status pre_tokenizer_of(const char *json, snrq_pre_tokenizer *out)
{
    json_t *root = json_object();
    json_object_set_new(root, "pre_tokenizer", json_loads(json, 0, NULL));
    *out = (snrq_pre_tokenizer){0};
    snrq_status status = snrq_pre_tokenizer_read("tokenizer.json", root, out);
    json_decref(root);
    if (status != SNRQ_OK) snrq_pre_tokenizer_free(out);
    return status;
}

static char found[4096];

static snrq_status put_word(void *user, const char *word, size_t bytes)
{
    (void)user;
    size_t used = strlen(found);
    snprintf(found + used, sizeof found - used, "[%.*s]", (int)bytes, word);
    return SNRQ_OK;
}

/* The words of `text` are "[one][two]". */
static void cuts(const char *json, const char *text, const char *expected)
{
    snrq_pre_tokenizer pre_tokenizer;
    snrq_words work = {.put = put_word};
    if (!assert_ok(pre_tokenizer_of(json, &pre_tokenizer))) return;
    found[0] = '\0';
    assert_ok(snrq_words_of(&pre_tokenizer, &work, text, strlen(text), true));
    if (strcmp(found, expected) != 0)
        fprintf(stderr, "\"%s\": expected %s, found %s\n", text, expected, found);
    CU_ASSERT_STRING_EQUAL(found, expected);
    snrq_words_free(&work);
    snrq_pre_tokenizer_free(&pre_tokenizer);
}

static void refuses(const char *json, const char *fragment)
{
    snrq_pre_tokenizer pre_tokenizer;
    assert_failed(pre_tokenizer_of(json, &pre_tokenizer), SNRQ_BAD_DATA, fragment);
}

static void matches_and_what_is_between_are_words(void)
{
    cuts(SPLIT("b+"), "abbcb", "[a][bb][c][b]");
    cuts(SPLIT("b+"), "xyz", "[xyz]");
    cuts(SPLIT("b+"), "bb", "[bb]");
    cuts("{\"type\":\"Split\",\"pattern\":{\"String\":\".\"},\"behavior\":\"Isolated\"}", "a.b",
         "[a][.][b]");
}

static void removed_pieces_are_no_words(void)
{
#define REMOVED(invert)                                                                            \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"b+\"},\"behavior\":\"Removed\","                 \
    "\"invert\":" invert "}"
    cuts(REMOVED("false"), "abbcb", "[a][c]");
    cuts(REMOVED("true"), "abbcb", "[bb][b]");
    cuts(REMOVED("false"), "bb", "");
    cuts(REMOVED("true"), "xyz", "");
#undef REMOVED
}

static void empty_matches_cut_between_characters(void)
{
    cuts(SPLIT("x*"), "a\xc3\xa4xxb", "[a][\xc3\xa4][xx][b]");
    cuts(SPLIT("(?=b)"), "abab", "[a][ba][b]");
}

static void cuts_work_one_inside_the_other(void)
{
    cuts(SEQUENCE(SPLIT("\\\\d") "," SPLIT("^b")), "1bb2b", "[1][b][b][2][b]");
    cuts(SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true}"), "a12", "[a][1][2]");
    cuts(SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":false}"), "a12", "[a][12]");
}

static void byte_level_cuts_as_gpt_2(void)
{
    cuts(BYTE_LEVEL("false", "true"), "Hello world's  12x\n\n y!?",
         "[Hello][ world]['s][ ][ 12][x][\n\n][ y][!?]");
    cuts(BYTE_LEVEL("false", "false"), "Hello world", "[Hello world]");
}

static void byte_level_puts_a_space_in_front_where_there_is_none(void)
{
    cuts(BYTE_LEVEL("true", "true"), "a b", "[ a][ b]");
    cuts(BYTE_LEVEL("true", "true"), " a b", "[ a][ b]");
    cuts(SEQUENCE(SPLIT("\\\\d") "," BYTE_LEVEL("true", "false")), "a1 b", "[ a][ 1][ b]");
}

static void llama_3_cuts_as_its_pattern_says(void)
{
    cuts(SPLIT(LLAMA_3), "I'LL say 12345 (ok)!\n\n  x",
         "[I]['LL][ say][ ][123][45][ (][ok][)!\n\n]"
         "[ ][ x]");
}

/* U+180E has not been white space since Unicode 6.3; U+2003 and U+0085 are. */
static void white_space_is_that_of_unicode(void)
{
    cuts(SPLIT("\\\\s"),
         "a\xe1\xa0\x8e"
         "b\xe2\x80\x83"
         "c\xc2\x85",
         "[a\xe1\xa0\x8e"
         "b][\xe2\x80\x83][c][\xc2\x85]");
    cuts(SPLIT("[^\\\\s]+"), "a \xe1\xa0\x8e", "[a][ ][\xe1\xa0\x8e]");
    cuts(SPLIT("\\\\S+"), "a \xe1\xa0\x8e", "[a][ ][\xe1\xa0\x8e]");
}

static void lines_begin_and_end_inside_the_text(void)
{
    cuts(SPLIT("^a"), "ab\nab", "[a][b\n][a][b]");
    cuts(SPLIT("b$"), "ab\nab", "[a][b][\na][b]");
    cuts(SPLIT("a.b"), "a\nb a\rb", "[a\nb ][a\rb]");
}

static void a_match_longer_than_a_window_is_found_whole(void)
{
    enum { LONG = 1000 };
    static char text[2 * LONG + 1], expected[2 * LONG + 8];
    snrq_pre_tokenizer pre_tokenizer;
    snrq_words work = {.put = put_word};
    memset(text, '.', LONG);
    memset(text + LONG, 'a', LONG);
    snprintf(expected, sizeof expected, "[%.*s][%s]", LONG, text, text + LONG);
    if (!assert_ok(pre_tokenizer_of(SPLIT("\\\\p{L}+"), &pre_tokenizer))) return;
    found[0] = '\0';
    assert_ok(snrq_words_of(&pre_tokenizer, &work, text, 2 * LONG, true));
    CU_ASSERT_STRING_EQUAL(found, expected);
    snrq_words_free(&work);
    snrq_pre_tokenizer_free(&pre_tokenizer);
}

static void what_means_something_else_to_the_library_is_refused(void)
{
    static const char *const patterns[] = {
        "\\\\h",       "\\\\w",    "[\\\\S]", "\\\\K",
        "\\\\G",       "\\\\b",    "\\\\1",   "\\\\p{Han}",
        "\\\\pL",      "\\\\x41",  "\\\\u12", "(?R)",
        "(?<n>a)",     "(?m:a)",   "(?C1)",   "(*LIMIT_MATCH=9)a",
        "[[:alpha:]]", "[a&&b]",   "a{,3}",   "a{1,3}+",
        "[]a]",        "[^]a]",    "(",       "[a",
        "a\\\\",       "a{70000}", "*",
    };
    char json[512];
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        snprintf(json, sizeof json, SPLIT("%s"), patterns[i]);
        refuses(json, "tokenizer.json: pre_tokenizer: the regular expression");
    }
}

static void huge_patterns_are_refused(void)
{
    static char json[1 << 14], nested[128];
    memset(nested, '(', 60);
    memset(nested + 60, ')', 60);
    snprintf(json, sizeof json, SPLIT("%s"), nested);
    refuses(json, "the regular expression cannot be used");
    snprintf(json, sizeof json, SPLIT("%5000d"), 1);
    refuses(json, "expected at most 4096");
    refuses(SPLIT("(((a{1000}){1000}){1000})"), "too large");
}

static void what_is_not_supported_is_refused_by_name(void)
{
    refuses("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"MergedWithNext\"}",
            "behavior \"MergedWithNext\" is not supported (supported: Isolated, Removed)");
    refuses("{\"type\":\"Split\",\"behavior\":\"Isolated\"}", "\"pattern\" is missing");
    refuses("{\"type\":\"Split\",\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\"}",
            "the pattern is empty");
    refuses(SEQUENCE(BYTE_LEVEL("false", "false") "," SPLIT("a")),
            "\"Split\" behind ByteLevel is not supported");
    refuses("{\"type\":\"BertPreTokenizer\"}", "type \"BertPreTokenizer\" is not supported");
}

static snrq_status ignore_word(void *user, const char *word, size_t bytes)
{
    (void)word;
    *(size_t *)user += bytes;
    return SNRQ_OK;
}

/* Cuts `bytes` letters `letter`, then checks the outcome; returns the seconds. */
static double time_of(const char *json, char letter, size_t bytes, bool stopped)
{
    snrq_pre_tokenizer pre_tokenizer;
    size_t total = 0;
    snrq_words work = {.put = ignore_word, .user = &total};
    char *text = malloc(bytes);
    if (text == NULL || !assert_ok(pre_tokenizer_of(json, &pre_tokenizer))) exit(1);
    memset(text, letter, bytes);
    clock_t before = clock();
    snrq_status status = snrq_words_of(&pre_tokenizer, &work, text, bytes, true);
    double seconds = (double)(clock() - before) / CLOCKS_PER_SEC;
    if (stopped)
        assert_failed(status, SNRQ_BAD_DATA, "the tokenizer's pattern");
    else
        CU_ASSERT_TRUE(assert_ok(status) && total == bytes);
    free(text);
    snrq_words_free(&work);
    snrq_pre_tokenizer_free(&pre_tokenizer);
    return seconds;
}

static void patterns_that_backtrack_without_end_are_stopped(void)
{
    static const struct {
        const char *pattern;
        size_t bytes;
    } cases[] = {
        {SPLIT("(?:a+)+[bc]"), 1000},
        {SPLIT("(?:a|a)*[bc]"), 1000},
        {SPLIT("(?:a|a)*[bc]"), 1 << 20},
        {SPLIT("a+[bc]|a"), 1 << 20}, /* quadratic, and never more than a few steps a byte */
        {SPLIT("(?!a+[bc])a"), 1 << 20},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CU_ASSERT_TRUE(time_of(cases[i].pattern, 'a', cases[i].bytes, true) < 10.0);
}

static void long_runs_of_one_character_are_no_trouble(void)
{
    static const char run[] = {' ', '\n', 'a', '!', '7'};
    for (size_t i = 0; i < sizeof run; i++)
        CU_ASSERT_TRUE(time_of(SPLIT(LLAMA_3), run[i], 4 << 20, false) < 10.0);
}

static void normalizes(snrq_unicode_form form, const char *text, const char *expected)
{
    snrq_buffer out = {0};
    assert_ok(snrq_unicode_normalize(form, text, strlen(text), &out));
    assert_ok(snrq_buffer_append(&out, "", 1));
    if (strcmp(out.data, expected) != 0)
        fprintf(stderr, "form %d of %s: expected %s, found %s\n", (int)form, text, expected,
                out.data);
    CU_ASSERT_STRING_EQUAL(out.data, expected);
    free(out.data);
}

/* From the examples of Unicode Standard Annex 15. */
static void normal_forms_are_those_of_unicode(void)
{
    static const char *const long_s[] = {"\u1e9b\u0323", "\u017f\u0323\u0307", "\u1e69",
                                         "s\u0323\u0307"};
    for (int form = SNRQ_NFC; form <= SNRQ_NFKD; form++)
        normalizes((snrq_unicode_form)form, "\u1e9b\u0323", long_s[form]);
    normalizes(SNRQ_NFC, "xe\u0301y", "x\u00e9y");
    normalizes(SNRQ_NFC, "\u00e9\u0301", "\u00e9\u0301");
    normalizes(SNRQ_NFC, "a\u0301\u0316b", "\u00e1\u0316b");
    normalizes(SNRQ_NFC, "\u212b \u2126", "\u00c5 \u03a9");
    normalizes(SNRQ_NFC, "\u1112\u1161\u11ab", "\ud55c");
    normalizes(SNRQ_NFC, "\u0958", "\u0915\u093c"); /* excluded from composition */
    normalizes(SNRQ_NFC, "\ufb01", "\ufb01");
    normalizes(SNRQ_NFKC, "\ufb01 \u00b2", "fi 2");
    normalizes(SNRQ_NFD, "\u00e9", "e\u0301");
    normalizes(SNRQ_NFC, "", "");
    normalizes(SNRQ_NFC, "\u0301", "\u0301");
}

/* Marks of two classes in turn, which are to be sorted: sixteen times the text, no 256 times the
 * time. */
static void sorting_marks_takes_no_quadratic_time(void)
{
    enum { MARKS = 1 << 18 };
    char *text = malloc((size_t)4 * MARKS);
    double seconds[2];
    for (int i = 0; text != NULL && i < MARKS; i++) memcpy(text + 4 * (size_t)i, "\u0301\u0316", 4);
    for (int part = 0; text != NULL && part < 2; part++) {
        snrq_buffer out = {0};
        size_t bytes = (size_t)4 * MARKS / (part == 0 ? 16 : 1);
        clock_t before = clock();
        assert_ok(snrq_unicode_normalize(SNRQ_NFC, text, bytes, &out));
        seconds[part] = (double)(clock() - before) / CLOCKS_PER_SEC;
        CU_ASSERT_EQUAL(out.used, bytes);
        CU_ASSERT_EQUAL(memcmp(out.data, "\u0316\u0316", 4), 0);
        free(out.data);
    }
    CU_ASSERT_TRUE(seconds[1] < 64 * seconds[0] + 0.1);
    free(text);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(matches_and_what_is_between_are_words),
        SNRQ_TEST(removed_pieces_are_no_words),
        SNRQ_TEST(empty_matches_cut_between_characters),
        SNRQ_TEST(cuts_work_one_inside_the_other),
        SNRQ_TEST(byte_level_cuts_as_gpt_2),
        SNRQ_TEST(byte_level_puts_a_space_in_front_where_there_is_none),
        SNRQ_TEST(llama_3_cuts_as_its_pattern_says),
        SNRQ_TEST(white_space_is_that_of_unicode),
        SNRQ_TEST(lines_begin_and_end_inside_the_text),
        SNRQ_TEST(a_match_longer_than_a_window_is_found_whole),
        SNRQ_TEST(what_means_something_else_to_the_library_is_refused),
        SNRQ_TEST(huge_patterns_are_refused),
        SNRQ_TEST(what_is_not_supported_is_refused_by_name),
        SNRQ_TEST(patterns_that_backtrack_without_end_are_stopped),
        SNRQ_TEST(long_runs_of_one_character_are_no_trouble),
        SNRQ_TEST(normal_forms_are_those_of_unicode),
        SNRQ_TEST(sorting_marks_takes_no_quadratic_time),
    };
    return snrq_run_tests("tokenizer_words", tests, sizeof tests / sizeof tests[0], 1);
}
