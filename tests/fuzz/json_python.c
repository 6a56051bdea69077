/* Fuzz target: the bytes are JSON as Python writes it. What an accepted one is written as again
 * must be accepted, and be written as the same. */
#include "io/json.h"
#include "tests/fuzz/fuzz.h"

/* The mark of json_python.c is a character that no text has, unless somebody means harm. */
static bool has_mark(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 3 <= size; i++) {
        if (memcmp(data + i, "\xef\xb7\x90", 3) == 0) return true;
        if (i + 4 <= size && (data[i] | 32) == 'f' && (data[i + 1] | 32) == 'd' &&
            (data[i + 2] | 32) == 'd' && data[i + 3] == '0')
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *first = NULL, *second = NULL;
    if (snrq_json_parse_foreign("input", (const char *)data, size, &first) != SNRQ_OK) return 0;
    char *text = snrq_json_dump(first, JSON_COMPACT), *again = NULL;
    FUZZ_CHECK(text != NULL);
    if (!has_mark(data, size)) {
        FUZZ_CHECK(snrq_json_parse_foreign("dump", text, strlen(text), &second) == SNRQ_OK);
        again = snrq_json_dump(second, JSON_COMPACT);
        FUZZ_CHECK(again != NULL && strcmp(text, again) == 0);
    }
    free(text);
    free(again);
    json_decref(first);
    json_decref(second);
    return 0;
}
