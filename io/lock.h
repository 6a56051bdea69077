/* A lock file: keeps two jobs out of one output directory.
 *
 * The file says who holds it: {"heartbeat", "host", "job", "pid", "started", "process", "restart"};
 * times are
 * seconds since 1970, "process" is the start time of the process, so that a number used again is
 * not taken for the old process; "restart" counts how often Slurm has requeued the job. It is
 * stale, and taken over, if that process is gone from this host, if it belongs to an earlier start
 * of the same job, or if it is on another host and its heartbeat is older than ten minutes. A
 * thread renews the heartbeat every 30 seconds, however long a step takes. The file
 * appears with its content, by a hard link. Not a guarantee on file systems that know neither hard
 * links nor O_EXCL, and no defence against intent.
 */
#ifndef SNRQ_LOCK_H
#define SNRQ_LOCK_H

#include <stdbool.h>

#include "mpi/status.h"

typedef struct snrq_lock snrq_lock;

/* Takes the lock at `path`. SNRQ_CANNOT_WRITE and who holds it, if somebody does, or if the file
 * cannot be made. Notes on stderr that a stale lock was taken over. Not collective: one rank calls
 * it. */
snrq_status snrq_lock_take(const char *path, snrq_lock **out);

/* SNRQ_CANNOT_WRITE if somebody else has taken the lock over meanwhile, SNRQ_IO_ERROR if that
 * cannot be read: ask before anything is written that cannot be taken back. Not collective. */
snrq_status snrq_lock_check(const snrq_lock *lock);

/* The same for a process that did not take the lock itself, but was told who did. */
typedef struct snrq_lock_owner {
    char host[256];
    long long pid, process, started;
} snrq_lock_owner;
void snrq_lock_tell_owner(const snrq_lock *lock, snrq_lock_owner *out);
snrq_status snrq_lock_check_owner(const char *path, const snrq_lock_owner *owner);

/* Removes the file, unless somebody else has taken it over, frees and sets *lock to NULL. A file
 * that cannot be removed is a warning on stderr: it is stale. */
void snrq_lock_release(snrq_lock **lock);

/* Who holds the lock at a path. */
typedef struct snrq_lock_facts {
    bool found, known; /* there is a lock file; it says who holds it */
    bool stale;        /* it would be taken over */
    char host[256], job[64];
    long long pid, silent; /* seconds since the last heartbeat */
    long long started;     /* when it was taken: seconds since 1970 */
} snrq_lock_facts;
snrq_status snrq_lock_look(const char *path, snrq_lock_facts *out);

/* What snrq_lock_take() would say, after snrq_lock_force() if `force`; changes nothing. Not
 * collective. */
snrq_status snrq_lock_try(const char *path, bool force);

/* Removes a lock whoever holds it, with a note on stderr; no lock is no error. SNRQ_CANNOT_WRITE if
 * its process is alive on this host: that one can be ended. Not collective. */
snrq_status snrq_lock_force(const char *path);

#endif
