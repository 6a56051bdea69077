/* The files that a user names: where output goes, and how.
 *
 * - A regular file, or a name that is free, is written under a name of its own (.snrq-..., in the
 *   same directory) and takes its name when it is complete: an old file stays as it is until then,
 *   and keeps its mode. A symbolic link leads to the file that it names, there or not.
 * - Standard output ("-", or whatever is the same file), descriptors (/dev/stdout, /dev/fd/3),
 *   pipes and character devices are written to as they are. A pipe without a reader is waited for.
 * - Directories, disks (block devices) and sockets are refused, and so is a file that the command
 *   reads: the same file, by whatever name.
 */
#ifndef SNRQ_USER_OUTPUT_H
#define SNRQ_USER_OUTPUT_H

#include <limits.h>
#include <stdio.h>

#include "mpi/status.h"

typedef struct snrq_user_output snrq_user_output;

/* Finds out where `path` leads and whether it can be written, before any work is done for it.
 * `inputs` are the `count` paths that the command reads, NULL where there is none; of a directory,
 * the files in it. Leaves nothing behind, but keeps what is no regular file open. SNRQ_CANNOT_WRITE
 * if it cannot be written, SNRQ_USAGE if it is an input; the message says why and what to do. Not
 * collective: for one rank. The caller closes *out. */
snrq_status snrq_user_output_open(const char *path, const char *const *inputs, int count,
                                  snrq_user_output **out);

/* The path as the user wrote it, for messages. Borrowed. */
const char *snrq_user_output_path(const snrq_user_output *output);

/* Where the command's answer goes: standard output, or standard error if the former takes the
 * file's bytes. */
FILE *snrq_user_output_answers(const snrq_user_output *output);

/* Writes the whole content, once; a file is durable then. On failure an old file is as it was and
 * nothing new is there. SNRQ_CANNOT_WRITE or SNRQ_IO_ERROR. */
snrq_status snrq_user_output_write(snrq_user_output *output, const void *data, size_t bytes);

/* For content that others write, at places of their choice: makes path [PATH_MAX] the name of an
 * empty file that takes the output's name by snrq_user_output_publish(), once it is durable, or is
 * removed by snrq_user_output_discard(). SNRQ_CANNOT_WRITE where the output is no regular file. */
snrq_status snrq_user_output_stage(const snrq_user_output *output, char path[PATH_MAX]);
snrq_status snrq_user_output_publish(const snrq_user_output *output, const char *path);
void snrq_user_output_discard(const char *path);

/* Frees and sets *output to NULL (nothing is done for NULL). */
void snrq_user_output_close(snrq_user_output **output);

/* Can files be made in `directory`, or the directory itself? SNRQ_CANNOT_WRITE says why not.
 * Changes nothing. Not collective. */
snrq_status snrq_user_directory_check(const char *directory);

#endif
