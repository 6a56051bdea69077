/* Texts that may be anything, as JSON strings. */
#include "io/json.h"
#include "tests/snrq_test.h"

static void check(const char *text, const char *expected)
{
    json_t *value = snrq_json_text(text);
    CU_ASSERT_PTR_NOT_NULL_FATAL(value);
    CU_ASSERT_STRING_EQUAL(json_string_value(value), expected);
    json_decref(value);
}

static void utf8_stays_as_it_is(void)
{
    static const char *const good[] = {"",
                                       "plain \\x41 \\ text",
                                       "caf\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xf4\x8f\xbf\xbf",
                                       "\xed\x9f\xbf",
                                       "\x01\x7f"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) check(good[i], good[i]);
}

/* Cut, overlong, surrogates, beyond U+10FFFF (RFC 3629). */
static void other_bytes_are_escaped(void)
{
    check("caf\xe9", "caf\\xe9");
    check("\xff/\xfe", "\\xff/\\xfe");
    check("\xc3", "\\xc3");
    check("\xc0\xaf", "\\xc0\\xaf");
    check("\xe0\x80\xaf", "\\xe0\\x80\\xaf");
    check("\xed\xa0\x80", "\\xed\\xa0\\x80");
    check("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
    check("\xf0\x9f\x98", "\\xf0\\x9f\\x98");
    check("\x80", "\\x80");
    check("caf\xc3\xa9\xe9\\", "caf\xc3\xa9\\xe9\\\\");
}

static void nothing_is_null(void)
{
    json_t *value = snrq_json_text(NULL);
    CU_ASSERT_TRUE(json_is_null(value));
    json_decref(value);
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(utf8_stays_as_it_is),
                                      SNRQ_TEST(other_bytes_are_escaped),
                                      SNRQ_TEST(nothing_is_null)};
    return snrq_run_tests("json_text", tests, sizeof tests / sizeof *tests, 1);
}
