/* For the tests of readers and writers: a scratch directory, files made of strings, data that may
 * be absent.
 *
 * Paths are relative to the scratch directory; returned strings are borrowed until the next call.
 */
#ifndef TEST_FILES_H
#define TEST_FILES_H

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mpi/status.h"
#include "tests/snrq_test.h"

static char scratch_root[256];

/* The scratch directory, made in TMPDIR or /tmp at the first call. */
static inline const char *scratch(void)
{
    const char *base = getenv("TMPDIR");
    if (scratch_root[0] != '\0') return scratch_root;
    if (base == NULL || strlen(base) > 200) base = "/tmp";
    snprintf(scratch_root, sizeof scratch_root, "%s/snrq-test-XXXXXX", base);
    if (mkdtemp(scratch_root) == NULL) {
        perror("mkdtemp");
        exit(1);
    }
    return scratch_root;
}

static inline const char *scratch_path(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", scratch(), name);
    return path;
}

static inline void remove_tree(const char *path)
{
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        char inner[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) < PATH_MAX)
            remove_tree(inner);
    }
    if (directory != NULL) closedir(directory);
    remove(path);
}

static inline void scratch_remove(void)
{
    if (scratch_root[0] != '\0') remove_tree(scratch_root);
}

static inline void scratch_write(const char *name, const void *data, size_t bytes)
{
    FILE *file = fopen(scratch_path(name), "wb");
    if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
        perror(scratch_path(name));
        exit(1);
    }
}

static inline void scratch_write_text(const char *name, const char *text)
{
    scratch_write(name, text, strlen(text));
}

/* $VARIABLE/NAME, or NULL with a note if there is no such file or directory. */
static inline const char *test_data(const char *variable, const char *name)
{
    static char path[PATH_MAX];
    struct stat facts;
    const char *root = getenv(variable);
    snprintf(path, sizeof path, "%s/%s", root != NULL ? root : variable, name);
    if (root != NULL && stat(path, &facts) == 0) return path;
    fprintf(stderr, "skipped: %s not found\n", path);
    return NULL;
}

/* The call failed with `expected`, and its message says `fragment`. */
static inline void assert_failed(snrq_status status, snrq_status expected, const char *fragment)
{
    bool good = status == expected && strstr(snrq_error_message(), fragment) != NULL;
    if (!good)
        fprintf(stderr, "expected status %d and \"%s\", found status %d and \"%s\"\n",
                (int)expected, fragment, (int)status, snrq_error_message());
    CU_ASSERT_TRUE(good);
}

static inline bool assert_ok(snrq_status status)
{
    if (status != SNRQ_OK)
        fprintf(stderr, "expected success, found status %d and \"%s\"\n", (int)status,
                snrq_error_message());
    CU_ASSERT_EQUAL(status, SNRQ_OK);
    return status == SNRQ_OK;
}

/* Deterministic random bits (xorshift64*), so that a failure can be repeated. */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

#endif
