/* Input: a file of token ids, read for a vocabulary of 300 and cut into windows. */
#include "io/tokenizer/token_file.h"
#include "io/npy_header.h"
#include "io/tokenizer/windows.h"
#include "tests/fuzz/fuzz.h"

enum { VOCABULARY = 300, LENGTH = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int32_t *ids;
    int64_t count;
    snrq_windows windows;
    const char *path = fuzz_file("ids.i32", data, size);
    if (snrq_token_file(path, VOCABULARY, &ids, &count) != SNRQ_OK) {
        FUZZ_CHECK(ids == NULL && count == 0 && strstr(snrq_error_message(), path) != NULL);
        return 0;
    }
    FUZZ_CHECK(snrq_npy_is(data, size) || (size_t)count * 4 == size);
    for (int64_t i = 0; i < count; i++) FUZZ_CHECK(ids[i] >= 0 && ids[i] < VOCABULARY);
    if (snrq_windows_consecutive(path, ids, count, 0, LENGTH, &windows) == SNRQ_OK) {
        FUZZ_CHECK(windows.count == count / LENGTH);
        snrq_windows_free(&windows);
    }
    if (snrq_windows_random(path, ids, count, 2, LENGTH, (uint64_t)count, &windows) == SNRQ_OK)
        snrq_windows_free(&windows);
    free(ids);
    return 0;
}
