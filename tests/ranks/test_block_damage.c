/* Block files that are cut short, damaged or made to deceive: an error that names the file, never a
 * crash. */
#include <hdf5.h>
#include <math.h>
#include <time.h>

#include "io/checkpoint/block_file.h"
#include "tests/ranks/rank_files.h"

enum { ROWS = 6, COLUMNS = 20, GROUPS = 3, BITS = 3 };
static const char module[] = "model.layers.0.mlp.up_proj";

/* Writes a small block file with two modules, "module" and "second". Collective. */
static snrq_status write_small(const char *path)
{
    const snrq_context *c = rank_test_world;
    static uint8_t codes[ROWS * COLUMNS], zeros[ROWS * GROUPS];
    static float scales[ROWS * GROUPS];
    static int32_t g_idx[COLUMNS];
    snrq_module_rows m[2] = {{.rows = snrq_share(ROWS, 1, c->size, c->rank)}};
    snrq_module_record *r = &m[0].record;
    *r = (snrq_module_record){.rows = ROWS,
                              .columns = COLUMNS,
                              .group_size = 8,
                              .groups = GROUPS,
                              .bits = BITS,
                              .scale_type = SNRQ_F16,
                              .method = "snrq",
                              .grid = "minmax",
                              .beam = 1,
                              .alpha_next = NAN};
    for (int i = 0; i < ROWS * COLUMNS; i++) codes[i] = (uint8_t)(i % 8);
    for (int i = 0; i < ROWS * GROUPS; i++) zeros[i] = 4, scales[i] = 0.5f;
    for (int i = 0; i < COLUMNS; i++) g_idx[i] = i / 8;
    strcpy(r->name, module);
    m[0].codes = codes, m[0].zeros = zeros, m[0].scales = scales, m[0].g_idx = g_idx;
    m[1] = m[0];
    strcpy(m[1].record.name, "second");
    return snrq_block_file_write(c, path, 0, m, 2);
}

/* Opens a file and reads everything in it. */
static snrq_status read_all(const char *path)
{
    snrq_block_file *file = NULL;
    SNRQ_TRY(snrq_block_file_open(path, &file));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < snrq_block_file_count(file) && status == SNRQ_OK; i++) {
        const snrq_module_record *r = snrq_block_file_record(file, i);
        uint8_t *codes = malloc((size_t)(r->rows * r->columns));
        uint8_t *zeros = malloc((size_t)(r->rows * r->groups));
        float *scales = malloc((size_t)(r->rows * r->groups) * sizeof *scales);
        int32_t *g_idx = malloc((size_t)r->columns * sizeof *g_idx);
        status =
            snrq_block_file_read(file, i, (snrq_range){0, r->rows}, codes, scales, zeros, g_idx);
        free(codes);
        free(zeros);
        free(scales);
        free(g_idx);
    }
    snrq_block_file_close(&file);
    return status;
}

/* Changes to a good file, and what the reader must say. */
static void change_integer(hid_t object, const char *name, int64_t value)
{
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    CU_ASSERT_FALSE(attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, &value) < 0);
    H5Aclose(attribute);
}

static void replace_attribute(hid_t object, const char *name, hid_t type, const void *value)
{
    H5Adelete(object, name);
    if (value == NULL) return;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    CU_ASSERT_FALSE(attribute < 0 || H5Awrite(attribute, type, value) < 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void replace_dataset(hid_t group, const char *name, hid_t type, int dimensions,
                            const hsize_t *shape, bool chunked)
{
    hid_t space = H5Screate_simple(dimensions, shape, NULL), p = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[2] = {1, 1};
    if (chunked) H5Pset_chunk(p, dimensions, chunk);
    H5Ldelete(group, name, H5P_DEFAULT);
    hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, p, H5P_DEFAULT);
    CU_ASSERT_TRUE(dataset >= 0);
    H5Dclose(dataset);
    H5Pclose(p);
    H5Sclose(space);
}

static void replace_text(hid_t object, const char *name, size_t size, const char *value)
{
    char text[256] = "";
    hid_t type = H5Tcopy(H5T_C_S1);
    memcpy(text, value, strlen(value));
    H5Tset_size(type, size);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    replace_attribute(object, name, type, text);
    H5Tclose(type);
}

static void write_values(hid_t group, const char *name, hid_t type, const void *values)
{
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    CU_ASSERT_FALSE(dataset < 0 ||
                    H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0);
    H5Dclose(dataset);
}

static const char *change(int number, hid_t file, hid_t group)
{
    const hsize_t huge[2] = {(hsize_t)1 << 40, 1 << 20}, wide[2] = {ROWS, 9};
    const hsize_t shape[2] = {ROWS, 8}, scales[2] = {ROWS, GROUPS};
    const int64_t number64 = 3;
    const double not_finite = INFINITY;
    static const char *words = "variable";
    uint8_t bytes[ROWS * 8];
    int32_t g_idx[COLUMNS] = {[7] = GROUPS};
    float infinite[ROWS * GROUPS] = {[4] = INFINITY};
    hid_t type;
    memset(bytes, 0xff, sizeof bytes);
    switch (number) {
    case 0:
        change_integer(group, "bits", 9);
        return "bits must be 2 to 8";
    case 1:
        change_integer(group, "bits", 4);
        return "codes: shape";
    case 2:
        change_integer(group, "rows", 0);
        return "out of range";
    case 3:
        change_integer(group, "rows", INT64_MAX);
        return "out of range";
    case 4:
        change_integer(group, "columns", -1);
        return "out of range";
    case 5:
        change_integer(group, "groups", 4);
        return "groups must be";
    case 6:
        change_integer(group, "group_size", 0);
        return "groups must be";
    case 7:
        change_integer(group, "index", 1);
        return "index is 1";
    case 8:
        change_integer(group, "index", -7);
        return "index is -7";
    case 9:
        change_integer(group, "beam", (int64_t)1 << 40);
        return "beam";
    case 10:
        change_integer(group, "dead_inputs", 21);
        return "dead_inputs";
    case 11:
        change_integer(file, "block", -1);
        return "block is -1";
    case 12:
        change_integer(file, "format_version", 3);
        return "version 3";
    case 13:
        replace_text(file, "format", 9, "snrq-rest");
        return "snrq-rest";
    case 14:
        replace_text(file, "format", 200, "snrq-block");
        return "too long";
    case 15:
        replace_text(group, "method", 4, "a\nbc");
        return "not printable";
    case 16:
        replace_text(group, "method", 16, "0123456789abcdef");
        return "too long";
    case 17:
        replace_text(group, "scale_type", 3, "F64");
        return "scale_type is \"F64\"";
    case 18:
        replace_attribute(group, "alpha", 0, NULL);
        return "alpha: attribute is missing";
    case 19:
        replace_attribute(group, "alpha", H5T_STD_I64LE, &number64);
        return "64-bit float";
    case 20:
        replace_attribute(group, "rows", H5T_STD_I64BE, &number64);
        return "64-bit integer";
    case 21:
        replace_attribute(group, "damping", H5T_IEEE_F64LE, &not_finite);
        return "not finite";
    case 22:
        replace_attribute(group, "symmetric", H5T_STD_U8LE, "\2");
        return "neither 0 nor 1";
    case 23:
        type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, H5T_VARIABLE);
        replace_attribute(group, "grid", type, &words);
        H5Tclose(type);
        return "fixed length";
    case 24:
        replace_dataset(group, "codes", H5T_STD_U8LE, 2, huge, true);
        return "plain rows";
    case 25:
        replace_dataset(group, "codes", H5T_STD_U8LE, 2, huge, false);
        return "codes";
    case 26:
        replace_dataset(group, "codes", H5T_STD_U8LE, 2, wide, false);
        return "codes";
    case 27:
        replace_dataset(group, "codes", H5T_STD_I8LE, 2, shape, false);
        return "type of";
    case 28:
        replace_dataset(group, "zeros", H5T_STD_U8LE, 1, scales, false);
        return "zeros";
    case 29:
        replace_dataset(group, "scales", H5T_STD_U16LE, 2, scales, false);
        return "type of";
    case 30:
        replace_dataset(group, "scales", H5T_IEEE_F32LE, 2, scales, false);
        return "type of";
    case 31:
        H5Ldelete(group, "g_idx", H5P_DEFAULT);
        return "g_idx: missing";
    case 32:
        H5Ldelete(group, "zeros", H5P_DEFAULT);
        H5Lcreate_external("/etc/passwd", "/zeros", group, "zeros", H5P_DEFAULT, H5P_DEFAULT);
        return "zeros: a link to elsewhere";
    case 33:
        H5Lcreate_soft("/second", file, "third", H5P_DEFAULT, H5P_DEFAULT);
        return "third: a link to elsewhere";
    case 34:
        replace_dataset(file, "second", H5T_STD_U8LE, 2, shape, false);
        return "not a group";
    case 35:
        write_values(group, "zeros", H5T_STD_U8LE, bytes);
        return "zeros: row 0, place 0";
    case 36:
        write_values(group, "codes", H5T_STD_U8LE, bytes);
        return "codes: row 0, place 7";
    case 37:
        write_values(group, "g_idx", H5T_STD_I32LE, g_idx);
        return "g_idx: row 7";
    case 38:
        write_values(group, "scales", H5T_NATIVE_FLOAT, infinite);
        return "scales: row 1";
    case 39:
        H5Lmove(file, "second", file, "sec\nond", H5P_DEFAULT, H5P_DEFAULT);
        return "odd name";
    case 40:
        replace_attribute(file, "format", 0, NULL);
        return "format: attribute is missing";
    default:
        return NULL;
    }
}

static void deceptive_files_are_refused(void)
{
    char good[PATH_MAX];
    rank_files_begin();
    snprintf(good, sizeof good, "%s", scratch_path("good.h5"));
    assert_ok(write_small(good));
    int changes = 0;
    for (int number = 0; number >= 0 && rank_test_world->rank == 0; number++) {
        const char *path = scratch_path("changed.h5");
        copy_whole_file(good, path);
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        hid_t group = H5Gopen2(file, module, H5P_DEFAULT);
        const char *expected = change(number, file, group);
        H5Gclose(group);
        H5Fclose(file);
        snrq_status status = read_all(path);
        if (expected == NULL) {
            CU_ASSERT_EQUAL(status, SNRQ_OK);
            changes = number;
            break;
        }
        assert_failed(status, SNRQ_BAD_DATA, expected);
        CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "changed.h5"));
    }
    if (rank_test_world->rank == 0) CU_ASSERT_EQUAL(changes, 41);
    rank_files_end();
}

/* As files of version 0.1.0 are. */
static void newer_attributes_may_be_absent(void)
{
    rank_files_begin();
    const char *path = scratch_path("older.h5");
    assert_ok(write_small(path));
    if (rank_test_world->rank == 0) {
        snrq_block_file *block = NULL;
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        hid_t group = H5Gopen2(file, module, H5P_DEFAULT);
        CU_ASSERT_FALSE(H5Adelete(group, "alpha_rule") < 0 || H5Adelete(group, "damp") < 0 ||
                        H5Adelete(group, "order") < 0);
        H5Gclose(group);
        H5Fclose(file);
        if (assert_ok(snrq_block_file_open(path, &block))) {
            const snrq_module_record *r = snrq_block_file_record(block, 0);
            CU_ASSERT_STRING_EQUAL(r->name, module);
            CU_ASSERT_STRING_EQUAL(r->alpha_rule, "");
            CU_ASSERT_STRING_EQUAL(r->order, "");
            CU_ASSERT_EQUAL(r->damp, 0);
            CU_ASSERT_EQUAL(r->beam, 1);
        }
        snrq_block_file_close(&block);
    }
    rank_files_end();
}

static void a_cut_file_is_refused(void)
{
    rank_files_begin();
    assert_ok(write_small(scratch_path("good.h5")));
    for (long bytes = file_size(scratch_path("good.h5")) - 1;
         bytes >= 0 && rank_test_world->rank == 0; bytes -= 97) {
        char good[PATH_MAX];
        snprintf(good, sizeof good, "%s", scratch_path("good.h5"));
        copy_whole_file(good, scratch_path("cut.h5"));
        CU_ASSERT_EQUAL(truncate(scratch_path("cut.h5"), bytes), 0);
        assert_failed(read_all(scratch_path("cut.h5")), SNRQ_BAD_DATA, "cut.h5");
    }
    if (rank_test_world->rank == 0) {
        assert_failed(read_all(scratch_path("none.h5")), SNRQ_NO_INPUT, "none.h5");
        assert_failed(read_all(scratch()), SNRQ_BAD_DATA, "regular");
        scratch_write_text("text.h5", "this is no HDF5 file");
        assert_failed(read_all(scratch_path("text.h5")), SNRQ_BAD_DATA, "text.h5");
    }
    rank_files_end();
}

/* In a child process: flips bit `at % 8` of every byte, or every FLIP_STEP-th, and tells the parent
 * how far it came. Metadata has checksums, so that what still reads well differs in stored rows
 * only. */
static void flip_and_read(const char *path, long end, int progress)
{
    for (long at = 0; at < end; at += FLIP_STEP) {
        if (write(progress, &at, sizeof at) != (ssize_t)sizeof at) _exit(2);
        alarm(10);
        flip_bit(path, at, (int)(at % 8));
        snrq_status status = read_all(path);
        if (status != SNRQ_OK && status != SNRQ_BAD_DATA && status != SNRQ_IO_ERROR) _exit(3);
        if (status != SNRQ_OK && strstr(snrq_error_message(), path) == NULL) _exit(4);
        flip_bit(path, at, (int)(at % 8));
    }
    _exit(0);
}

static void a_flipped_bit_never_crashes_the_reader(void)
{
    char good[PATH_MAX], path[PATH_MAX];
    rank_files_begin();
    snprintf(good, sizeof good, "%s", scratch_path("good.h5"));
    snprintf(path, sizeof path, "%s", scratch_path("flipped.h5"));
    assert_ok(write_small(good));
    if (rank_test_world->rank == 0) {
        copy_whole_file(good, path);
        flip_in_child(flip_and_read, path);
    }
    rank_files_end();
}

int main(int argc, char **argv)
{
    const snrq_test tests[] = {
        SNRQ_TEST(deceptive_files_are_refused),
        SNRQ_TEST(newer_attributes_may_be_absent),
        SNRQ_TEST(a_cut_file_is_refused),
        SNRQ_TEST(a_flipped_bit_never_crashes_the_reader),
    };
    return rank_test_main(argc, argv, "block_damage", tests, sizeof tests / sizeof *tests);
}
