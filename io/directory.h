/* What is in a directory. */
#ifndef SNRQ_DIRECTORY_H
#define SNRQ_DIRECTORY_H

#include <stdbool.h>

#include "mpi/status.h"

/* Names in a directory, without "." and "..", in order of name. *names [*count] is allocated, every
 * name too; release with snrq_names_free(). SNRQ_NO_INPUT if it cannot be read. */
snrq_status snrq_directory_names(const char *directory, char ***names, int *count);
void snrq_names_free(char ***names, int count);

/* Makes one directory, unless it is there already. SNRQ_CANNOT_WRITE says why not, and what to do.
 */
snrq_status snrq_directory_make(const char *directory);

/* True if DIRECTORY/NAME is a regular file (not a link to one). */
bool snrq_is_plain_file(const char *directory, const char *name);

/* True if `name` ends with `end`. */
bool snrq_ends_with(const char *name, const char *end);

/* Removes the files that is_meant(user, name) is true of, durably. SNRQ_IO_ERROR if one cannot be
 * removed. */
typedef bool snrq_name_test(const void *user, const char *name);
snrq_status snrq_directory_remove(const char *directory, snrq_name_test *is_meant,
                                  const void *user);

#endif
