/* Input: a tokenizer.model. Every piece of an accepted one lies in the file, has no NUL, a score
 * that is a number and a kind that there is. */
#include "io/tokenizer/sentencepiece.h"

#include <math.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_sentencepieces all;
    const char *path = fuzz_file("tokenizer.model", data, size);
    if (snrq_sentencepieces_read(path, &all) != SNRQ_OK) {
        FUZZ_CHECK(all.pieces == NULL && strstr(snrq_error_message(), path) != NULL);
        return 0;
    }
    FUZZ_CHECK((size_t)all.count <= size / 2);
    for (int64_t i = 0; i < all.count; i++) {
        const snrq_sentencepiece *p = &all.pieces[i];
        FUZZ_CHECK(p->bytes == 0 || (p->text > all.file && p->text + p->bytes <= all.file + size));
        FUZZ_CHECK(memchr(p->text, 0, p->bytes) == NULL && isfinite(p->score));
        FUZZ_CHECK(p->kind >= 1 && p->kind <= 6);
    }
    snrq_sentencepieces_free(&all);
    return 0;
}
