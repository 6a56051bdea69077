/* Windows as published programs draw them, and the random numbers behind them. */
#include "io/tokenizer/sampling.h"

#include <jansson.h>

#include "io/tokenizer/python_random.h"
#include "tests/unit/test_files.h"

/* What CPython prints: random.seed(seed), then getrandbits(32), at the given places of the stream.
 */
static void words_are_those_of_python(void)
{
    static const struct {
        uint64_t seed;
        uint32_t first[4], later[4]; /* words 0 to 3, words 623 to 626 */
    } streams[] = {
        {0,
         {3626764237, 1654615998, 3255389356, 3823568514},
         {2390040247, 2229104038, 1244770883, 1926483037}},
        {1,
         {577090037, 2444712010, 3639700191, 3445702192},
         {802355090, 1360367077, 3404757168, 3638416111}},
        {4294967303,
         {968553300, 3287823873, 1540179448, 1473205320},
         {2958273860, 573543845, 2834489332, 4132297281}},
    };
    for (size_t s = 0; s < sizeof streams / sizeof *streams; s++) {
        snrq_python_random random;
        snrq_python_random_seed(&random, streams[s].seed);
        for (int i = 0; i < 627; i++) {
            uint32_t word = snrq_python_random_word(&random);
            if (i < 4) CU_ASSERT_EQUAL(word, streams[s].first[i]);
            if (i >= 623) CU_ASSERT_EQUAL(word, streams[s].later[i - 623]);
        }
    }
}

/* CPython: random.seed(12345), then randint(0, last). */
static void numbers_are_those_of_python(void)
{
    static const int64_t last[] = {699,        12,         699,           0, 1, 63, 64, INT32_MAX,
                                   2147483648, 4294967295, 1099511627776, 5};
    static const int64_t drawn[] = {426,       11,         10,           0, 1, 24, 34, 1873586768,
                                    694443915, 1602297017, 952942322609, 2};
    snrq_python_random random;
    snrq_python_random_seed(&random, 12345);
    for (size_t i = 0; i < sizeof last / sizeof *last; i++)
        CU_ASSERT_EQUAL(snrq_python_random_up_to(&random, last[i]), drawn[i]);
}

/* A tokenizer with a token for each of the letters a and b, and for the beginning of a text. */
static snrq_tokenizer *letters(void)
{
    snrq_tokenizer *tokenizer = NULL;
    scratch_write_text(
        "tokenizer.json",
        "{\"added_tokens\":[],\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
        "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
        "\"special_tokens\":{\"<s>\":{\"ids\":[0]}}},\"model\":{\"type\":\"BPE\","
        "\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2},\"merges\":[]}}");
    assert_ok(snrq_tokenizer_read(scratch(), &tokenizer));
    return tokenizer;
}

static snrq_status draw(const char *lines, snrq_sampling_rule rule, int64_t count, int64_t length,
                        uint64_t seed, snrq_windows *out)
{
    snrq_tokenizer *tokenizer = letters();
    snrq_documents documents = {0};
    snrq_text_facts facts;
    const snrq_sampling_source source = {"docs", &documents, tokenizer, 3};
    scratch_write_text("docs", lines);
    snrq_status status = snrq_documents_hold(scratch_path("docs"), "text", &documents, &facts);
    if (status == SNRQ_OK)
        status = snrq_sampling_documents(&source, rule, count, length, seed, out);
    snrq_documents_free(&documents);
    snrq_tokenizer_destroy(&tokenizer);
    return status;
}

/* Documents of 4, 1, 6 and 3 tokens, counted with the beginning. */
#define DOCUMENTS "{\"text\":\"aaa\"}\n{\"text\":\"\"}\n{\"text\":\"babab\"}\n\n{\"text\":\"ab\"}\n"

/* Empty documents are rows of the data set, too, and blank lines are none. */
static void windows_lie_in_documents_that_are_long_enough(void)
{
    static const int32_t third[] = {0, 2, 1, 2, 1, 2};
    snrq_windows w;
    if (!assert_ok(draw(DOCUMENTS, SNRQ_SAMPLING_SNRQ, 64, 5, 3, &w))) return;
    for (int i = 0; i < 64; i++) {
        CU_ASSERT_EQUAL(w.place[i].document, 2);
        CU_ASSERT_TRUE(w.place[i].start == 0 || w.place[i].start == 1);
        CU_ASSERT_EQUAL(memcmp(w.ids + 5 * i, third + w.place[i].start, 5 * sizeof *third), 0);
    }
    CU_ASSERT_EQUAL(w.distinct, 6);
    snrq_windows_free(&w);
}

/* In a document of n tokens, GPTQ's rule has n - length starts, the other one has one more. */
static void the_rules_differ_in_the_last_start(void)
{
    bool last_seen = false;
    snrq_windows w;
    if (!assert_ok(draw("{\"text\":\"babab\"}\n", SNRQ_SAMPLING_GPTQ, 64, 4, 1, &w))) return;
    for (int i = 0; i < 64; i++) CU_ASSERT_TRUE(w.place[i].start == 0 || w.place[i].start == 1);
    snrq_windows_free(&w);
    if (!assert_ok(draw("{\"text\":\"babab\"}\n", SNRQ_SAMPLING_SNRQ, 64, 4, 1, &w))) return;
    for (int i = 0; i < 64; i++) last_seen |= w.place[i].start == 2;
    CU_ASSERT_TRUE(last_seen);
    snrq_windows_free(&w);
}

static void a_document_of_exactly_one_window_stops_the_rule_of_gptq(void)
{
    snrq_windows w;
    assert_failed(draw("{\"text\":\"babab\"}\n", SNRQ_SAMPLING_GPTQ, 1, 6, 0, &w), SNRQ_BAD_DATA,
                  "docs: document 1, drawn for window 1, has exactly the 6 tokens of a window");
    if (!assert_ok(draw("{\"text\":\"babab\"}\n", SNRQ_SAMPLING_SNRQ, 2, 6, 0, &w))) return;
    CU_ASSERT_EQUAL(w.place[1].start, 0);
    snrq_windows_free(&w);
}

static void too_short_documents_are_an_error_and_no_endless_search(void)
{
    snrq_windows w;
    assert_failed(draw(DOCUMENTS, SNRQ_SAMPLING_SNRQ, 1, 7, 0, &w), SNRQ_BAD_DATA,
                  "the longest of its 4 documents has 6 tokens, but one window is 7");
}

static void a_text_of_one_window_has_no_start(void)
{
    const int32_t ids[5] = {1, 2, 3, 4, 5};
    snrq_windows w;
    assert_failed(snrq_sampling_text("t", ids, 5, 1, 5, 0, &w), SNRQ_BAD_DATA, "no start in it");
    if (!assert_ok(snrq_sampling_text("t", ids, 5, 3, 4, 0, &w))) return;
    for (int i = 0; i < 3; i++) CU_ASSERT_EQUAL(w.ids[4 * i], 1);
    snrq_windows_free(&w);
}

/* ---- figures made with Python's own code, where they are at hand ---- */

static const char *shared(const char *name)
{
    static char path[PATH_MAX];
    const char *root = getenv("SNRQ_SHARED");
    snprintf(path, sizeof path, "%s/data/%s", root != NULL ? root : "", name);
    return path;
}

static void check_draw(const snrq_sampling_source *source, const json_t *expected)
{
    const json_t *list = json_object_get(expected, "windows");
    const char *mode = json_string_value(json_object_get(expected, "mode"));
    int64_t size = json_integer_value(json_object_get(expected, "size"));
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(expected, "seed"));
    snrq_sampling_rule rule = strcmp(mode, "gptq") == 0 ? SNRQ_SAMPLING_GPTQ : SNRQ_SAMPLING_SNRQ;
    bool fails = json_is_string(json_object_get(expected, "error"));
    int64_t count = (int64_t)json_array_size(list);
    snrq_windows w;
    if (fails)
        assert_failed(snrq_sampling_documents(source, rule, count + 1, size, seed, &w),
                      SNRQ_BAD_DATA, "exactly");
    if (!assert_ok(snrq_sampling_documents(source, rule, count, size, seed, &w))) return;
    for (int64_t i = 0; i < count; i++) {
        const json_t *at = json_array_get(list, (size_t)i);
        const json_t *first = json_object_get(at, "first8");
        CU_ASSERT_EQUAL(w.place[i].document, json_integer_value(json_object_get(at, "doc")));
        CU_ASSERT_EQUAL(w.place[i].start, json_integer_value(json_object_get(at, "start")));
        CU_ASSERT_EQUAL(w.place[i].rejected, json_integer_value(json_object_get(at, "rejected")));
        for (size_t k = 0; k < json_array_size(first); k++)
            CU_ASSERT_EQUAL(w.ids[i * size + (int64_t)k],
                            json_integer_value(json_array_get(first, k)));
    }
    snrq_windows_free(&w);
}

static void draws_are_those_of_the_published_code(void)
{
    snrq_tokenizer *tokenizer;
    snrq_documents documents = {0};
    snrq_text_facts facts;
    size_t i;
    json_t *draws, *draw_of;
    json_t *root = json_load_file(shared("reference/sampling/stories3M-c4-sample.json"), 0, NULL);
    if (root == NULL) {
        fprintf(stderr, "SNRQ_SHARED has no figures: left out\n");
        return;
    }
    assert_ok(snrq_tokenizer_read(shared("models/stories3M"), &tokenizer));
    assert_ok(snrq_documents_hold(shared("text/c4-sample.jsonl"), "text", &documents, &facts));
    const snrq_sampling_source source = {"c4-sample", &documents, tokenizer,
                                         snrq_tokenizer_size(tokenizer)};
    draws = json_object_get(root, "draws");
    CU_ASSERT_TRUE(json_array_size(draws) > 0);
    json_array_foreach(draws, i, draw_of) check_draw(&source, draw_of);
    snrq_documents_free(&documents);
    snrq_tokenizer_destroy(&tokenizer);
    json_decref(root);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(words_are_those_of_python),
        SNRQ_TEST(numbers_are_those_of_python),
        SNRQ_TEST(windows_lie_in_documents_that_are_long_enough),
        SNRQ_TEST(the_rules_differ_in_the_last_start),
        SNRQ_TEST(a_document_of_exactly_one_window_stops_the_rule_of_gptq),
        SNRQ_TEST(too_short_documents_are_an_error_and_no_endless_search),
        SNRQ_TEST(a_text_of_one_window_has_no_start),
        SNRQ_TEST(draws_are_those_of_the_published_code),
    };
    int result = snrq_run_tests("sampling", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
