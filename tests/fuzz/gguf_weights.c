/* Input: a model.gguf. Whatever the reader accepts lies in the file, is found by its name, and is
 * the same read at once and row by row. */
#include "io/gguf/check.h"
#include "tests/fuzz/fuzz.h"

enum { MOST_WEIGHTS = 1 << 16 };

static bool same(const float *a, const float *b, int64_t count)
{
    return count == 0 || memcmp(a, b, (size_t)count * sizeof *a) == 0;
}

static void check_weights(const snrq_gguf_file *f, const snrq_gguf_tensor *t)
{
    const int64_t count = t->rows * t->columns;
    if (count > MOST_WEIGHTS) return;
    float *all = malloc((size_t)count * sizeof *all),
          *row = malloc((size_t)t->columns * sizeof *row);
    FUZZ_CHECK(all != NULL && row != NULL);
    FUZZ_CHECK(snrq_gguf_file_read(f, t, 0, t->rows, all) == SNRQ_OK);
    FUZZ_CHECK(snrq_gguf_file_read(f, t, t->rows - 1, 1, row) == SNRQ_OK);
    FUZZ_CHECK(same(all + count - t->columns, row, t->columns));
    FUZZ_CHECK(snrq_gguf_file_read(f, t, t->rows, 1, row) != SNRQ_OK);
    free(all);
    free(row);
}

static void check_tensor(const snrq_gguf_file *f, int64_t index, size_t size)
{
    const snrq_gguf_tensor *t = snrq_gguf_file_at(f, index);
    char place[200];
    FUZZ_CHECK(snrq_gguf_file_find(f, t->name) == t);
    FUZZ_CHECK(t->rows > 0 && t->columns > 0 && t->row_bytes > 0);
    FUZZ_CHECK(t->offset <= size && (uint64_t)t->rows <= (size - t->offset) / t->row_bytes);
    snrq_gguf_file_place(f, t->offset, place, sizeof place);
    FUZZ_CHECK(strncmp(place, "tensor ", 7) == 0 && strcmp(place + 7, t->name) == 0);
    check_weights(f, t);
}

/* Keys that the reader is asked for; others are passed over. */
static void ask(const snrq_gguf_file *f)
{
    static const char *const keys[] = {"general.architecture", "llama.block_count",
                                       "tokenizer.ggml.tokens", "k"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double number;
        char text[8];
        int64_t elements;
        const bool is_number = snrq_gguf_file_number(f, keys[i], &number) == SNRQ_OK;
        const bool is_text = snrq_gguf_file_text(f, keys[i], text, sizeof text) == SNRQ_OK;
        const bool is_array = snrq_gguf_file_elements(f, keys[i], &elements) == SNRQ_OK;
        FUZZ_CHECK(is_number + is_text + is_array <= 1);
        FUZZ_CHECK(!is_text || strlen(text) < sizeof text);
        FUZZ_CHECK(!is_array || elements >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_gguf_file *file = NULL;
    size_t equal = 0;
    const char *path = fuzz_file("model.gguf", data, size);
    if (snrq_gguf_file_open(path, &file) != SNRQ_OK) {
        FUZZ_CHECK(file == NULL && strstr(snrq_error_message(), path) != NULL);
        return 0;
    }
    for (int64_t i = 0; i < snrq_gguf_file_count(file); i++) check_tensor(file, i, size);
    FUZZ_CHECK(snrq_gguf_file_count(file) == 0 || snrq_gguf_file_at(file, 0)->offset % 32 == 0);
    FUZZ_CHECK(snrq_gguf_file_at(file, snrq_gguf_file_count(file)) == NULL);
    ask(file);
    if (snrq_gguf_file_check_padding(file) != SNRQ_OK)
        FUZZ_CHECK(strstr(snrq_error_message(), "padding") != NULL);
    FUZZ_CHECK(snrq_gguf_file_compare(file, 0, data, size, &equal) == SNRQ_OK && equal == size);
    snrq_gguf_file_close(&file);
    return 0;
}
