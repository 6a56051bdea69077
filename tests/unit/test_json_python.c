/* JSON as Python writes it: what it is read as, and what becomes of it when it is written again. */
#include "io/json.h"
#include "tests/unit/test_files.h"

static json_t *read_text(const char *text)
{
    json_t *value = NULL;
    return assert_ok(snrq_json_parse_foreign("input", text, strlen(text), &value)) ? value : NULL;
}

static void check_kind(const char *value, const char *kind)
{
    char text[256];
    snprintf(text, sizeof text, "{\"a\":%s}", value);
    json_t *root = read_text(text);
    CU_ASSERT_STRING_EQUAL(snrq_json_kind(json_object_get(root, "a")), kind);
    json_decref(root);
}

static void values_beyond_the_standard_are_told_apart(void)
{
    check_kind("NaN", "NaN");
    check_kind("Infinity", "Infinity");
    check_kind(" -Infinity ", "-Infinity");
    check_kind("9223372036854775807", "an integer");
    check_kind("9223372036854775808", "an integer beyond 64 bits");
    check_kind("-9223372036854775808", "an integer");
    check_kind("-9223372036854775809", "an integer beyond 64 bits");
    check_kind("1e308", "a number with a fraction or exponent");
    check_kind("-1.5E+309", "a number beyond a double");
    check_kind("1,\"a\":2", "several values: the key is given twice");
    check_kind("\"Infinity\"", "a string");
}

static void they_are_written_as_they_were(void)
{
    static const char *const texts[] = {
        "{\"a\":[NaN,Infinity,{\"b\":-Infinity}],\"c\":100000000000000000000,\"d\":1e400}",
        "{\"in a string\":\"NaN, \\\"Infinity\\\" \\\\\",\"x\":Infinity}",
        "{\"a\":\"100000000000000000000\",\"b\":-100000000000000000000}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *root = read_text(texts[i]);
        char *text = snrq_json_dump(root, JSON_COMPACT);
        CU_ASSERT_STRING_EQUAL(text, texts[i]);
        free(text);
        json_decref(root);
    }
}

static void the_last_value_of_a_key_is_written(void)
{
    json_t *root = read_text("{\"a\":1,\"b\":{\"c\":1,\"c\":NaN},\"a\":{\"d\":\"\\\"\\\\\"},\"a\":"
                             "{\"d\":\"\\\"\\\\\",\"e\":Infinity}}");
    char *text = snrq_json_dump(root, JSON_COMPACT);
    CU_ASSERT_STRING_EQUAL(text, "{\"a\":{\"d\":\"\\\"\\\\\",\"e\":Infinity},\"b\":{\"c\":NaN}}");
    free(text);
    json_decref(root);
}

static void refused(const char *text, const char *message)
{
    json_t *value = NULL;
    assert_failed(snrq_json_parse_foreign("input", text, strlen(text), &value), SNRQ_BAD_DATA,
                  message);
    CU_ASSERT_PTR_NULL(value);
}

static void what_is_no_json_is_refused(void)
{
    static const char *const texts[] = {"{\"a\":NaNs}",      "{\"a\":Infinity1}",
                                        "{\"a\":+Infinity}", "{NaN:1}",
                                        "{\"a\":01}",        "{\"a\":1.}",
                                        "{\"a\":nan}",       "{\"a\":- Infinity}",
                                        "{\"a\":1e}",        "{\"a\":NaN",
                                        "{\"a\":NaN,}",      "{\"a\":\"NaN}",
                                        "NaN NaN",           "{\"a\":100000000000000000000 1}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        refused(texts[i], "input: not valid JSON at line");
    refused("NaN", "expected a JSON object, found NaN");
    refused("version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer");
}

static void many_repeated_keys_are_refused(void)
{
    char text[1024] = "{\"a\":1";
    for (int i = 0; i < 17; i++) strcat(text, ",\"a\":1");
    strcat(text, "}");
    refused(text, "duplicate object key");
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(values_beyond_the_standard_are_told_apart),
        SNRQ_TEST(they_are_written_as_they_were),
        SNRQ_TEST(the_last_value_of_a_key_is_written),
        SNRQ_TEST(what_is_no_json_is_refused),
        SNRQ_TEST(many_repeated_keys_are_refused),
    };
    return snrq_run_tests("json_python", tests, sizeof tests / sizeof tests[0], 1);
}
