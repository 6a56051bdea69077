/* Directories; see directory.h. */
#include "io/directory.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static snrq_status add_name(char ***names, int *count, size_t *room, const char *name)
{
    if (*count == INT_MAX / 2) return snrq_fail(SNRQ_BAD_DATA, "a directory has too many files");
    SNRQ_TRY(snrq_grow((size_t)*count + 1, sizeof **names, "names of files", names, room));
    SNRQ_TRY(snrq_copy_text(name, "name of a file", &(*names)[*count]));
    ++*count;
    return SNRQ_OK;
}

snrq_status snrq_directory_names(const char *directory, char ***names, int *count)
{
    size_t room = 0;
    *names = NULL;
    *count = 0;
    DIR *stream = opendir(directory);
    if (stream == NULL)
        return snrq_fail(snrq_open_status(errno), "%s: cannot be read: %s", directory,
                         strerror(errno));
    snrq_status status = SNRQ_OK;
    errno = 0;
    for (struct dirent *entry; status == SNRQ_OK && (entry = readdir(stream)) != NULL; errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = add_name(names, count, &room, entry->d_name);
    if (status == SNRQ_OK && errno != 0)
        status = snrq_fail(SNRQ_IO_ERROR, "%s: cannot be read: %s", directory, strerror(errno));
    closedir(stream);
    if (status != SNRQ_OK) {
        snrq_names_free(names, *count);
        *count = 0;
    } else if (*count > 0) {
        qsort(*names, (size_t)*count, sizeof **names, by_name);
    }
    return status;
}

void snrq_names_free(char ***names, int count)
{
    for (int i = 0; *names != NULL && i < count; i++) free((*names)[i]);
    free(*names);
    *names = NULL;
}

snrq_status snrq_directory_make(const char *directory)
{
    struct stat facts;
    if (mkdir(directory, 0777) != 0 && errno != EEXIST) {
        const char *advice = errno == ENOENT ? "; create the directory above it first" : "";
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be created: %s%s", directory,
                         strerror(errno), advice);
    }
    if (stat(directory, &facts) != 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: %s", directory, strerror(errno));
    if (!S_ISDIR(facts.st_mode))
        return snrq_fail(SNRQ_CANNOT_WRITE,
                         "%s: is a file; the output is a directory, choose another name",
                         directory);
    if (access(directory, W_OK | X_OK) != 0)
        return snrq_fail(SNRQ_CANNOT_WRITE,
                         "%s: cannot be written to: %s; change its permissions, or choose another "
                         "directory",
                         directory, strerror(errno));
    return SNRQ_OK;
}

bool snrq_is_plain_file(const char *directory, const char *name)
{
    char path[PATH_MAX];
    struct stat facts;
    return snrq_path_join(directory, name, path, sizeof path) == SNRQ_OK &&
           lstat(path, &facts) == 0 && S_ISREG(facts.st_mode);
}

bool snrq_ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

snrq_status snrq_directory_remove(const char *directory, snrq_name_test *is_meant, const void *user)
{
    char **names = NULL;
    int count = 0, removed = 0;
    SNRQ_TRY(snrq_directory_names(directory, &names, &count));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++) {
        char path[PATH_MAX];
        if (!is_meant(user, names[i])) continue;
        status = snrq_path_join(directory, names[i], path, sizeof path);
        if (status == SNRQ_OK && unlink(path) != 0 && errno != ENOENT)
            status = snrq_fail(SNRQ_IO_ERROR, "%s: cannot be removed: %s", path, strerror(errno));
        removed += status == SNRQ_OK;
    }
    snrq_names_free(&names, count);
    if (status == SNRQ_OK && removed > 0) status = snrq_directory_sync(directory);
    return status;
}
