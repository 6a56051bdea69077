/* Input: a text file that may be gzip. It must be the same bytes, or the same refusal, however much
 * is read at a time. */
#include "io/text_file.h"
#include "tests/fuzz/fuzz.h"

enum { LIMIT = 1 << 16 };

/* The first piece has `room` bytes, each further one twice as many, up to LIMIT. */
static snrq_status read_by(const char *path, size_t room, char *text, size_t *total)
{
    snrq_text_file *file;
    bool more = true;
    *total = 0;
    SNRQ_TRY(snrq_text_file_open(path, LIMIT, &file));
    snrq_status status = SNRQ_OK;
    while (status == SNRQ_OK && more && *total <= LIMIT) {
        size_t got;
        status = snrq_text_file_read(file, text + *total, room, &got);
        FUZZ_CHECK(got <= room && (status == SNRQ_OK || got == 0));
        *total += got;
        more = got == room;
        room = 2 * room < LIMIT ? 2 * room : LIMIT;
    }
    FUZZ_CHECK(*total <= LIMIT);
    snrq_text_file_close(&file);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char whole[2 * LIMIT], pieces[2 * LIMIT];
    size_t bytes, other_bytes;
    const char *path = fuzz_file("text", data, size);
    snrq_status status = read_by(path, LIMIT, whole, &bytes);
    snrq_status other = read_by(path, 1 + size % 97, pieces, &other_bytes);
    FUZZ_CHECK(status == other);
    if (status != SNRQ_OK) {
        FUZZ_CHECK(status == SNRQ_BAD_DATA && strstr(snrq_error_message(), path) != NULL);
        return 0;
    }
    FUZZ_CHECK(bytes == other_bytes && memcmp(whole, pieces, bytes) == 0);
    if (size < 2 || data[0] != 0x1f || data[1] != 0x8b)
        FUZZ_CHECK(bytes == size && (size == 0 || memcmp(whole, data, size) == 0));
    return 0;
}
