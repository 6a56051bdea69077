/* What the fuzz targets share: the function each of them has, a check, input as a file. */
#ifndef FUZZ_H
#define FUZZ_H

#include <limits.h>
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

static char fuzz_folder[] = "/tmp/snrq-fuzz-XXXXXX", fuzz_path[PATH_MAX];

static inline void fuzz_clean(void)
{
    unlink(fuzz_path);
    rmdir(fuzz_folder);
}

/* The input as a file called `name`, always the same one in a folder of its own that vanishes at
 * the end. Returns its path; *folder (if not NULL) is the folder. Borrowed. */
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t size,
                                    const char **folder)
{
    if (fuzz_path[0] == '\0') {
        FUZZ_CHECK(mkdtemp(fuzz_folder) != NULL);
        snprintf(fuzz_path, sizeof fuzz_path, "%s/%s", fuzz_folder, name);
        atexit(fuzz_clean);
    }
    FILE *file = fopen(fuzz_path, "wb");
    FUZZ_CHECK(file != NULL && fwrite(data, 1, size, file) == size);
    FUZZ_CHECK(fclose(file) == 0);
    if (folder != NULL) *folder = fuzz_folder;
    return fuzz_path;
}

#endif
