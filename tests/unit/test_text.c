/* Texts: plain, JSON lines, gzip, and what is none of them. */
#include "io/tokenizer/text_tokens.h"

#include <zlib.h>

#include "io/json_lines.h"
#include "io/text_file.h"
#include "tests/unit/test_files.h"

/* A beginning-of-sequence token, two letters, and what files have between texts. */
static snrq_tokenizer *letters(void)
{
    snrq_tokenizer *tokenizer = NULL;
    scratch_write_text(
        "tokenizer.json",
        "{\"added_tokens\":[],\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
        "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
        "\"special_tokens\":{\"<s>\":{\"ids\":[0]}}},\"model\":{\"type\":\"BPE\","
        "\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"ab\":3,\"{\":4,\"[\":5,\"\\r\":6,\"\\n\":7,"
        "\"\\ufeff\":8},\"merges\":[\"a b\"]}}");
    assert_ok(snrq_tokenizer_read(scratch(), &tokenizer));
    return tokenizer;
}

/* The tokens of a file with these bytes, as digits: "013". NULL if it was refused. */
static const char *tokens_of(const void *data, size_t bytes, const char *key,
                             snrq_text_facts *facts)
{
    static char digits[256];
    snrq_tokenizer *tokenizer = letters();
    snrq_tokens tokens = {0};
    scratch_write("text", data, bytes);
    snrq_status status = snrq_text_tokens(scratch_path("text"), key, tokenizer, 9, &tokens, facts);
    snrq_tokenizer_destroy(&tokenizer);
    if (status == SNRQ_OK) {
        for (int64_t i = 0; i < tokens.count && i < 255; i++)
            digits[i] = (char)('0' + tokens.ids[i]);
        digits[tokens.count < 255 ? tokens.count : 255] = '\0';
    } else {
        CU_ASSERT_EQUAL(status, SNRQ_BAD_DATA);
        CU_ASSERT_PTR_NULL(tokens.ids);
        CU_ASSERT_EQUAL(tokens.count, 0);
    }
    snrq_tokens_free(&tokens);
    return status == SNRQ_OK ? digits : NULL;
}

static void gives(const char *text, const char *expected)
{
    snrq_text_facts facts;
    const char *found = tokens_of(text, strlen(text), "text", &facts);
    bool same = found != NULL && strcmp(found, expected) == 0;
    if (!same)
        fprintf(stderr, "%s\nexpected %s, found %s (%s)\n", text, expected,
                found != NULL ? found : "nothing", snrq_error_message());
    CU_ASSERT_TRUE(same);
}

static void refused_bytes(const void *data, size_t bytes, const char *message)
{
    snrq_text_facts facts;
    if (tokens_of(data, bytes, "text", &facts) != NULL)
        assert_failed(SNRQ_OK, SNRQ_BAD_DATA, message);
    else
        assert_failed(SNRQ_BAD_DATA, SNRQ_BAD_DATA, message);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), scratch_path("text")));
}

static void refused(const char *text, const char *message)
{
    refused_bytes(text, strlen(text), message);
}

/* ---- plain texts ---- */

static void a_text_becomes_tokens_with_the_beginning_token(void)
{
    gives("aab", "013");
    gives("aab\r\nb\n", "013672"
                        "7");
}

static void unusable_texts_are_refused_by_name(void)
{
    snrq_tokenizer *tokenizer = letters();
    snrq_tokens tokens = {0};
    snrq_text_facts facts;
    refused("", "text: the text is empty");
    refused("\xef\xbb\xbf", "text: the text is empty");
    refused("ab\xff", "text: byte 2 of the text is not valid UTF-8");
    scratch_write_text("text", "ab");
    assert_failed(snrq_text_tokens(scratch_path("text"), "text", tokenizer, 3, &tokens, &facts),
                  SNRQ_BAD_DATA, "token 1 is id 3, expected 0..2");
    CU_ASSERT_PTR_NULL(tokens.ids);
    assert_failed(snrq_text_tokens(scratch_path("none"), "text", tokenizer, 3, &tokens, &facts),
                  SNRQ_NO_INPUT, "none");
    snrq_tokenizer_destroy(&tokenizer);
}

static void texts_that_begin_with_a_bracket_are_texts(void)
{
    gives("{ab", "043");
    gives("{ab} ab", "0433");
    gives("{\"ab\", b", "0432");
    gives("{}ab", "043");
    gives("{'ab' ab", "0433");
    gives("{\n\"ab\n", "04737");
    gives("{", "04");
    gives("[1] ab", "053");
    gives("[1]\nab", "0573");
    gives("[\"ab\" ab", "0533");
    gives("[\"ab\"] ab", "0533");
    gives("[[ab]]\n", "05537");
    gives("[ab", "053");
    gives("[", "05");
}

static void other_files_are_refused_with_what_to_do(void)
{
    static char tar[512] = "name";
    memcpy(tar + 257, "ustar", 5);
    refused_bytes("\xff\xfe"
                  "a\0b\0",
                  6, "iconv");
    refused_bytes("\xfe\xff"
                  "\0a\0b",
                  6, "iconv");
    refused_bytes("\x28\xb5\x2f\xfd"
                  "abc",
                  7, "zstd -d");
    refused_bytes("PK\x03\x04"
                  "abc",
                  7, "zip archive");
    refused_bytes("PAR1abc", 7, "Parquet");
    refused_bytes("\x93NUMPY\x01", 7, "--token-file");
    refused_bytes(tar, sizeof tar, "tar archive");
    refused("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull");
}

static void facts_are_counted(void)
{
    snrq_text_facts facts;
    const char *found = tokens_of("\xef\xbb\xbf"
                                  "a\r\n\0b\nb\r\n\r\n",
                                  14, "text", &facts);
    CU_ASSERT_PTR_NOT_NULL(found);
    CU_ASSERT_TRUE(facts.byte_order_mark);
    CU_ASSERT_FALSE(facts.json_lines);
    CU_ASSERT_EQUAL(facts.line_ends, 4);
    CU_ASSERT_EQUAL(facts.crlf, 3);
    CU_ASSERT_EQUAL(facts.nul, 1);
}

static void only_a_mark_at_the_beginning_is_left_out(void)
{
    gives("\xef\xbb\xbf"
          "ab",
          "03");
    gives("\xef\xbb\xbf\xef\xbb\xbf"
          "ab",
          "083");
    gives("ab\xef\xbb\xbf", "038");
}

/* ---- JSON lines ---- */

static void lines_become_documents(void)
{
    gives("{\"text\": \"aab\"}\n{\"text\": \"b\", \"id\": 5}\n", "01302");
    gives("{\"id\": 5, \"text\": \"aab\"}\n{\"text\": \"b\"}", "01302");
    gives("\n \r\n{\"text\": \"a\"}\r\n\n{\"text\": \"b\"}\r\n", "0102");
    gives("\xef\xbb\xbf{\"text\": \"a\"}\n", "01");
    gives("  {\"text\": \"a\\nb\"}", "0172");
    gives("{\"text\": \"\\u0061\\u0000\\ufeff\"}", "018");
    gives("{\"text\": \"b\", \"text\": \"a\"}", "01");
}

static void json_as_python_writes_it_is_read(void)
{
    gives("{\"a\": NaN, \"text\": \"a\"}", "01");
    gives("{\"a\": [-Infinity, Infinity, NaN], \"b\": {\"NaN\": NaN}, \"text\": \"a\"}", "01");
    gives("{\"a\": 123456789012345678901234567890, \"text\": \"a\"}", "01");
    gives("{\"a\": \"say \\\"NaN\", \"text\": \"a\", \"b\": NaN}", "01");
    refused("{\"a\": 1NaN, \"text\": \"a\"}", "line 1 is not valid JSON");
    refused("{\"a\": NaNa, \"text\": \"a\"}", "line 1 is not valid JSON");
}

static void empty_documents_are_counted_and_left_out(void)
{
    snrq_text_facts facts;
    const char *lines = "{\"text\": \"\"}\n{\"text\": \"a\"}\n{\"text\": \"\"}\n";
    const char *found = tokens_of(lines, strlen(lines), "text", &facts);
    CU_ASSERT_TRUE(found != NULL && strcmp(found, "01") == 0);
    CU_ASSERT_TRUE(facts.json_lines);
    CU_ASSERT_EQUAL(facts.documents, 3);
    CU_ASSERT_EQUAL(facts.empty, 2);
    refused("{\"text\": \"\"}\n{\"text\": \"\"}\n", "no text in its 2 documents");
}

static void another_key_can_hold_the_text(void)
{
    snrq_text_facts facts;
    const char *lines = "{\"text\": \"a\", \"content\": \"b\"}\n";
    const char *found = tokens_of(lines, strlen(lines), "content", &facts);
    CU_ASSERT_TRUE(found != NULL && strcmp(found, "02") == 0);
}

static void bad_lines_are_named(void)
{
    refused("{\"text\": \"a\"}\n{\"body\": \"b\", \"id\": 1}\n",
            "line 2 has no key \"text\", found \"body\", \"id\"; --text-key");
    refused("{\"text\": \"a\"}\n{}\n", "line 2 has no key \"text\", found no keys");
    refused("{\"text\": \"a\"}\n\n{\"text\": 7}", "line 3: key \"text\": expected a string");
    refused("{\"text\": null}", "line 1: key \"text\": expected a string, found null");
    refused("{\"text\": \"a\"}\n[\"b\"]\n", "line 2: expected a JSON object");
    refused("{\"text\": \"a\"}\n\"b\"\n", "line 2: expected a JSON object");
    refused("{\"text\": \"a\"}\nOnce upon a time\n", "line 2 is not valid JSON");
    refused("{\"text\": \"a\"} {\"text\": \"b\"}\n", "line 1 is not valid JSON");
    refused("{\"text\": \"a\"},\n{\"text\": \"b\"}\n", "line 1 is not valid JSON");
    refused("{\"text\": \"a\"}\n{\"text\": \"b\"", "line 2 is not valid JSON");
    refused("{\"text\": \"a", "line 1 is not valid JSON");
    refused("{'text': 'a'}\n", "line 1 is not valid JSON");
    refused("{\"text\": \"a\tb\"}\n", "control character");
    refused("{\"text\": \"a\"}\n{\"text\": \"a\x01\"}\n", "line 2 is not valid JSON");
    refused("{\"text\": \"a\"}\n{\"text\": \"\\ud83d\"}\n", "line 2 is not valid JSON");
    refused("{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", "line 2 is not valid JSON");
}

static void other_json_is_refused_with_what_to_do(void)
{
    refused("{\n  \"text\": \"a\"\n}\n", "jq -c .");
    refused("{\"text\":\n\"a\"}\n{\"text\":\n\"b\"}\n", "jq -c .");
    refused("[{\"text\": \"a\"}, {\"text\": \"b\"}]", "jq -c '.[]'");
    refused("[\n  {\n    \"text\": \"a\"\n  }\n]\n", "jq -c '.[]'");
    refused("[{\"text\": \"a\"}, {\"te", "jq -c '.[]'");
    refused("[\"a\", \"b\"]\n", "jq -c '.[]'");
    refused("[\"a\"]\n[\"b\"]\n", "JSON array");
    refused("[]\n", "JSON array");
    refused("\xef\xbb\xbf\n [[1, 2], [3]]\n", "JSON array");
}

/* Longer than what is looked at first: the rest of the file counts. */
static void long_files_are_read_to_their_end(void)
{
    enum { BYTES = 3 << 20 };
    char *file = malloc(BYTES + 64);
    snrq_text_facts facts;
    strcpy(file, "{\"text\": \"");
    memset(file + 10, '?', BYTES);
    strcpy(file + 10 + BYTES, "a\"}\n{\"text\": \"b\"}\n");
    const char *found = tokens_of(file, strlen(file), "text", &facts);
    CU_ASSERT_TRUE(found != NULL && strcmp(found, "0102") == 0);
    file[0] = '?';
    found = tokens_of(file, strlen(file), "text", &facts);
    CU_ASSERT_TRUE(found != NULL && strcmp(found, "01742"
                                                  "7") == 0);
    memcpy(file, "[\"", 2);
    memset(file + 2, '?', 8);
    refused(file, "JSON array");
    free(file);
}

/* ---- gzip ---- */

/* Appends a gzip member of `text` at `out`; returns its bytes. */
static size_t pack(const void *text, size_t bytes, unsigned char *out, size_t room)
{
    z_stream z = {0};
    CU_ASSERT_EQUAL(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)text;
    z.avail_in = (uInt)bytes;
    z.next_out = out;
    z.avail_out = (uInt)room;
    CU_ASSERT_EQUAL(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t used = room - z.avail_out;
    deflateEnd(&z);
    return used;
}

static void gzip_is_unpacked_whatever_its_name(void)
{
    unsigned char file[512];
    snrq_text_facts facts;
    size_t bytes = pack("aab", 3, file, sizeof file);
    const char *found = tokens_of(file, bytes, "text", &facts);
    CU_ASSERT_TRUE(found != NULL && strcmp(found, "013") == 0);
    const char *lines = "{\"text\": \"a\"}\n{\"text\": \"b\"}";
    bytes = pack(lines, strlen(lines), file, sizeof file);
    found = tokens_of(file, bytes, "text", &facts);
    CU_ASSERT_TRUE(found != NULL && strcmp(found, "0102") == 0);
    CU_ASSERT_TRUE(facts.json_lines);
    bytes = pack("", 0, file, sizeof file);
    refused_bytes(file, bytes, "the text is empty");
}

static void members_follow_each_other(void)
{
    unsigned char file[512] = {0};
    snrq_text_facts facts;
    size_t bytes = pack("{\"text\": \"a\"}\n{\"te", 18, file, sizeof file);
    bytes += pack("", 0, file + bytes, sizeof file - bytes);
    bytes += pack("xt\": \"b\"}\n", 10, file + bytes, sizeof file - bytes);
    const char *found = tokens_of(file, bytes + 40, "text", &facts); /* and padding */
    CU_ASSERT_TRUE(found != NULL && strcmp(found, "0102") == 0);
    memcpy(file + bytes, "tail", 4);
    refused_bytes(file, bytes + 4, "after the end of the gzip data");
    file[bytes] = 0x1f;
    refused_bytes(file, bytes + 4, "damaged");
    refused_bytes(file, bytes + 1, "ends too early");
}

static void every_cut_and_every_flip_is_noticed(void)
{
    unsigned char file[512];
    snrq_text_facts facts;
    const char *text = "ab ab a b abba b a b baab\n";
    size_t bytes = pack(text, strlen(text), file, sizeof file);
    for (size_t cut = 2; cut < bytes; cut++) refused_bytes(file, cut, "ends too early");
    for (size_t i = 10; i < bytes; i++) { /* after the header, which holds time and system */
        file[i] ^= 0x01;
        CU_ASSERT_PTR_NULL(tokens_of(file, bytes, "text", &facts));
        file[i] ^= 0x01;
    }
}

static snrq_status read_all(const void *data, size_t bytes, uint64_t limit, uint64_t *total)
{
    static char buffer[1 << 16];
    snrq_text_file *file;
    size_t got = 1;
    *total = 0;
    scratch_write("packed", data, bytes);
    SNRQ_TRY(snrq_text_file_open(scratch_path("packed"), limit, &file));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && got > 0) {
        status = snrq_text_file_read(file, buffer, sizeof buffer, &got);
        *total += got;
    }
    snrq_text_file_close(&file);
    return status;
}

static void bombs_are_refused(void)
{
    enum { BYTES = 100 << 20, ROOM = 1 << 20 };
    char *zeros = calloc(BYTES, 1);
    unsigned char *file = malloc(ROOM);
    uint64_t total;
    size_t bytes = pack(zeros, BYTES, file, ROOM);
    assert_failed(read_all(file, bytes, (uint64_t)1 << 40, &total), SNRQ_BAD_DATA,
                  "no text is packed so tightly");
    CU_ASSERT_TRUE(total <= (64 << 20) + (1 << 20));
    bytes = pack(zeros, 5000, file, ROOM);
    assert_failed(read_all(file, bytes, 4999, &total), SNRQ_BAD_DATA, "more than 4999 bytes");
    if (assert_ok(read_all(file, bytes, 5000, &total))) CU_ASSERT_EQUAL(total, 5000);
    bytes = pack(zeros, 30 << 20, file, ROOM);
    if (assert_ok(read_all(file, bytes, (uint64_t)1 << 40, &total)))
        CU_ASSERT_EQUAL(total, 30 << 20);
    assert_failed(read_all("12345", 5, 4, &total), SNRQ_BAD_DATA, "5 bytes, expected at most 4");
    free(file);
    free(zeros);
}

/* ---- several files ---- */

static void files_follow_each_other(void)
{
    snrq_tokenizer *tokenizer = letters();
    snrq_tokens tokens = {0};
    snrq_text_facts facts;
    const int32_t expected[] = {0, 3, 0, 1, 0, 2, 0, 3};
    for (int i = 0; i < 4; i++) {
        scratch_write_text("text", i == 0   ? "ab"
                                   : i == 1 ? "{\"text\": \"a\"}\n{\"text\": \"b\"}"
                                   : i == 2 ? "{\"text\": \"a\"}\n{\"te"
                                            : "ab");
        snrq_status status =
            snrq_text_tokens(scratch_path("text"), "text", tokenizer, 9, &tokens, &facts);
        if (i != 2)
            assert_ok(status);
        else
            assert_failed(status, SNRQ_BAD_DATA, "line 2"); /* and adds nothing */
    }
    CU_ASSERT_EQUAL(tokens.count, 8);
    CU_ASSERT_EQUAL(memcmp(tokens.ids, expected, sizeof expected), 0);
    snrq_tokens_free(&tokens);
    snrq_tokenizer_destroy(&tokenizer);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(a_text_becomes_tokens_with_the_beginning_token),
        SNRQ_TEST(unusable_texts_are_refused_by_name),
        SNRQ_TEST(texts_that_begin_with_a_bracket_are_texts),
        SNRQ_TEST(other_files_are_refused_with_what_to_do),
        SNRQ_TEST(facts_are_counted),
        SNRQ_TEST(only_a_mark_at_the_beginning_is_left_out),
        SNRQ_TEST(lines_become_documents),
        SNRQ_TEST(json_as_python_writes_it_is_read),
        SNRQ_TEST(empty_documents_are_counted_and_left_out),
        SNRQ_TEST(another_key_can_hold_the_text),
        SNRQ_TEST(bad_lines_are_named),
        SNRQ_TEST(other_json_is_refused_with_what_to_do),
        SNRQ_TEST(long_files_are_read_to_their_end),
        SNRQ_TEST(gzip_is_unpacked_whatever_its_name),
        SNRQ_TEST(members_follow_each_other),
        SNRQ_TEST(every_cut_and_every_flip_is_noticed),
        SNRQ_TEST(bombs_are_refused),
        SNRQ_TEST(files_follow_each_other),
    };
    int result = snrq_run_tests("text", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
