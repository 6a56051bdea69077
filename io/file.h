/* Whole files: read, write atomically, hash, make durable. */
#ifndef SNRQ_FILE_H
#define SNRQ_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

/* What it means that open() failed with this errno: SNRQ_NO_INPUT if there is no such file for this
 * user, SNRQ_IO_ERROR if the file system or the system fails. */
snrq_status snrq_open_status(int error);

/* Opens a regular file for reading and tells its size. The caller closes *fd. As
 * snrq_open_status() if it cannot be opened (a link that leads nowhere is named with its target),
 * SNRQ_BAD_DATA if it is no regular file (a FIFO is not
 * waited for). */
snrq_status snrq_file_open(const char *path, int *fd, uint64_t *bytes);

/* Reads exactly `bytes` bytes from `offset` of an open file; `path` is for messages. SNRQ_IO_ERROR
 * if reading fails or the file ends too early. */
snrq_status snrq_file_read_at(int fd, const char *path, uint64_t offset, void *out, size_t bytes);

/* Writes `bytes` bytes at `offset` of an open file. SNRQ_IO_ERROR if that fails (disk full, quota).
 */
snrq_status snrq_file_write_at(int fd, const char *path, uint64_t offset, const void *data,
                               size_t bytes);

/* Writes `bytes` bytes where the file, pipe or device stands. SNRQ_IO_ERROR if that fails. */
snrq_status snrq_file_write_open(int fd, const char *path, const void *data, size_t bytes);

/* Makes what was written to an open file durable. */
snrq_status snrq_file_sync_open(int fd, const char *path);

/* Reads a whole regular file, at most `limit` bytes. *data is allocated, followed by a NUL that is
 * not counted. As snrq_file_open() if it cannot be opened; SNRQ_BAD_DATA if it is larger than
 * `limit`. */
snrq_status snrq_file_read(const char *path, size_t limit, char **data, size_t *bytes);

/* Writes a whole new file and makes its content durable. SNRQ_CANNOT_WRITE if it cannot be created,
 * SNRQ_IO_ERROR if writing fails; the caller then removes what is there. */
snrq_status snrq_file_write(const char *path, const void *data, size_t bytes);

/* Lets the system drop what it holds of an open file in memory, where it can. */
void snrq_file_forget(int fd);

/* Replaces `path` atomically: PATH.tmp, write, fsync, rename, fsync of the directory. On failure
 * the old file is untouched and the temporary one removed. For files in a directory of the
 * program's own; user_output.h is for those that a user names. */
snrq_status snrq_file_replace(const char *path, const void *data, size_t bytes);

/* Appends and fsyncs; a missing file is created. A failed append is undone (the file is cut back to
 * its old size). */
snrq_status snrq_file_append(const char *path, const void *data, size_t bytes);

/* fsync of a file, of the directory that holds it. */
snrq_status snrq_file_sync(const char *path);
snrq_status snrq_directory_sync(const char *directory);

/* Joins DIRECTORY/NAME into out [size]; SNRQ_USAGE if it does not fit. */
snrq_status snrq_path_join(const char *directory, const char *name, char *out, size_t size);

/* Is this the beginning of a git-lfs pointer, which stands for a file that was not fetched? */
bool snrq_is_lfs_pointer(const char *data, size_t bytes);
/* SNRQ_BAD_DATA that says so of `path`. */
snrq_status snrq_lfs_pointer_refuse(const char *path);

/* XXH3-128 of `data`, of a whole file (and its size), as 32 hex digits and a NUL. */
void snrq_hash(const void *data, size_t bytes, char out[33]);
snrq_status snrq_file_hash(const char *path, char out[33], uint64_t *bytes);

#endif
