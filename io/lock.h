/* A lock file: keeps two jobs out of one output directory.
 *
 * The file says who holds it: {"heartbeat", "host", "job", "pid", "started", "process"}; times are
 * seconds since 1970, "process" is the start time of the process, so that a number used again is
 * not taken for the old process. It is stale, and taken over, if that process is gone from this
 * host, or if it is on another host and its heartbeat is older than ten minutes. Not a guarantee on
 * file systems that do not know O_EXCL, and no defence against intent.
 */
#ifndef SNRQ_LOCK_H
#define SNRQ_LOCK_H

#include "mpi/status.h"

typedef struct snrq_lock snrq_lock;

/* Takes the lock at `path`. SNRQ_CANNOT_WRITE and who holds it, if somebody does, or if the file
 * cannot be made. Notes on stderr that a stale lock was taken over. Not collective: one rank calls
 * it. */
snrq_status snrq_lock_take(const char *path, snrq_lock **out);

/* Tells others that the holder lives, at most every 30 seconds. SNRQ_CANNOT_WRITE if somebody else
 * has taken the lock over meanwhile. */
snrq_status snrq_lock_heartbeat(snrq_lock *lock);

/* Removes the file, unless somebody else has taken it over, frees and sets *lock to NULL. */
void snrq_lock_release(snrq_lock **lock);

#endif
