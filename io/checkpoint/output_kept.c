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

/* Activations after any of these blocks, but not after `but` (-1: any). */
struct others {
    snrq_range blocks;
    int64_t but;
};

static bool is_other(const void *user, const char *name)
{
    const struct others *o = user;
    int64_t block = snrq_output_kept_block(name);
    return block >= o->blocks.begin && block < o->blocks.end && block != o->but;
}

/* Rank 0 of the context. */
static snrq_status rename_kept(snrq_output *output, snrq_range blocks, int64_t block,
                               const char *name)
{
    struct others others = {blocks, block};
    char path[PATH_MAX];
    const char *temporary = snrq_output_temporary(output, name);
    SNRQ_TRY(snrq_output_check_lock(output));
    SNRQ_TRY(snrq_path_join(output->directory, name, path, sizeof path));
    if (rename(temporary, path) != 0)
        return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be renamed: %s", temporary, strerror(errno));
    SNRQ_TRY(snrq_directory_sync(output->directory));
    return snrq_directory_remove(output->directory, is_other, &others);
}

snrq_status snrq_output_keep(snrq_output *output, const snrq_context *context, snrq_range blocks,
                             int64_t block)
{
    char name[40];
    snrq_output_kept_name(block, name);
    snrq_status status = snrq_output_sync(output, context, name);
    if (status == SNRQ_OK && context->rank == 0) status = rename_kept(output, blocks, block, name);
    status = snrq_agree(context, status);
    if (status != SNRQ_OK && context->rank == 0) unlink(snrq_output_temporary(output, name));
    return status;
}

snrq_status snrq_output_kept(const snrq_output *output, const snrq_context *context,
                             snrq_range blocks, int64_t *block)
{
    char **names = NULL;
    int count = 0;
    snrq_status status = SNRQ_OK;
    *block = -1;
    if (context->rank == 0) status = snrq_directory_names(output->directory, &names, &count);
    for (int i = 0; i < count; i++) {
        int64_t found = snrq_output_kept_block(names[i]);
        if (found >= blocks.begin && found < blocks.end && found > *block) *block = found;
    }
    snrq_names_free(&names, count);
    SNRQ_TRY(snrq_agree(context, status));
    return snrq_broadcast(context, block, sizeof *block);
}

snrq_status snrq_output_drop_kept(snrq_output *output, const snrq_context *context,
                                  snrq_range blocks)
{
    struct others all = {blocks, -1};
    snrq_status status = SNRQ_OK;
    if (context->rank == 0) {
        status = snrq_output_check_lock(output);
        if (status == SNRQ_OK) status = snrq_directory_remove(output->directory, is_other, &all);
    }
    return snrq_agree(context, status);
}
