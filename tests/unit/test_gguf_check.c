/* The reader that checks GGUF files: a small file made by hand, and thousands of damaged
 * ones. */
#include "io/gguf/check.h"

#include <string.h>

#include "tests/unit/test_files.h"

typedef struct bytes {
    unsigned char data[4096];
    size_t used;
} bytes;

static void put(bytes *b, uint64_t value, int size)
{
    for (int i = 0; i < size; i++) b->data[b->used++] = (unsigned char)(value >> (8 * i));
}

static void put_text(bytes *b, const char *text)
{
    put(b, strlen(text), 8);
    for (; *text != '\0'; text++) put(b, (unsigned char)*text, 1);
}

static void put_tensor(bytes *b, const char *name, int rows, int columns, int type, int offset)
{
    put_text(b, name);
    put(b, rows > 0 ? 2 : 1, 4);
    put(b, (uint64_t)columns, 8);
    if (rows > 0) put(b, (uint64_t)rows, 8);
    put(b, (uint64_t)type, 4);
    put(b, (uint64_t)offset, 8);
}

/* Two tensors and one pair of each kind that is asked for. *infos: where the tensors begin. */
static bytes small_file(size_t *infos)
{
    bytes b = {{'G', 'G', 'U', 'F'}, 4};
    put(&b, 3, 4);
    put(&b, 2, 8);
    put(&b, 4, 8);
    put_text(&b, "name");
    put(&b, 8, 4);
    put_text(&b, "a text");
    put_text(&b, "tokens");
    put(&b, 9, 4);
    put(&b, 8, 4);
    put(&b, 2, 8);
    put_text(&b, "one");
    put_text(&b, "");
    put_text(&b, "signed");
    put(&b, 5, 4);
    put(&b, 0xfffffffe, 4);
    put_text(&b, "real");
    put(&b, 6, 4);
    put(&b, 0x3fc00000, 4);
    *infos = b.used;
    put_tensor(&b, "matrix", 2, 32, 2, 0);
    put_tensor(&b, "vector", 0, 3, 0, 64);
    while (b.used % 32 != 0) put(&b, 0, 1);
    for (int row = 0; row < 2; row++) { /* Q4_0 with d = 1 and 2, all quants 9 */
        put(&b, row == 0 ? 0x3c00 : 0x4000, 2);
        for (int i = 0; i < 16; i++) put(&b, 0x99, 1);
    }
    while (b.used % 32 != 0) put(&b, 0, 1);
    put(&b, 0x3f800000, 4);
    put(&b, 0x40000000, 4);
    put(&b, 0xbf000000, 4);
    while (b.used % 32 != 0) put(&b, 0, 1);
    return b;
}

static snrq_status open_bytes(const bytes *b, size_t used, snrq_gguf_file **file)
{
    scratch_write("file.gguf", b->data, used);
    return snrq_gguf_file_open(scratch_path("file.gguf"), file);
}

static void a_small_file_is_read(void)
{
    size_t infos;
    bytes b = small_file(&infos);
    snrq_gguf_file *f = NULL;
    char text[16];
    double number;
    int64_t elements;
    float values[64];
    if (!assert_ok(open_bytes(&b, b.used, &f))) return;
    CU_ASSERT_EQUAL(snrq_gguf_file_count(f), 2);
    assert_ok(snrq_gguf_file_text(f, "name", text, sizeof text));
    CU_ASSERT_STRING_EQUAL(text, "a text");
    assert_ok(snrq_gguf_file_number(f, "signed", &number));
    CU_ASSERT_EQUAL(number, -2);
    assert_ok(snrq_gguf_file_number(f, "real", &number));
    CU_ASSERT_EQUAL(number, 1.5);
    assert_ok(snrq_gguf_file_elements(f, "tokens", &elements));
    CU_ASSERT_EQUAL(elements, 2);
    assert_failed(snrq_gguf_file_number(f, "name", &number), SNRQ_BAD_DATA, "expected a number");
    assert_failed(snrq_gguf_file_number(f, "other", &number), SNRQ_BAD_DATA, "missing");
    assert_ok(snrq_gguf_file_read(f, snrq_gguf_file_find(f, "matrix"), 0, 2, values));
    CU_ASSERT_EQUAL(values[0], 1);
    CU_ASSERT_EQUAL(values[63], 2);
    assert_ok(snrq_gguf_file_read(f, snrq_gguf_file_find(f, "vector"), 0, 1, values));
    CU_ASSERT_EQUAL(values[2], -0.5f);
    CU_ASSERT_PTR_NULL(snrq_gguf_file_find(f, "nothing"));
    snrq_gguf_file_close(&f);
}

static void damage_is_named(void)
{
    size_t infos;
    const bytes good = small_file(&infos);
    const struct {
        size_t at;
        uint64_t value;
        int size;
        const char *message;
    } cases[] = {
        {0, 'X', 1, "does not begin"},
        {4, 2, 4, "version"},
        {8, UINT64_MAX, 8, "number of tensors"},
        {16, UINT64_MAX, 8, "number of keys"},
        {24, UINT64_MAX, 8, "length of a key"},
        {36, 13, 4, "name"},
        {40, UINT64_MAX, 8, "a string takes"},
        {72, 9, 4, "tokens"},
        {76, UINT64_MAX, 8, "tokens"},
        {infos, 64, 8, "length of a tensor's name"},
        {infos + 14, 5, 4, "dimensions"},
        {infos + 18, 33, 8, "columns"},
        {infos + 18, 0, 8, "dimension"},
        {infos + 26, UINT64_MAX, 8, "dimension"},
        {infos + 26, INT32_MAX, 8, "bytes of tensors"},
        {infos + 34, 99, 4, "type 99"},
        {infos + 38, 32, 8, "offset"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bytes b = good;
        snrq_gguf_file *f = NULL;
        b.used = cases[i].at;
        put(&b, cases[i].value, cases[i].size);
        assert_failed(open_bytes(&b, good.used, &f), SNRQ_BAD_DATA, cases[i].message);
        CU_ASSERT_PTR_NULL(f);
    }
}

static void no_cut_or_longer_file_is_read(void)
{
    size_t infos;
    bytes b = small_file(&infos);
    snrq_gguf_file *f = NULL;
    for (size_t used = 0; used < b.used; used++) {
        CU_ASSERT_EQUAL(open_bytes(&b, used, &f), SNRQ_BAD_DATA);
        CU_ASSERT_PTR_NULL(f);
    }
    assert_failed(open_bytes(&b, b.used + 1, &f), SNRQ_BAD_DATA, "bytes of the file");
    remove(scratch_path("file.gguf"));
    assert_failed(snrq_gguf_file_open(scratch_path("file.gguf"), &f), SNRQ_NO_INPUT, "opened");
}

static void names_are_unique(void)
{
    size_t infos;
    bytes b = small_file(&infos);
    snrq_gguf_file *f = NULL;
    memcpy(b.data + infos + 46 + 8, "matrix", 6);
    assert_failed(open_bytes(&b, b.used, &f), SNRQ_BAD_DATA, "twice");
}

/* Whatever the bits say, the reader says yes or no, and what it accepts can be read. */
static void flipped_bits_do_no_harm(void)
{
    size_t infos;
    const bytes good = small_file(&infos);
    for (size_t bit = 0; bit < 8 * good.used; bit++) {
        bytes b = good;
        snrq_gguf_file *f = NULL;
        float values[128]; /* a row more fits into the padding */
        b.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        snrq_status status = open_bytes(&b, b.used, &f);
        if (status == SNRQ_OK) {
            for (int64_t i = 0; i < snrq_gguf_file_count(f); i++) {
                const snrq_gguf_tensor *t = snrq_gguf_file_at(f, i);
                CU_ASSERT_TRUE_FATAL(t->rows * t->columns <= 128);
                assert_ok(snrq_gguf_file_read(f, t, 0, t->rows, values));
            }
        } else {
            CU_ASSERT_EQUAL(status, SNRQ_BAD_DATA);
        }
        snrq_gguf_file_close(&f);
    }
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(a_small_file_is_read),          SNRQ_TEST(damage_is_named),
        SNRQ_TEST(no_cut_or_longer_file_is_read), SNRQ_TEST(names_are_unique),
        SNRQ_TEST(flipped_bits_do_no_harm),
    };
    int failed = snrq_run_tests("gguf_check", tests, sizeof tests / sizeof *tests, 1);
    scratch_remove();
    return failed;
}
