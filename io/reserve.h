/* Room on a file system, claimed before it is needed. */
#ifndef SNRQ_RESERVE_H
#define SNRQ_RESERVE_H

#include <stdint.h>

#include "mpi/status.h"

/* Makes sure that `path` (created if it is missing) can grow to `bytes` bytes: the space is
 * allocated where the file system can do so, else its free space is looked at. SNRQ_CANNOT_WRITE if
 * the file cannot be opened or there is no room (disk, quota or file size limit). Not collective.
 */
snrq_status snrq_reserve(const char *path, int64_t bytes);

#endif
