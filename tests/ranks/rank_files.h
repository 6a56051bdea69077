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

/* From one byte whose bit is flipped to the next. Sanitizers make every call of HDF5 twenty times
 * as slow. */
#ifdef __SANITIZE_ADDRESS__
enum { FLIP_STEP = 15 };
#else
enum { FLIP_STEP = 1 };
#endif

/* Damages bytes of a file and reads it, in a child process, because that may crash or hang:
 * work writes the number of each byte to `progress` before it damages it, and calls _exit(). */
typedef void flip_work(const char *path, long end, int progress);
static inline void flip_in_child(flip_work *work, const char *path)
{
    long at = -1, end = file_size(path);
    int ends[2], result = 0;
    CU_ASSERT_EQUAL(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        work(path, end, ends[1]);
    }
    close(ends[1]);
    for (long now; read(ends[0], &now, sizeof now) == (ssize_t)sizeof now;) at = now;
    close(ends[0]);
    CU_ASSERT_EQUAL(waitpid(child, &result, 0), child);
    if (result != 0) fprintf(stderr, "byte %ld of %ld: wait status %d\n", at, end, result);
    CU_ASSERT_EQUAL(result, 0);
    CU_ASSERT_TRUE(at >= end - FLIP_STEP);
}

#endif
