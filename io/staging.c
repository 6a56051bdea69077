/* Files that appear together; see staging.h. */
#include "io/staging.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"

struct snrq_staging {
    const snrq_context *context; /* borrowed */
    char directory[PATH_MAX];
    char **names; /* [count] owned */
    size_t count, capacity;
};

snrq_status snrq_staging_create(const snrq_context *context, const char *directory,
                                snrq_staging **out)
{
    *out = NULL;
    if (strlen(directory) >= PATH_MAX)
        return snrq_fail(SNRQ_USAGE, "%s: the path is longer than %d bytes", directory, PATH_MAX);
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "list of files", out));
    (*out)->context = context;
    strcpy((*out)->directory, directory);
    return SNRQ_OK;
}

static snrq_status temporary_path(const snrq_staging *s, const char *name, char path[PATH_MAX])
{
    char temporary[NAME_MAX + 1];
    int length = snprintf(temporary, sizeof temporary, "%s" SNRQ_STAGING_SUFFIX, name);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return snrq_fail(SNRQ_INTERNAL, "%s: the name is too long", name);
    return snrq_path_join(s->directory, temporary, path, PATH_MAX);
}

static snrq_status remember(snrq_staging *s, const char *name)
{
    SNRQ_TRY(snrq_grow(s->count + 1, sizeof *s->names, "list of files", &s->names, &s->capacity));
    SNRQ_TRY(snrq_copy_text(name, "name of a file", &s->names[s->count]));
    s->count++;
    return SNRQ_OK;
}

snrq_status snrq_staging_add(snrq_staging *s, const char *name, char path[PATH_MAX])
{
    SNRQ_TRY(temporary_path(s, name, path));
    return s->context->rank == 0 ? remember(s, name) : SNRQ_OK;
}

snrq_status snrq_staging_put(snrq_staging *s, const char *name, const void *data, size_t bytes)
{
    char path[PATH_MAX];
    SNRQ_TRY(snrq_staging_add(s, name, path));
    return s->context->rank == 0 ? snrq_file_write(path, data, bytes) : SNRQ_OK;
}

static snrq_status rename_one(const snrq_staging *s, const char *name)
{
    char path[PATH_MAX], temporary[PATH_MAX];
    SNRQ_TRY(temporary_path(s, name, temporary));
    SNRQ_TRY(snrq_path_join(s->directory, name, path, sizeof path));
    /* rename() would replace it */
    if (access(path, F_OK) == 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: was made by somebody else meanwhile", path);
    if (rename(temporary, path) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed: %s", temporary, strerror(errno));
    return SNRQ_OK;
}

static snrq_status sync_folders(const snrq_staging *s)
{
    char path[PATH_MAX];
    for (size_t i = 0; i < s->count; i++) {
        if (strchr(s->names[i], '/') == NULL) continue;
        SNRQ_TRY(snrq_path_join(s->directory, s->names[i], path, sizeof path));
        *strrchr(path, '/') = '\0';
        SNRQ_TRY(snrq_directory_sync(path));
    }
    return SNRQ_OK;
}

static snrq_status publish(const snrq_staging *s)
{
    char path[PATH_MAX];
    size_t done = 0;
    snrq_status status = SNRQ_OK;
    while (done < s->count && status == SNRQ_OK) {
        status = rename_one(s, s->names[done]);
        if (status == SNRQ_OK) done++;
    }
    if (status == SNRQ_OK) status = sync_folders(s);
    if (status == SNRQ_OK) status = snrq_directory_sync(s->directory);
    for (size_t i = 0; i < done && status != SNRQ_OK; i++) {
        if (snrq_path_join(s->directory, s->names[i], path, sizeof path) == SNRQ_OK) unlink(path);
    }
    return status;
}

snrq_status snrq_staging_publish(snrq_staging *s)
{
    return snrq_agree(s->context, s->context->rank == 0 ? publish(s) : SNRQ_OK);
}

void snrq_staging_destroy(snrq_staging **staging)
{
    snrq_staging *s = *staging;
    char path[PATH_MAX];
    if (s == NULL) return;
    for (size_t i = 0; i < s->count; i++) {
        int length =
            snprintf(path, sizeof path, "%s/%s" SNRQ_STAGING_SUFFIX, s->directory, s->names[i]);
        if (length > 0 && (size_t)length < sizeof path) unlink(path);
        char *slash = length > 0 && strchr(s->names[i], '/') != NULL ? strrchr(path, '/') : NULL;
        if (slash != NULL) {
            *slash = '\0';
            rmdir(path); /* unless something was published in it */
        }
        free(s->names[i]);
    }
    free(s->names);
    free(s);
    *staging = NULL;
}
