/* Room on a file system; see reserve.h. */
#define _GNU_SOURCE /* fallocate, which unlike posix_fallocate never writes zeros by itself */
#include "io/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static snrq_status no_room(const char *path, int64_t bytes, const char *reason)
{
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: no room for %.1f MB (%s): make room, or choose a directory on another "
                     "file system, and run again",
                     path, (double)bytes / 1e6, reason);
}

snrq_status snrq_reserve(const char *path, int64_t bytes)
{
    struct statvfs system;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be created: %s", path, strerror(errno));
    int failed = bytes > 0 && fallocate(fd, 0, 0, bytes) != 0 ? errno : 0;
    int known = fstatvfs(fd, &system) == 0 && system.f_blocks > 0;
    close(fd);
    switch (failed) {
    case 0:
        return SNRQ_OK;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return no_room(path, bytes, strerror(failed));
    default:
        break; /* not supported here: the best that is left is to look at the free space */
    }
    if (known && (double)system.f_bavail * (double)system.f_frsize < (double)bytes)
        return no_room(path, bytes, strerror(ENOSPC));
    return SNRQ_OK;
}
