/* For the fuzz targets of readers that want a model's directory: a directory of this process, and
 * files in it made of bytes. It is removed at the end.
 */
#ifndef MODEL_FILES_H
#define MODEL_FILES_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char model_directory_path[64];

static inline void model_directory_remove(void)
{
    char path[512];
    DIR *directory = opendir(model_directory_path);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", model_directory_path, entry->d_name);
        unlink(path);
    }
    if (directory != NULL) closedir(directory);
    rmdir(model_directory_path);
}

/* The directory, made at the first call: in memory where the system has a file system for that. */
static inline const char *model_directory(void)
{
    if (model_directory_path[0] != '\0') return model_directory_path;
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(model_directory_path, sizeof model_directory_path, "%s/snrq-fuzz-XXXXXX",
             memory ? "/dev/shm" : "/tmp");
    if (mkdtemp(model_directory_path) == NULL) {
        perror(model_directory_path);
        exit(1);
    }
    atexit(model_directory_remove);
    return model_directory_path;
}

static inline void model_file_write(const char *name, const void *data, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", model_directory(), name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || (size > 0 && fwrite(data, 1, size, file) != size) || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* What the readers promise of input they accept. */
static inline void must(bool promise, const char *what)
{
    if (promise) return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

#endif
