/* .npy files: the bytes NumPy expects, for every number of dimensions. */
#include "io/npy.h"

#include "io/file.h"
#include "tests/unit/test_files.h"

static const float data[24] = {0, -1.5f, 3.25f, 1e-30f, 7};

static snrq_status write_array(const char *name, const int64_t *shape, int dims)
{
    char path[PATH_MAX];
    snrq_user_output *out = NULL;
    snprintf(path, sizeof path, "%s", scratch_path(name));
    SNRQ_TRY(snrq_user_output_open(path, NULL, 0, &out));
    snrq_status status = snrq_npy_write_f32(out, data, shape, dims);
    snrq_user_output_close(&out);
    return status;
}

/* Writes an array; the header must say `dict`, the data must follow at a multiple of 64. */
static void check(const int64_t *shape, int dims, size_t count, const char *dict)
{
    char *file = NULL;
    size_t bytes = 0;
    if (!assert_ok(write_array("a.npy", shape, dims)) ||
        !assert_ok(snrq_file_read(scratch_path("a.npy"), 4096, &file, &bytes)))
        return;
    size_t begin = 10 + (size_t)(unsigned char)file[8] + 256 * (size_t)(unsigned char)file[9];
    CU_ASSERT_EQUAL(memcmp(file, "\x93NUMPY\x01\x00", 8), 0);
    CU_ASSERT_EQUAL(memcmp(file + 10, dict, strlen(dict)), 0);
    for (size_t i = 10 + strlen(dict); i + 1 < begin; i++) CU_ASSERT_EQUAL(file[i], ' ');
    CU_ASSERT_EQUAL(file[begin - 1], '\n');
    CU_ASSERT_EQUAL(begin % 64, 0);
    CU_ASSERT_EQUAL(bytes, begin + count * sizeof *data);
    CU_ASSERT_EQUAL(memcmp(file + begin, data, count * sizeof *data), 0);
    free(file);
}

static void headers_are_what_numpy_writes(void)
{
    const int64_t shape[8] = {2, 3, 4, 1, 1, 1, 1, 1}, none[2] = {0, 5};
    check(shape, 0, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }");
    check(shape, 1, 2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }");
    check(shape, 2, 6, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
    check(shape, 3, 24, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }");
    check(shape, 8, 24,
          "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4, 1, 1, 1, 1, 1), }");
    check(none, 2, 0, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5), }");
}

static void impossible_shapes_are_refused(void)
{
    const int64_t negative[1] = {-1}, huge[3] = {INT64_MAX, INT64_MAX, 2};
    assert_failed(write_array("b.npy", negative, 1), SNRQ_INTERNAL, "b.npy");
    assert_failed(write_array("b.npy", huge, 3), SNRQ_INTERNAL, "b.npy");
    assert_failed(write_array("b.npy", huge, 9), SNRQ_INTERNAL, "b.npy");
    assert_failed(write_array("none/b.npy", huge, 0), SNRQ_CANNOT_WRITE, "none/b.npy");
}

/* The largest header: eight dimensions of 19 digits each, one of which is 0 so that there is no
 * data. */
static void long_headers_fit(void)
{
    const int64_t shape[8] = {0,         INT64_MAX, INT64_MAX, INT64_MAX,
                              INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    check(shape, 8, 0,
          "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807, "
          "9223372036854775807, 9223372036854775807, 9223372036854775807, 9223372036854775807, "
          "9223372036854775807, 9223372036854775807), }");
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(headers_are_what_numpy_writes),
        SNRQ_TEST(impossible_shapes_are_refused),
        SNRQ_TEST(long_headers_fit),
    };
    int failed = snrq_run_tests("npy", tests, sizeof tests / sizeof *tests, 1);
    scratch_remove();
    return failed;
}
