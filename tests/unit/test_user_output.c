/* Files that a user names: where they lead, what is refused, and what is left after a failure. */
#include "io/user_output.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "io/file.h"
#include "tests/unit/test_files.h"

/* Path of a file in the scratch directory. */
typedef char path_text[PATH_MAX];

static const char *inside(const char *name, path_text out)
{
    snprintf(out, PATH_MAX, "%s", scratch_path(name));
    return out;
}

static snrq_status write_text(const char *name, const char *text)
{
    path_text path;
    snrq_user_output *out = NULL;
    SNRQ_TRY(snrq_user_output_open(inside(name, path), NULL, 0, &out));
    CU_ASSERT_PTR_EQUAL(snrq_user_output_answers(out), stdout);
    snrq_status status = snrq_user_output_write(out, text, strlen(text));
    snrq_user_output_close(&out);
    CU_ASSERT_PTR_NULL(out);
    return status;
}

static void assert_content(const char *name, const char *expected)
{
    char *data = NULL;
    size_t bytes = 0;
    if (!assert_ok(snrq_file_read(scratch_path(name), 1 << 20, &data, &bytes))) return;
    CU_ASSERT_EQUAL(bytes, strlen(expected));
    CU_ASSERT_STRING_EQUAL(data, expected);
    free(data);
}

/* Names in a directory, without "." and "..". */
static int count_names(const char *name)
{
    int count = 0;
    DIR *directory = opendir(scratch_path(name));
    while (directory != NULL && readdir(directory) != NULL) count++;
    if (directory != NULL) closedir(directory);
    return count - 2;
}

static mode_t mode_of(const char *name)
{
    struct stat facts = {0};
    CU_ASSERT_EQUAL(stat(scratch_path(name), &facts), 0);
    return facts.st_mode & 07777;
}

static void make_directory(const char *name)
{
    CU_ASSERT_EQUAL(mkdir(scratch_path(name), 0700), 0);
}

/* Opening is tried and given up: nothing changes. */
static void a_try_leaves_nothing(void)
{
    path_text path;
    snrq_user_output *out = NULL;
    make_directory("try");
    if (assert_ok(snrq_user_output_open(inside("try/x", path), NULL, 0, &out))) {
        CU_ASSERT_EQUAL(count_names("try"), 0);
        CU_ASSERT_STRING_EQUAL(snrq_user_output_path(out), path);
    }
    snrq_user_output_close(&out);
    CU_ASSERT_EQUAL(count_names("try"), 0);
    scratch_write_text("try/x", "old");
    if (assert_ok(snrq_user_output_open(path, NULL, 0, &out))) assert_content("try/x", "old");
    snrq_user_output_close(&out);
    assert_content("try/x", "old");
    CU_ASSERT_EQUAL(count_names("try"), 1);
}

static void modes_are_those_of_a_new_file_or_of_the_old_one(void)
{
    mode_t before = umask(027);
    assert_ok(write_text("mode", "1"));
    CU_ASSERT_EQUAL(mode_of("mode"), 0640);
    CU_ASSERT_EQUAL(chmod(scratch_path("mode"), 0604), 0);
    assert_ok(write_text("mode", "22"));
    CU_ASSERT_EQUAL(mode_of("mode"), 0604);
    assert_content("mode", "22");
    umask(before);
}

/* A name that ends with .tmp belongs to the user. */
static void files_beside_it_are_left_alone(void)
{
    make_directory("beside");
    scratch_write_text("beside/x", "old");
    scratch_write_text("beside/x.tmp", "precious");
    assert_ok(write_text("beside/x", "new"));
    assert_content("beside/x", "new");
    assert_content("beside/x.tmp", "precious");
    CU_ASSERT_EQUAL(count_names("beside"), 2);
}

static void links_lead_to_their_targets(void)
{
    struct stat facts;
    make_directory("links");
    make_directory("links/inner");
    scratch_write_text("links/inner/target", "old");
    CU_ASSERT_EQUAL(symlink("inner/target", scratch_path("links/one")), 0);
    CU_ASSERT_EQUAL(symlink("one", scratch_path("links/two")), 0);
    assert_ok(write_text("links/two", "new"));
    assert_content("links/inner/target", "new");
    CU_ASSERT_TRUE(lstat(scratch_path("links/one"), &facts) == 0 && S_ISLNK(facts.st_mode));
    CU_ASSERT_TRUE(lstat(scratch_path("links/two"), &facts) == 0 && S_ISLNK(facts.st_mode));
    /* one that leads nowhere yet */
    CU_ASSERT_EQUAL(symlink("inner/free", scratch_path("links/three")), 0);
    assert_ok(write_text("links/three", "made"));
    assert_content("links/inner/free", "made");
    CU_ASSERT_EQUAL(count_names("links/inner"), 2);
    CU_ASSERT_EQUAL(symlink("circle", scratch_path("links/circle")), 0);
    assert_failed(write_text("links/circle", "x"), SNRQ_CANNOT_WRITE, "in a circle");
    CU_ASSERT_EQUAL(symlink("no/where", scratch_path("links/lost")), 0);
    assert_failed(write_text("links/lost", "x"), SNRQ_CANNOT_WRITE, "make it first");
}

static void what_cannot_be_is_refused_before_work(void)
{
    char name[NAME_MAX + 8];
    make_directory("bad");
    scratch_write_text("bad/file", "");
    assert_failed(write_text("bad", "x"), SNRQ_CANNOT_WRITE, "found a directory");
    assert_failed(write_text("bad/", "x"), SNRQ_CANNOT_WRITE, "found a directory");
    assert_failed(write_text("bad/new/", "x"), SNRQ_CANNOT_WRITE, "expected a name for a file");
    assert_failed(write_text("bad/none/x", "x"), SNRQ_CANNOT_WRITE, "there is no directory");
    assert_failed(write_text("bad/file/x", "x"), SNRQ_CANNOT_WRITE, "there is no directory");
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_failed(write_text(name, "x"), SNRQ_CANNOT_WRITE, "the name is longer");
    CU_ASSERT_EQUAL(count_names("bad"), 1);
    if (geteuid() == 0) return; /* may write anywhere */
    CU_ASSERT_EQUAL(chmod(scratch_path("bad/file"), 0400), 0);
    assert_failed(write_text("bad/file", "x"), SNRQ_CANNOT_WRITE, "may not be written");
    CU_ASSERT_EQUAL(chmod(scratch_path("bad"), 0500), 0);
    assert_failed(write_text("bad/x", "x"), SNRQ_CANNOT_WRITE, "no file can be made");
    CU_ASSERT_EQUAL(chmod(scratch_path("bad"), 0700), 0);
}

/* By whatever name the input or the output goes. */
static void inputs_are_refused(void)
{
    path_text input, folder, path;
    snrq_user_output *out = NULL;
    make_directory("inputs");
    scratch_write_text("inputs/text", "precious");
    CU_ASSERT_EQUAL(link(scratch_path("inputs/text"), inside("hard", path)), 0);
    CU_ASSERT_EQUAL(symlink("inputs/text", scratch_path("soft")), 0);
    CU_ASSERT_EQUAL(symlink("inputs", scratch_path("inputs-too")), 0);
    const char *const inputs[] = {NULL, inside("inputs/text", input), scratch_path("missing")};
    const char *const folders[] = {inside("inputs", folder)};
    static const char *const names[] = {"inputs/text", "inputs/./text", "hard", "soft",
                                        "inputs-too/text"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_failed(snrq_user_output_open(inside(names[i], path), inputs, 3, &out), SNRQ_USAGE,
                      "is the same file as");
        assert_failed(snrq_user_output_open(inside(names[i], path), folders, 1, &out), SNRQ_USAGE,
                      "inputs/text, which is read");
        CU_ASSERT_PTR_NULL(out);
    }
    assert_content("inputs/text", "precious");
    assert_ok(snrq_user_output_open(inside("inputs/other", path), folders, 1, &out));
    snrq_user_output_close(&out);
}

/* As on a full disk. */
static void a_failure_keeps_the_old_file(void)
{
    struct rlimit limit, small;
    make_directory("full");
    scratch_write_text("full/x", "old");
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    small.rlim_cur = 4;
    setrlimit(RLIMIT_FSIZE, &small);
    snrq_status old = write_text("full/x", "new and long"), new = write_text("full/y", "12345");
    setrlimit(RLIMIT_FSIZE, &limit);
    CU_ASSERT_EQUAL(old, SNRQ_IO_ERROR);
    CU_ASSERT_EQUAL(new, SNRQ_IO_ERROR);
    assert_content("full/x", "old");
    CU_ASSERT_EQUAL(count_names("full"), 1);
}

static path_text pipe_path;

static void *read_pipe(void *room)
{
    int fd = open(pipe_path, O_RDONLY);
    ssize_t got, used = 0;
    while (used < 63 && (got = read(fd, (char *)room + used, 63 - (size_t)used)) > 0) used += got;
    close(fd);
    return NULL;
}

/* Also before there is a reader. */
static void pipes_are_written_to(void)
{
    char room[64] = "";
    struct stat facts;
    pthread_t reader;
    CU_ASSERT_EQUAL(mkfifo(inside("pipe", pipe_path), 0600), 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&reader, NULL, read_pipe, room), 0);
    assert_ok(write_text("pipe", "through a pipe"));
    pthread_join(reader, NULL);
    CU_ASSERT_STRING_EQUAL(room, "through a pipe");
    CU_ASSERT_TRUE(stat(scratch_path("pipe"), &facts) == 0 && S_ISFIFO(facts.st_mode));
}

/* Descriptors are written where they stand, by each of their names. */
static void descriptors_are_written_to(void)
{
    snrq_user_output *out = NULL;
    char name[64];
    static const char *const forms[] = {"/dev/fd/%d", "/proc/self/fd/%d"};
    int fd = open(scratch_path("open"), O_RDWR | O_CREAT, 0600);
    CU_ASSERT_TRUE_FATAL(fd >= 0 && write(fd, "ab", 2) == 2);
    for (size_t i = 0; i < 2; i++) {
        snprintf(name, sizeof name, forms[i], fd);
        if (!assert_ok(snrq_user_output_open(name, NULL, 0, &out))) continue;
        assert_ok(snrq_user_output_write(out, "cd", 2));
        snrq_user_output_close(&out);
    }
    assert_content("open", "abcdcd");
    close(fd);
    fd = open(scratch_path("open"), O_RDONLY);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    assert_failed(snrq_user_output_open(name, NULL, 0, &out), SNRQ_CANNOT_WRITE, name);
    close(fd);
    assert_failed(snrq_user_output_open(name, NULL, 0, &out), SNRQ_CANNOT_WRITE, name);
}

/* Standard output takes the bytes, so answers go to standard error. */
static void standard_output_has_many_names(void)
{
    path_text path;
    snrq_user_output *out = NULL;
    static const char *const names[] = {"-", "/dev/stdout", "stdout", "stdout-link"};
    fflush(stdout);
    int before = dup(STDOUT_FILENO), fd = open(scratch_path("stdout"), O_RDWR | O_CREAT, 0600);
    CU_ASSERT_EQUAL(symlink("stdout", scratch_path("stdout-link")), 0);
    CU_ASSERT_TRUE_FATAL(before >= 0 && fd >= 0 && dup2(fd, STDOUT_FILENO) == STDOUT_FILENO);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *name = i < 2 ? names[i] : inside(names[i], path);
        if (!assert_ok(snrq_user_output_open(name, NULL, 0, &out))) continue;
        CU_ASSERT_PTR_EQUAL(snrq_user_output_answers(out), stderr);
        assert_ok(snrq_user_output_write(out, "xy", 2));
        snrq_user_output_close(&out);
    }
    dup2(before, STDOUT_FILENO);
    close(before);
    close(fd);
    assert_content("stdout", "xyxyxyxy");
}

static void directories_are_tried(void)
{
    path_text path;
    make_directory("out");
    scratch_write_text("out/file", "");
    assert_ok(snrq_user_directory_check(inside("out", path)));
    assert_ok(snrq_user_directory_check(inside("out/", path)));
    assert_ok(snrq_user_directory_check(inside("out/new", path)));
    assert_ok(snrq_user_directory_check(inside("out/new/", path)));
    assert_ok(snrq_user_directory_check("new"));
    assert_failed(snrq_user_directory_check("-"), SNRQ_CANNOT_WRITE, "expected a directory");
    assert_failed(snrq_user_directory_check(inside("out/file", path)), SNRQ_CANNOT_WRITE,
                  "expected a directory");
    assert_failed(snrq_user_directory_check(inside("out/none/x", path)), SNRQ_CANNOT_WRITE,
                  "make it first");
    CU_ASSERT_EQUAL(count_names("out"), 1);
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(a_try_leaves_nothing),
        SNRQ_TEST(modes_are_those_of_a_new_file_or_of_the_old_one),
        SNRQ_TEST(files_beside_it_are_left_alone),
        SNRQ_TEST(links_lead_to_their_targets),
        SNRQ_TEST(what_cannot_be_is_refused_before_work),
        SNRQ_TEST(inputs_are_refused),
        SNRQ_TEST(a_failure_keeps_the_old_file),
        SNRQ_TEST(pipes_are_written_to),
        SNRQ_TEST(descriptors_are_written_to),
        SNRQ_TEST(standard_output_has_many_names),
        SNRQ_TEST(directories_are_tried),
    };
    int failed = snrq_run_tests("user_output", tests, sizeof tests / sizeof *tests, 1);
    scratch_remove();
    return failed;
}
