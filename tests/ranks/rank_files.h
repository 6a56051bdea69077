/* Files for the tests of ranks/: one scratch directory for all ranks, hashes, bit flips.
 *
 * rank_files_begin() and rank_files_end() are collective; each test that needs files calls both.
 */
#ifndef RANK_FILES_H
#define RANK_FILES_H

#include <sys/wait.h>

#include "io/file.h"
#include "mpi/collective.h"
#include "tests/ranks/rank_test.h"
#include "tests/unit/test_files.h"

static inline void rank_files_begin(void)
{
    if (rank_test_world->rank == 0) scratch();
    MPI_Bcast(scratch_root, (int)sizeof scratch_root, MPI_BYTE, 0, rank_test_world->comm);
}

static inline void rank_files_end(void)
{
    MPI_Barrier(rank_test_world->comm);
    if (rank_test_world->rank == 0) scratch_remove();
    scratch_root[0] = '\0';
}

static inline bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Inverts one bit of a file. */
static inline void flip_bit(const char *path, long at, int bit)
{
    FILE *file = fopen(path, "r+b");
    int byte = -1;
    if (file != NULL && fseek(file, at, SEEK_SET) == 0) byte = fgetc(file);
    if (byte >= 0 && fseek(file, at, SEEK_SET) == 0) fputc(byte ^ (1 << bit), file);
    CU_ASSERT_FALSE(file == NULL || byte < 0 || fclose(file) != 0);
}

static inline long file_size(const char *path)
{
    struct stat facts;
    return stat(path, &facts) == 0 ? (long)facts.st_size : -1;
}

static inline void copy_whole_file(const char *from, const char *to)
{
    char *data = NULL;
    size_t bytes = 0;
    FILE *file = fopen(to, "wb");
    CU_ASSERT_EQUAL(snrq_file_read(from, 1 << 30, &data, &bytes), SNRQ_OK);
    CU_ASSERT_FALSE(file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0);
    free(data);
}

#endif
