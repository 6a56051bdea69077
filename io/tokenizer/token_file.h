/* Token ids in files: raw little-endian int32, or .npy of any integer type.
 *
 * A raw file does not say what it holds. What looks like ids of another type is refused, with the
 * type it looks like and how to convert it: such ids would be read as others, silently.
 */
#ifndef SNRQ_TOKEN_FILE_H
#define SNRQ_TOKEN_FILE_H

#include <stdint.h>

#include "mpi/status.h"

/* Reads the ids of a file, all in [0, vocabulary). .npy: of one dimension, or [n, length], whose
 * rows follow each other. *ids is allocated; the caller frees it. Not collective. SNRQ_BAD_DATA
 * says what is wrong and where. */
snrq_status snrq_token_file(const char *path, int64_t vocabulary, int32_t **ids, int64_t *count);

#endif
