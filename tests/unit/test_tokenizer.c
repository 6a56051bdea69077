/* Tokenizers: the recorded vectors of real files, a slow twin of the byte pair encoding, the time
 * of long words, and damaged files. */
#include <jansson.h>
#include <time.h>

#include "io/file.h"
#include "io/tokenizer/internal.h"
#include "tests/unit/test_small_tokenizer.h"

/* Whether decoding gives the text again. Byte-level tokenizers lose nothing but what their
 * normalizer changes. */
static bool comes_back(const snrq_tokenizer *tokenizer, const char *text, size_t bytes,
                       const int32_t *ids, int64_t count)
{
    snrq_buffer normal = {0}, scratch = {0};
    char *back = NULL;
    size_t back_bytes = 0;
    snrq_status status = snrq_normalize(&tokenizer->normalizer, text, bytes, &normal, &scratch);
    snrq_tokenizer_trim(tokenizer, &ids, &count);
    if (status == SNRQ_OK)
        status = snrq_tokenizer_decode(tokenizer, ids, count, false, &back, &back_bytes);
    bool same = status == SNRQ_OK && back_bytes == normal.used &&
                (back_bytes == 0 || memcmp(back, normal.data, back_bytes) == 0);
    free(normal.data);
    free(scratch.data);
    free(back);
    return same;
}

static int check_line(const snrq_tokenizer *tokenizer, const char *line, size_t bytes,
                      bool lossless)
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
    if (!wrong && lossless)
        wrong =
            !comes_back(tokenizer, json_string_value(text), json_string_length(text), ids, count);
    free(ids);
    json_decref(root);
    return wrong;
}

/* Every line of `vectors` [JSON lines {"text", "ids"}] is encoded exactly, and decoded if that is
 * possible. */
static void check_vectors(const char *directory, const char *vectors, bool lossless)
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
            wrong += check_line(tokenizer, data + begin, length, lossless);
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
    static const struct {
        const char *name;
        bool lossless;
    } directories[] = {
        {"data/models/stories3M", false},
        {"data/models/stories260K", false},
        {"data/models/fixtures/tiny_llama2", false},
        {"data/models/fixtures/tiny_phi3", false},
        {"data/models/fixtures/strong_llama3", true},
        {"data/models/fixtures/strong_mistral", false},
        {"data/models/fixtures/strong_qwen3", true},
        {"data/tokenizers/llama2", false},
        {"data/tokenizers/llama3", true},
        {"data/tokenizers/phi3", false},
        {"data/tokenizers/qwen3", true},
    };
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        char vectors[PATH_MAX + 32];
        const char *path = test_data("SNRQ_SHARED", directories[i].name);
        if (path == NULL) continue;
        snprintf(vectors, sizeof vectors, "%s/vectors.jsonl", path);
        check_vectors(path, vectors, directories[i].lossless);
    }
}

/* A tokenizer and vectors among the data of the tests. */
static void check_bundled(const char *tokenizer, const char *vectors, bool lossless)
{
    char directory[PATH_MAX];
    const char *path = test_data("SNRQ_TEST_DATA", tokenizer);
    if (path == NULL) return;
    snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
    path = test_data("SNRQ_TEST_DATA", vectors);
    if (path != NULL) check_vectors(directory, path, lossless);
}

static void recorded_vectors_of_the_bundled_model_are_met(void)
{
    check_bundled("model/tokenizer.json", "vectors.jsonl", false);
}

static void recorded_vectors_of_a_tokenizer_with_single_digits_are_met(void)
{
    check_bundled("digits/tokenizer.json", "digits/vectors.jsonl", true);
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

/* A byte-level tokenizer: the 256 bytes, some merges, GPT-2's pattern, a special token. `model`:
 * further keys of the model. */
static snrq_status read_byte_level(const char *model, snrq_tokenizer **out)
{
    static const char *const merged[] = {"th", "the", "\u0120the", "aa", "aaaa", "\u0120\u0120"};
    snrq_byte_alphabet alphabet;
    json_t *vocab = json_object();
    snrq_byte_alphabet_create(&alphabet);
    for (int byte = 0; byte < 256; byte++) {
        char text[3] = {alphabet.text[byte][0], 0, 0};
        if (alphabet.length[byte] == 2) text[1] = alphabet.text[byte][1];
        json_object_set_new(vocab, text, json_integer(byte));
    }
    for (int i = 0; i < 6; i++) json_object_set_new(vocab, merged[i], json_integer(256 + i));
    json_t *root =
        json_loads("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                   "\"decoder\":{\"type\":\"ByteLevel\"},"
                   "\"added_tokens\":[{\"id\":300,\"content\":\"<|a b|>\",\"special\":true}],"
                   "\"model\":{\"merges\":[\"t h\",\"th e\",[\"\u0120\",\"the\"],\"a a\",\"aa aa\","
                   "\"\u0120 \u0120\"]}}",
                   0, NULL);
    json_t *settings = json_loads(model, 0, NULL);
    json_object_update(json_object_get(root, "model"), settings);
    json_object_set_new(json_object_get(root, "model"), "vocab", vocab);
    char *text = json_dumps(root, 0);
    scratch_write_text("tokenizer.json", text);
    free(text);
    json_decref(settings);
    json_decref(root);
    return snrq_tokenizer_read(scratch(), out);
}

static void byte_level_words_are_merged_as_bytes(void)
{
    snrq_tokenizer *t;
    const int32_t ids[] = {258, 300, 0xc3, 0xa4, 0xe2, 0x82, 'x', 0xff, 32};
    if (!assert_ok(read_byte_level("{}", &t))) return;
    encodes(t, "the the  the", "257 258 32 258");
    encodes(t, "\xc3\xa4\n<|a b|>", "195 164 10 300");
    decodes(t, ids, 1, " the");
    CU_ASSERT_STRING_EQUAL(encoded(t, "aaaaa", true), "260 97");
    char *text;
    size_t bytes;
    if (assert_ok(snrq_tokenizer_decode(t, ids, 9, false, &text, &bytes))) {
        CU_ASSERT_STRING_EQUAL(text, " the<|a b|>\u00e4\ufffdx\ufffd ");
        free(text);
    }
    snrq_tokenizer_destroy(&t);
}

static void a_byte_level_word_can_come_before_the_merges(void)
{
    snrq_tokenizer *t;
    if (!assert_ok(read_byte_level("{\"ignore_merges\":true,\"merges\":[]}", &t))) return;
    encodes(t, "the the th thx", "257 258 32 116 104 32 116 104 120");
    snrq_tokenizer_destroy(&t);
}

/* The Unicode Standard's own example (table 3-11), and a character that ends too early. */
static void what_is_no_utf8_is_replaced_in_longest_parts(void)
{
    static const char text[] = "a\xf1\x80\x80\xe1\x80\xc2"
                               "b\x80"
                               "c\x80\xbf"
                               "d\xf0\x9f";
    snrq_buffer out = {0};
    assert_ok(snrq_utf8_repair(text, sizeof text - 1, &out));
    assert_ok(snrq_buffer_append(&out, "", 1));
    CU_ASSERT_STRING_EQUAL(out.data, "a\ufffd\ufffd\ufffdb\ufffdc\ufffd\ufffdd\ufffd");
    free(out.data);
}

/* A long text is encoded with a cache of words, a short one without. */
static void words_seen_before_get_the_same_ids(void)
{
    enum { TIMES = 200 };
    static const char part[] = "the aaa thethe  aaaaaa <|a b|>averyveryverylongwordthatisnotkept"
                               "becauseitislongerthanakeyofthecacheof words\nthe\n";
    size_t bytes = sizeof part - 1;
    int32_t *once, *all;
    int64_t count, total;
    int wrong = 0;
    char *text = malloc(TIMES * bytes);
    snrq_tokenizer *t;
    for (size_t i = 0; text != NULL && i < TIMES; i++) memcpy(text + i * bytes, part, bytes);
    if (text == NULL || !assert_ok(read_byte_level("{}", &t))) return;
    assert_ok(snrq_tokenizer_encode(t, part, bytes, true, &once, &count));
    assert_ok(snrq_tokenizer_encode(t, text, TIMES * bytes, true, &all, &total));
    CU_ASSERT_EQUAL(total, TIMES * count);
    for (int64_t i = 0; i < total; i++) wrong += all[i] != once[i % count];
    CU_ASSERT_EQUAL(wrong, 0);
    free(once);
    free(all);
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
        SNRQ_TEST(recorded_vectors_of_real_tokenizers_are_met),
        SNRQ_TEST(recorded_vectors_of_the_bundled_model_are_met),
        SNRQ_TEST(recorded_vectors_of_a_tokenizer_with_single_digits_are_met),
        SNRQ_TEST(random_words_encode_as_the_slow_twin),
        SNRQ_TEST(cutting_a_word_does_not_change_its_ids),
        SNRQ_TEST(merges_of_byte_tokens_prevent_cutting),
        SNRQ_TEST(a_long_word_takes_no_quadratic_time),
        SNRQ_TEST(byte_level_words_are_merged_as_bytes),
        SNRQ_TEST(a_byte_level_word_can_come_before_the_merges),
        SNRQ_TEST(what_is_no_utf8_is_replaced_in_longest_parts),
        SNRQ_TEST(words_seen_before_get_the_same_ids),
        SNRQ_TEST(damaged_files_never_crash),
        SNRQ_TEST(nesting_and_growth_are_bounded),
    };
    int result = snrq_run_tests("tokenizer", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
