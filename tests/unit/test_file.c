/* Whole files: reading, atomic replacement, appending, hashing, and what is left after a failure.
 */
#include "io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/test_files.h"

static void assert_content(const char *name, const char *expected)
{
    char *data = NULL;
    size_t bytes = 0;
    if (!assert_ok(snrq_file_read(scratch_path(name), 1 << 20, &data, &bytes))) return;
    CU_ASSERT_EQUAL(bytes, strlen(expected));
    CU_ASSERT_STRING_EQUAL(data, expected);
    free(data);
}

static bool exists(const char *name)
{
    return access(scratch_path(name), F_OK) == 0;
}

/* From here on, no file may become longer: writes beyond fail as on a full disk. */
static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes == RLIM_INFINITY ? limit.rlim_max : bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void reading_gives_the_bytes_and_a_nul(void)
{
    char *data;
    size_t bytes;
    scratch_write("read", "ab\0cd", 5);
    if (!assert_ok(snrq_file_read(scratch_path("read"), 5, &data, &bytes))) return;
    CU_ASSERT_EQUAL(bytes, 5);
    CU_ASSERT_EQUAL(memcmp(data, "ab\0cd", 6), 0);
    free(data);
    scratch_write("read", "", 0);
    if (!assert_ok(snrq_file_read(scratch_path("read"), 0, &data, &bytes))) return;
    CU_ASSERT_EQUAL(bytes, 0);
    free(data);
}

static void reading_a_missing_file_is_no_input(void)
{
    char *data;
    size_t bytes;
    assert_failed(snrq_file_read(scratch_path("missing"), 10, &data, &bytes), SNRQ_NO_INPUT,
                  "missing");
    CU_ASSERT_PTR_NULL(data);
}

static void reading_more_than_the_limit_is_bad_data(void)
{
    char *data;
    size_t bytes;
    scratch_write_text("long", "0123456789");
    assert_failed(snrq_file_read(scratch_path("long"), 9, &data, &bytes), SNRQ_BAD_DATA,
                  "10 bytes, expected at most 9");
}

static void reading_a_directory_or_a_fifo_is_bad_data(void)
{
    char *data;
    size_t bytes;
    assert_failed(snrq_file_read(scratch(), 10, &data, &bytes), SNRQ_BAD_DATA, "regular file");
    CU_ASSERT_EQUAL(mkfifo(scratch_path("fifo"), 0600), 0);
    assert_failed(snrq_file_read(scratch_path("fifo"), 10, &data, &bytes), SNRQ_BAD_DATA,
                  "regular file");
}

static void reading_past_the_end_is_an_io_error(void)
{
    int fd;
    uint64_t size;
    char out[8];
    scratch_write_text("short", "012345");
    if (!assert_ok(snrq_file_open(scratch_path("short"), &fd, &size))) return;
    CU_ASSERT_EQUAL(size, 6);
    CU_ASSERT_EQUAL(snrq_file_read_at(fd, "short", 2, out, 4), SNRQ_OK);
    CU_ASSERT_EQUAL(memcmp(out, "2345", 4), 0);
    assert_failed(snrq_file_read_at(fd, "short", 2, out, 5), SNRQ_IO_ERROR, "ends at byte 6");
    close(fd);
}

static void replacing_creates_and_replaces(void)
{
    assert_ok(snrq_file_replace(scratch_path("status"), "one", 3));
    assert_content("status", "one");
    assert_ok(snrq_file_replace(scratch_path("status"), "twofold", 7));
    assert_content("status", "twofold");
    CU_ASSERT_FALSE(exists("status.tmp"));
}

static void replacing_in_a_missing_directory_cannot_write(void)
{
    assert_failed(snrq_file_replace(scratch_path("nowhere/status"), "x", 1), SNRQ_CANNOT_WRITE,
                  "nowhere/status.tmp");
}

static void a_failed_replacement_leaves_the_old_file(void)
{
    assert_ok(snrq_file_replace(scratch_path("kept"), "old", 3));
    limit_file_size(4);
    snrq_status status = snrq_file_replace(scratch_path("kept"), "new and long", 12);
    limit_file_size(RLIM_INFINITY);
    assert_failed(status, SNRQ_IO_ERROR, "after 4 of 12 bytes");
    assert_content("kept", "old");
    CU_ASSERT_FALSE(exists("kept.tmp"));
}

static void replacing_a_directory_removes_the_temporary_file(void)
{
    mkdir(scratch_path("taken"), 0777);
    assert_failed(snrq_file_replace(scratch_path("taken"), "x", 1), SNRQ_CANNOT_WRITE, "renamed");
    CU_ASSERT_FALSE(exists("taken.tmp"));
}

static void appending_creates_and_extends(void)
{
    assert_ok(snrq_file_append(scratch_path("log"), "a\n", 2));
    assert_ok(snrq_file_append(scratch_path("log"), "b\n", 2));
    assert_content("log", "a\nb\n");
}

static void a_failed_append_is_undone(void)
{
    assert_ok(snrq_file_append(scratch_path("manifest"), "first\n", 6));
    limit_file_size(10);
    snrq_status status = snrq_file_append(scratch_path("manifest"), "second\n", 7);
    limit_file_size(RLIM_INFINITY);
    assert_failed(status, SNRQ_IO_ERROR, "after 4 of 7 bytes");
    assert_content("manifest", "first\n");
    assert_ok(snrq_file_append(scratch_path("manifest"), "second\n", 7));
    assert_content("manifest", "first\nsecond\n");
}

static void appending_to_a_directory_cannot_write(void)
{
    assert_failed(snrq_file_append(scratch(), "x", 1), SNRQ_CANNOT_WRITE, scratch());
}

static void syncing_names_what_is_missing(void)
{
    scratch_write_text("there", "x");
    assert_ok(snrq_file_sync(scratch_path("there")));
    assert_ok(snrq_directory_sync(scratch()));
    assert_failed(snrq_file_sync(scratch_path("absent")), SNRQ_NO_INPUT, "absent");
    assert_failed(snrq_directory_sync(scratch_path("there")), SNRQ_NO_INPUT, "there");
}

static void joining_puts_one_slash(void)
{
    char out[8];
    assert_ok(snrq_path_join("a", "b", out, sizeof out));
    CU_ASSERT_STRING_EQUAL(out, "a/b");
    assert_ok(snrq_path_join("/", "b", out, sizeof out));
    CU_ASSERT_STRING_EQUAL(out, "/b");
    assert_ok(snrq_path_join("", "b", out, sizeof out));
    CU_ASSERT_STRING_EQUAL(out, "b");
    assert_ok(snrq_path_join("abc", "def", out, sizeof out));
    assert_failed(snrq_path_join("abcd", "def", out, sizeof out), SNRQ_USAGE, "abcd/def");
}

/* 99aa06d3014798d86001c324468d497f is the published XXH3-128 of no bytes at all. */
static void hashing_a_file_is_hashing_its_bytes(void)
{
    char of_block[33], of_file[33];
    uint64_t bytes;
    size_t size = 9u << 20;
    char *data = malloc(size);
    for (size_t i = 0; i < size; i++) data[i] = (char)(i * 31 >> 3);
    scratch_write("hashed", data, size);
    snrq_hash(data, size, of_block);
    assert_ok(snrq_file_hash(scratch_path("hashed"), of_file, &bytes));
    CU_ASSERT_STRING_EQUAL(of_block, of_file);
    CU_ASSERT_EQUAL(bytes, size);
    free(data);
    snrq_hash("", 0, of_block);
    CU_ASSERT_STRING_EQUAL(of_block, "99aa06d3014798d86001c324468d497f");
    assert_failed(snrq_file_hash(scratch_path("absent"), of_file, &bytes), SNRQ_NO_INPUT, "absent");
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(reading_gives_the_bytes_and_a_nul),
        SNRQ_TEST(reading_a_missing_file_is_no_input),
        SNRQ_TEST(reading_more_than_the_limit_is_bad_data),
        SNRQ_TEST(reading_a_directory_or_a_fifo_is_bad_data),
        SNRQ_TEST(reading_past_the_end_is_an_io_error),
        SNRQ_TEST(replacing_creates_and_replaces),
        SNRQ_TEST(replacing_in_a_missing_directory_cannot_write),
        SNRQ_TEST(a_failed_replacement_leaves_the_old_file),
        SNRQ_TEST(replacing_a_directory_removes_the_temporary_file),
        SNRQ_TEST(appending_creates_and_extends),
        SNRQ_TEST(a_failed_append_is_undone),
        SNRQ_TEST(appending_to_a_directory_cannot_write),
        SNRQ_TEST(syncing_names_what_is_missing),
        SNRQ_TEST(joining_puts_one_slash),
        SNRQ_TEST(hashing_a_file_is_hashing_its_bytes),
    };
    int result = snrq_run_tests("file", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
