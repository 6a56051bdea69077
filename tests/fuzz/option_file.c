/* Input: a file of options for quantize. What is read is printed and read back as the same. */
#include "pipeline/options/options.h"
#include "tests/fuzz/fuzz.h"

/* Reads the options in `path`; *text is what --print-options makes of them. */
static snrq_status read_options(const char *path, snrq_options *options, char **text)
{
    char *argv[] = {(char *)"snrq",      (char *)"quantize",        (char *)"MODEL",
                    (char *)"--options", (char *)(uintptr_t)(path), (char *)"--print-options"};
    return snrq_options_parse(6, argv, options, text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_options first, second;
    char *text = NULL, *again = NULL;
    const char *path = fuzz_file("options", data, size);
    if (read_options(path, &first, &text) != SNRQ_OK) {
        FUZZ_CHECK(text == NULL && snrq_error_message()[0] != '\0');
        snrq_options_free(&first);
        return 0;
    }
    json_t *stored = snrq_options_stored(&first);
    snrq_options_free(&first);
    path = fuzz_file("printed", text, strlen(text));
    FUZZ_CHECK(read_options(path, &second, &again) == SNRQ_OK && strcmp(text, again) == 0);
    json_t *restored = snrq_options_stored(&second);
    FUZZ_CHECK(stored != NULL && json_equal(stored, restored));
    json_decref(restored);
    snrq_options_free(&second);
    FUZZ_CHECK(snrq_options_restore(stored, &second) == SNRQ_OK);
    restored = snrq_options_stored(&second);
    FUZZ_CHECK(json_equal(stored, restored));
    json_decref(restored);
    json_decref(stored);
    free(again);
    free(text);
    return 0;
}
