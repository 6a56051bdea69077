/* What the fuzz targets share: the function each of them has, a check, input as a file. */
#ifndef FUZZ_H
#define FUZZ_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mpi/status.h"

/* Called with one input after the other, by libFuzzer or by replay.c. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise that no input may break. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static char fuzz_folder_path[64];

static inline void fuzz_clean(void)
{
    char path[512];
    DIR *folder = opendir(fuzz_folder_path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", fuzz_folder_path, entry->d_name);
        unlink(path);
    }
    if (folder != NULL) closedir(folder);
    rmdir(fuzz_folder_path);
}

/* A folder of this process that vanishes at the end: in memory where the system has a file system
 * for that. */
static inline const char *fuzz_folder(void)
{
    if (fuzz_folder_path[0] != '\0') return fuzz_folder_path;
    snprintf(fuzz_folder_path, sizeof fuzz_folder_path, "%s/snrq-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    FUZZ_CHECK(mkdtemp(fuzz_folder_path) != NULL);
    atexit(fuzz_clean);
    return fuzz_folder_path;
}

/* The bytes as the file `name` of the folder. Returns its path, until the next call. Borrowed.
 * A file stays open and is written over: making one anew takes longer than reading it. */
static inline const char *fuzz_file(const char *name, const void *data, size_t size)
{
    enum { MOST = 16 };
    static struct {
        char name[64];
        int fd;
    } file[MOST];
    static char path[512];
    int i = 0;
    while (i < MOST && file[i].name[0] != '\0' && strcmp(file[i].name, name) != 0) i++;
    FUZZ_CHECK(i < MOST && strlen(name) < sizeof file[i].name);
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    if (file[i].name[0] == '\0') {
        file[i].fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        FUZZ_CHECK(file[i].fd >= 0);
        strcpy(file[i].name, name);
    }
    FUZZ_CHECK(ftruncate(file[i].fd, (off_t)size) == 0);
    FUZZ_CHECK(size == 0 || pwrite(file[i].fd, data, size, 0) == (ssize_t)size);
    return path;
}

#endif
