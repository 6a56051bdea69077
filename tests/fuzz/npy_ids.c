/* Input: what follows the first six bytes of a .npy file of token ids, for a vocabulary of 300. */
#include "io/npy_header.h"
#include "io/tokenizer/token_file.h"
#include "tests/fuzz/fuzz.h"

enum { VOCABULARY = 300, MOST = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[6 + MOST] = "\x93NUMPY";
    int32_t *ids;
    int64_t count;
    snrq_npy_header header;
    if (size > MOST) return 0;
    if (size > 0) memcpy(file + 6, data, size);
    const char *path = fuzz_file("ids.npy", file, 6 + size);
    if (snrq_token_file(path, VOCABULARY, &ids, &count) != SNRQ_OK) {
        FUZZ_CHECK(ids == NULL && count == 0 && strstr(snrq_error_message(), path) != NULL);
        return 0;
    }
    FUZZ_CHECK(snrq_npy_header_read(path, file, 6 + size, &header) == SNRQ_OK);
    FUZZ_CHECK(header.count == count);
    FUZZ_CHECK(header.begin + (size_t)count * (size_t)header.item_bytes == 6 + size);
    for (int64_t i = 0; i < count; i++) FUZZ_CHECK(ids[i] >= 0 && ids[i] < VOCABULARY);
    free(ids);
    return 0;
}
