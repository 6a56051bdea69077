/* Activations that a run keeps beside its output; see snrq_output_keep(). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/checkpoint/output_internal.h"
#include "io/directory.h"
#include "io/file.h"
#include "mpi/collective.h"

static const char prefix[] = "activations-";

void snrq_output_kept_name(int64_t block, char out[40])
{
    snprintf(out, 40, "%s%05lld.h5", prefix, (long long)block);
}

int64_t snrq_output_kept_block(const char *name)
{
    char expected[40];
    long long block = -1;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return -1;
    if (sscanf(name + sizeof prefix - 1, "%9lld", &block) != 1 || block < 0) return -1;
    snrq_output_kept_name(block, expected);
    return strcmp(name, expected) == 0 ? block : -1;
}

/* A kept file, but not the one of the name `but` (NULL: any). */
static bool is_other(const void *but, const char *name)
{
    return snrq_output_kept_block(name) >= 0 && (but == NULL || strcmp(name, but) != 0);
}

/* Rank 0. */
static snrq_status rename_kept(snrq_output *output, const char *name)
{
    char path[PATH_MAX];
    const char *temporary = snrq_output_temporary(output, name);
    SNRQ_TRY(snrq_lock_check(output->lock));
    SNRQ_TRY(snrq_path_join(output->directory, name, path, sizeof path));
    if (rename(temporary, path) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed: %s", temporary, strerror(errno));
    SNRQ_TRY(snrq_directory_sync(output->directory));
    return snrq_directory_remove(output->directory, is_other, name);
}

snrq_status snrq_output_keep(snrq_output *output, int64_t block)
{
    char name[40];
    snrq_output_kept_name(block, name);
    snrq_status status = snrq_output_sync(output, name);
    if (status == SNRQ_OK && output->context->rank == 0) status = rename_kept(output, name);
    status = snrq_agree(output->context, status);
    if (status != SNRQ_OK && output->context->rank == 0)
        unlink(snrq_output_temporary(output, name));
    return status;
}

snrq_status snrq_output_kept(const snrq_output *output, int64_t last, int64_t *block)
{
    const snrq_context *context = output->context;
    char **names = NULL;
    int count = 0;
    snrq_status status = SNRQ_OK;
    *block = -1;
    if (context->rank == 0) status = snrq_directory_names(output->directory, &names, &count);
    for (int i = 0; i < count; i++) {
        int64_t found = snrq_output_kept_block(names[i]);
        if (found <= last && found > *block) *block = found;
    }
    snrq_names_free(&names, count);
    SNRQ_TRY(snrq_agree(context, status));
    return snrq_broadcast(context, block, sizeof *block);
}

snrq_status snrq_output_drop_kept(snrq_output *output)
{
    snrq_status status = SNRQ_OK;
    if (output->context->rank == 0) {
        status = snrq_lock_check(output->lock);
        if (status == SNRQ_OK) status = snrq_directory_remove(output->directory, is_other, NULL);
    }
    return snrq_agree(output->context, status);
}
