/* Files of token ids: raw int32, .npy, and what only looks like them. */
#include "io/tokenizer/token_file.h"

#include "tests/unit/test_files.h"

static void a_token_file_is_read_as_it_is(void)
{
    const int32_t written[] = {0, 5, 31999};
    int32_t *ids;
    int64_t count;
    scratch_write("tokens", written, sizeof written);
    if (!assert_ok(snrq_token_file(scratch_path("tokens"), 32000, &ids, &count))) return;
    CU_ASSERT_EQUAL(count, 3);
    CU_ASSERT_EQUAL(memcmp(ids, written, sizeof written), 0);
    free(ids);
}

static void a_token_file_of_a_wrong_size_is_refused(void)
{
    int32_t *ids;
    int64_t count;
    scratch_write("tokens", "12345", 5);
    assert_failed(snrq_token_file(scratch_path("tokens"), 10, &ids, &count), SNRQ_BAD_DATA,
                  "5 bytes, expected a multiple of 4");
    scratch_write("tokens", "", 0);
    assert_failed(snrq_token_file(scratch_path("tokens"), 10, &ids, &count), SNRQ_BAD_DATA,
                  "0 bytes");
    assert_failed(snrq_token_file(scratch_path("none"), 10, &ids, &count), SNRQ_NO_INPUT, "none");
}

static void a_token_outside_the_vocabulary_is_named(void)
{
    const int32_t high[] = {0, 1, 10}, negative[] = {0, -1};
    int32_t *ids;
    int64_t count;
    scratch_write("tokens", high, sizeof high);
    assert_failed(snrq_token_file(scratch_path("tokens"), 10, &ids, &count), SNRQ_BAD_DATA,
                  "token 2 is id 10, expected 0..9");
    scratch_write("tokens", negative, sizeof negative);
    assert_failed(snrq_token_file(scratch_path("tokens"), 10, &ids, &count), SNRQ_BAD_DATA,
                  "token 1 is id -1");
    CU_ASSERT_PTR_NULL(ids);
}

/* ---- .npy ---- */

/* A .npy file of version 1 with this dict; the data follows. */
static void write_npy(const char *dict, const void *data, size_t bytes)
{
    unsigned char file[4096] = "\x93NUMPY\x01";
    size_t length = strlen(dict);
    file[8] = (unsigned char)(length & 0xff);
    file[9] = (unsigned char)(length >> 8);
    memcpy(file + 10, dict, length);
    if (bytes > 0) memcpy(file + 10 + length, data, bytes);
    scratch_write("ids.npy", file, 10 + length + bytes);
}

static void reads_npy(const char *dict, const void *data, size_t bytes)
{
    int32_t *ids;
    int64_t count;
    write_npy(dict, data, bytes);
    if (!assert_ok(snrq_token_file(scratch_path("ids.npy"), 1000, &ids, &count))) return;
    CU_ASSERT_EQUAL(count, 4);
    for (int32_t i = 0; i < 4 && count == 4; i++) CU_ASSERT_EQUAL(ids[i], 5 * i + 100);
    free(ids);
}

static void refuses_npy(const char *dict, const void *data, size_t bytes, const char *message)
{
    int32_t *ids;
    int64_t count;
    write_npy(dict, data, bytes);
    assert_failed(snrq_token_file(scratch_path("ids.npy"), 1000, &ids, &count), SNRQ_BAD_DATA,
                  message);
    assert_failed(SNRQ_BAD_DATA, SNRQ_BAD_DATA, "ids.npy");
    CU_ASSERT_PTR_NULL(ids);
    CU_ASSERT_EQUAL(count, 0);
}

/* The ids 100, 105, 110, 115 as integers of every type, with the dict as NumPy spells it. */
static void npy_of_any_integer_type_is_read(void)
{
    for (int bytes = 1; bytes <= 8; bytes *= 2)
        for (int variant = 0; variant < 4; variant++) {
            bool big = variant / 2 != 0;
            unsigned char data[32] = {0};
            char dict[128];
            for (int i = 0; i < 4; i++)
                data[i * bytes + (big ? bytes - 1 : 0)] = (unsigned char)(5 * i + 100);
            snprintf(dict, sizeof dict,
                     "{'descr': '%s%c%d', 'fortran_order': False, 'shape': (4,), }     \n",
                     bytes == 1 ? "|"
                     : big      ? ">"
                                : "<",
                     variant % 2 != 0 ? 'i' : 'u', bytes);
            reads_npy(dict, data, (size_t)(4 * bytes));
        }
}

static void npy_headers_of_other_writers_are_read(void)
{
    const int32_t ids[] = {100, 105, 110, 115};
    reads_npy("{\"shape\":(2,2),\"fortran_order\":False,\"descr\":\"<i4\"}", ids, sizeof ids);
    reads_npy("{'descr':'=i4','fortran_order':True,'shape':( 1 , 4 )}\n", ids, sizeof ids);
    reads_npy("{'descr': '<i4', 'fortran_order': True, 'shape': (4,)}", ids, sizeof ids);
}

static void later_versions_of_npy_are_read(void)
{
    const int32_t ids[] = {7, 8};
    int32_t *found;
    int64_t count;
    char file[256] = "\x93NUMPY\x02";
    const char *dict = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n";
    file[8] = (char)strlen(dict);
    memcpy(file + 12, dict, strlen(dict));
    memcpy(file + 12 + strlen(dict), ids, sizeof ids);
    for (char version = 2; version <= 3; version++) {
        file[6] = version;
        scratch_write("v.npy", file, 12 + strlen(dict) + sizeof ids);
        if (!assert_ok(snrq_token_file(scratch_path("v.npy"), 10, &found, &count))) return;
        CU_ASSERT_EQUAL(count, 2);
        CU_ASSERT_EQUAL(memcmp(found, ids, sizeof ids), 0);
        free(found);
    }
    file[6] = 4;
    scratch_write("v.npy", file, 12 + strlen(dict) + sizeof ids);
    assert_failed(snrq_token_file(scratch_path("v.npy"), 10, &found, &count), SNRQ_BAD_DATA,
                  "version 4.0");
}

static void other_arrays_are_refused_by_name(void)
{
    const double data[4] = {1, 2, 3, 4};
    refuses_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }", data, 32,
                "type f8, expected integers");
    refuses_npy("{'descr': '|b1', 'fortran_order': False, 'shape': (32,), }", data, 32, "type b1");
    refuses_npy("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (8,), }", data, 32,
                "expected a string");
    refuses_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (), }", data, 4, "0 dimensions");
    refuses_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2, 2), }", data, 32,
                "3 dimensions");
    refuses_npy("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 4), }", data, 32,
                "fortran_order");
    refuses_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (0, 5), }", data, 0,
                "no token ids");
}

static void ids_of_npy_outside_the_vocabulary_are_named(void)
{
    const int64_t data[] = {999, 1000, -2, INT64_MIN};
    const uint64_t large[] = {UINT64_MAX};
    refuses_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", data, 16,
                "token 1 is id 1000, expected 0..999");
    refuses_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }", data + 2, 8,
                "token 0 is id -2");
    refuses_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }", data + 3, 8,
                "id -9223372036854775808");
    refuses_npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }", large, 8,
                "id 18446744073709551615");
}

static void hostile_npy_headers_are_refused(void)
{
    static const struct {
        const char *dict, *message;
    } cases[] = {
        {"", "expected '{'"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }", "12 bytes, found 16"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (5,), }", "20 bytes, found 16"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (999999999999999999, 99999), }",
         "fewer elements"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
         "dimensions below"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (-4,), }", "dimensions below"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,4), }",
         "at most 8 dimensions"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (4,) ", "expected"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (4", "expected"},
        {"{'descr': '<i4', 'fortran_order': False}", "the keys descr, fortran_order and shape"},
        {"{'descr': '<i4', 'descr': '<i4', 'shape': (4,)}", "each once"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (4,), 'more': 1}", "each once"},
        {"{'descr': '<i4', 'fortran_order': 0, 'shape': (4,), }", "True or False"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (4,), } x", "nothing after"},
        {"{'descr': 'i4', 'fortran_order': False, 'shape': (4,), }", "a type such as"},
        {"{'descr': '<i44444', 'fortran_order': False, 'shape': (4,), }", "a type such as"},
        {"{'descr': '<i3', 'fortran_order': False, 'shape': (4,), }", "12 bytes, found 16"},
        {"{'descr", "a string"},
    };
    const int32_t data[4] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuses_npy(cases[i].dict, data, sizeof data, cases[i].message);
}

static void a_cut_npy_header_is_refused(void)
{
    int32_t *ids;
    int64_t count;
    const char start[] = "\x93NUMPY\x01\0\x76\0{'descr': '<i4', ";
    for (size_t bytes = 6; bytes < sizeof start; bytes++) {
        scratch_write("cut.npy", start, bytes);
        assert_failed(snrq_token_file(scratch_path("cut.npy"), 10, &ids, &count), SNRQ_BAD_DATA,
                      "cut.npy");
    }
}

/* ---- raw files of another type ---- */

static void refuses_raw(const void *data, size_t bytes, int64_t vocabulary, const char *message)
{
    int32_t *ids;
    int64_t count;
    scratch_write("raw.bin", data, bytes);
    assert_failed(snrq_token_file(scratch_path("raw.bin"), vocabulary, &ids, &count), SNRQ_BAD_DATA,
                  message);
    CU_ASSERT_PTR_NULL(ids);
}

static void ids_of_another_type_are_noticed(void)
{
    enum { COUNT = 40 };
    int64_t i8[COUNT], swapped8[COUNT];
    int32_t swapped4[COUNT];
    uint16_t u2[COUNT];
    float f4[COUNT];
    double f8[COUNT];
    for (int i = 0; i < COUNT; i++) {
        int id = 13 + 37 * i % 800;
        i8[i] = i == 17 ? 0 : id;
        swapped8[i] = (int64_t)__builtin_bswap64((uint64_t)id);
        swapped4[i] = (int32_t)__builtin_bswap32((uint32_t)id);
        u2[i] = (uint16_t)(i == 5 ? 0 : id);
        f4[i] = (float)id;
        f8[i] = id;
    }
    refuses_raw(i8, sizeof i8, 1000, "looks like int64");
    refuses_raw(i8, sizeof i8, 1000, "'<i8'");
    i8[3] = -100; /* padding */
    refuses_raw(i8, sizeof i8, 1000, "looks like int64");
    i8[3] = 1001;
    refuses_raw(i8, sizeof i8, 1000, "looks like int64");
    refuses_raw(swapped8, sizeof swapped8, 1000, "looks like big-endian int64");
    refuses_raw(swapped4, sizeof swapped4, 1000, "looks like big-endian int32");
    refuses_raw(u2, sizeof u2, 1000, "looks like uint16");
    refuses_raw(u2, sizeof u2 - 2, 1000, "looks like uint16");
    refuses_raw(u2, sizeof u2, 100000, "looks like uint16");
    refuses_raw(f4, sizeof f4, 1000, "looks like float32");
    refuses_raw(f8, sizeof f8, 1000, "looks like float64");
    refuses_raw("Once upon a time there was a text.\n", 35, 1000, "found a text");
}

static void a_file_of_llm_c_is_noticed(void)
{
    uint32_t file[300] = {20240520, 1, 88};
    for (int i = 256; i < 300; i++) file[i] = 0x00070003u * (unsigned)(i - 255);
    refuses_raw(file, sizeof file, 1000, "a file of llm.c");
    refuses_raw(file, sizeof file, 1000, "'<u2', offset=1024");
    file[0] = 20240801;
    refuses_raw(file, sizeof file, 1000, "'<u4', offset=1024");
}

/* int32 as it should be, however it looks, is read. */
static void unusual_ids_are_read(void)
{
    const int32_t zeros[16] = {0};
    const int32_t few[] = {5, 0, 7, 0};
    const int32_t separated[] = {5, 0, 7, 0, 9, 0, 11, 0, 13, 14};
    const struct {
        const int32_t *ids;
        size_t bytes;
    } cases[] = {{zeros, sizeof zeros}, {few, sizeof few}, {separated, sizeof separated}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t *ids;
        int64_t count;
        scratch_write("raw.bin", cases[i].ids, cases[i].bytes);
        if (!assert_ok(snrq_token_file(scratch_path("raw.bin"), 20, &ids, &count))) continue;
        CU_ASSERT_EQUAL((size_t)count * sizeof *ids, cases[i].bytes);
        free(ids);
    }
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(a_token_file_is_read_as_it_is),
        SNRQ_TEST(a_token_file_of_a_wrong_size_is_refused),
        SNRQ_TEST(a_token_outside_the_vocabulary_is_named),
        SNRQ_TEST(npy_of_any_integer_type_is_read),
        SNRQ_TEST(npy_headers_of_other_writers_are_read),
        SNRQ_TEST(later_versions_of_npy_are_read),
        SNRQ_TEST(other_arrays_are_refused_by_name),
        SNRQ_TEST(ids_of_npy_outside_the_vocabulary_are_named),
        SNRQ_TEST(hostile_npy_headers_are_refused),
        SNRQ_TEST(a_cut_npy_header_is_refused),
        SNRQ_TEST(ids_of_another_type_are_noticed),
        SNRQ_TEST(a_file_of_llm_c_is_noticed),
        SNRQ_TEST(unusual_ids_are_read),
    };
    int result = snrq_run_tests("token_file", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
