/* Whole files; see file.h.
 *
 * Every loop here survives EINTR and short transfers. A message names the file, the call that
 * failed and the system's reason.
 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* Linux transfers at most 2 GiB - 4 KiB per call; some network file systems do badly near that. */
enum { MAX_TRANSFER = 1 << 30, HASH_BUFFER = 4 << 20 };

snrq_status snrq_open_status(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case ELOOP:
    case ENXIO:
    case ENAMETOOLONG:
        return SNRQ_NO_INPUT;
    default:
        return SNRQ_IO_ERROR;
    }
}

/* A file that is not there. Downloads are often directories of links. */
static snrq_status refuse_to_open(const char *path, int error)
{
    char target[PATH_MAX];
    ssize_t length = error == ENOENT ? readlink(path, target, sizeof target - 1) : -1;
    if (length < 0)
        return snrq_fail(snrq_open_status(error), "%s: cannot be opened: %s", path,
                         strerror(error));
    target[length] = '\0';
    return snrq_fail(SNRQ_NO_INPUT,
                     "%s: is a link to %s, which does not exist: copy the files that links lead to "
                     "along (cp -L), or download them again",
                     path, target);
}

snrq_status snrq_file_open(const char *path, int *fd, uint64_t *bytes)
{
    /* O_NONBLOCK: opening a FIFO by mistake must not wait for its writer. */
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (opened < 0) return refuse_to_open(path, errno);
    struct stat facts;
    if (fstat(opened, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        close(opened);
        return snrq_fail(SNRQ_BAD_DATA, "%s: expected a regular file, found a directory or device",
                         path);
    }
    *fd = opened;
    *bytes = (uint64_t)facts.st_size;
    return SNRQ_OK;
}

snrq_status snrq_file_read_at(int fd, const char *path, uint64_t offset, void *out, size_t bytes)
{
    char *to = out;
    size_t done = 0;
    while (done < bytes) {
        size_t chunk = bytes - done < MAX_TRANSFER ? bytes - done : MAX_TRANSFER;
        ssize_t got = pread(fd, to + done, chunk, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return snrq_fail(SNRQ_IO_ERROR, "%s: reading failed at byte %" PRIu64 ": %s", path,
                             offset + done, strerror(errno));
        if (got == 0)
            return snrq_fail(SNRQ_IO_ERROR,
                             "%s: the file ends at byte %" PRIu64
                             ", %zu bytes too early (was it cut "
                             "while in use?)",
                             path, offset + done, bytes - done);
        done += (size_t)got;
    }
    return SNRQ_OK;
}

snrq_status snrq_file_write_at(int fd, const char *path, uint64_t offset, const void *data,
                               size_t bytes)
{
    const char *from = data;
    size_t done = 0;
    while (done < bytes) {
        size_t chunk = bytes - done < MAX_TRANSFER ? bytes - done : MAX_TRANSFER;
        ssize_t put = pwrite(fd, from + done, chunk, (off_t)(offset + done));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0)
            return snrq_fail(SNRQ_IO_ERROR,
                             "%s: writing failed at byte %" PRIu64 ", after %zu of %zu bytes: %s",
                             path, offset + done, done, bytes, strerror(errno));
        done += (size_t)put;
    }
    return SNRQ_OK;
}

snrq_status snrq_file_read(const char *path, size_t limit, char **data, size_t *bytes)
{
    *data = NULL;
    *bytes = 0;
    int fd;
    uint64_t size;
    SNRQ_TRY(snrq_file_open(path, &fd, &size));
    char *content = NULL;
    snrq_status status = SNRQ_OK;
    if (size > limit || size >= SIZE_MAX)
        status = snrq_fail(SNRQ_BAD_DATA, "%s: %" PRIu64 " bytes, expected at most %zu", path, size,
                           limit);
    if (status == SNRQ_OK) status = snrq_allocate((size_t)size + 1, 1, path, &content);
    if (status == SNRQ_OK) status = snrq_file_read_at(fd, path, 0, content, (size_t)size);
    close(fd);
    if (status != SNRQ_OK) {
        free(content);
        return status;
    }
    *data = content;
    *bytes = (size_t)size;
    return SNRQ_OK;
}

snrq_status snrq_file_write_open(int fd, const char *path, const void *data, size_t bytes)
{
    const char *from = data;
    size_t done = 0;
    while (done < bytes) {
        size_t chunk = bytes - done < MAX_TRANSFER ? bytes - done : MAX_TRANSFER;
        ssize_t put = write(fd, from + done, chunk);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && errno == EAGAIN) { /* a pipe that was given as one that does not wait */
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            (void)poll(&wait, 1, -1);
            continue;
        }
        if (put < 0)
            return snrq_fail(SNRQ_IO_ERROR, "%s: writing failed after %zu of %zu bytes: %s", path,
                             done, bytes, strerror(errno));
        done += (size_t)put;
    }
    return SNRQ_OK;
}

snrq_status snrq_file_sync_open(int fd, const char *path)
{
    int result;
    do result = fsync(fd);
    while (result != 0 && errno == EINTR);
    if (result != 0) return snrq_fail(SNRQ_IO_ERROR, "%s: fsync failed: %s", path, strerror(errno));
    return SNRQ_OK;
}

/* The directory part of `path`, as far as it fits. */
static snrq_status parent_sync(const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    if (length >= sizeof directory)
        return snrq_fail(SNRQ_USAGE, "%s: the path is longer than %d bytes", path, PATH_MAX);
    if (slash == NULL) {
        strcpy(directory, ".");
    } else if (length == 0) {
        strcpy(directory, "/");
    } else {
        memcpy(directory, path, length);
        directory[length] = '\0';
    }
    return snrq_directory_sync(directory);
}

snrq_status snrq_file_write(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be created: %s", path, strerror(errno));
    snrq_status status = snrq_file_write_open(fd, path, data, bytes);
    if (status == SNRQ_OK) status = snrq_file_sync_open(fd, path);
    /* Network file systems report a full quota here. */
    if (close(fd) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_IO_ERROR, "%s: closing failed: %s", path, strerror(errno));
    return status;
}

snrq_status snrq_file_replace(const char *path, const void *data, size_t bytes)
{
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return snrq_fail(SNRQ_USAGE, "%s: the path is longer than %d bytes", path, PATH_MAX - 5);
    snrq_status status = snrq_file_write(temporary, data, bytes);
    if (status == SNRQ_OK && rename(temporary, path) != 0)
        status = snrq_fail(errno == EISDIR ? SNRQ_CANNOT_WRITE : SNRQ_IO_ERROR,
                           "%s: cannot be renamed to %s: %s", temporary, path, strerror(errno));
    if (status != SNRQ_OK) {
        unlink(temporary);
        return status;
    }
    return parent_sync(path);
}

snrq_status snrq_file_append(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (fd < 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be opened for appending: %s", path,
                         strerror(errno));
    struct stat facts;
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        close(fd);
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot append: not a regular file", path);
    }
    snrq_status status = snrq_file_write_open(fd, path, data, bytes);
    if (status == SNRQ_OK) status = snrq_file_sync_open(fd, path);
    if (status != SNRQ_OK && (ftruncate(fd, facts.st_size) != 0 || fsync(fd) != 0))
        status =
            snrq_fail(SNRQ_IO_ERROR,
                      "%s; the part already written could not be taken back (%s): cut the file "
                      "to %lld bytes",
                      snrq_error_message(), strerror(errno), (long long)facts.st_size);
    close(fd);
    /* The first append may have created the file: then its name must last, too. */
    if (status == SNRQ_OK && facts.st_size == 0) status = parent_sync(path);
    return status;
}

snrq_status snrq_file_sync(const char *path)
{
    int fd;
    uint64_t bytes;
    SNRQ_TRY(snrq_file_open(path, &fd, &bytes));
    snrq_status status = snrq_file_sync_open(fd, path);
    close(fd);
    return status;
}

snrq_status snrq_directory_sync(const char *directory)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return snrq_fail(snrq_open_status(errno), "%s: cannot be opened as a directory: %s",
                         directory, strerror(errno));
    int result;
    do result = fsync(fd);
    while (result != 0 && errno == EINTR);
    int cause = errno;
    close(fd);
    /* Some file systems have no such thing as syncing a directory and say EINVAL; nothing is lost.
     */
    if (result != 0 && cause != EINVAL)
        return snrq_fail(SNRQ_IO_ERROR, "%s: fsync of the directory failed: %s", directory,
                         strerror(cause));
    return SNRQ_OK;
}

snrq_status snrq_path_join(const char *directory, const char *name, char *out, size_t size)
{
    size_t length = strlen(directory);
    const char *between = length > 0 && directory[length - 1] != '/' ? "/" : "";
    int written = snprintf(out, size, "%s%s%s", directory, between, name);
    if (written < 0 || (size_t)written >= size)
        return snrq_fail(SNRQ_USAGE, "%s%s%s: the path is longer than %zu bytes", directory,
                         between, name, size);
    return SNRQ_OK;
}

bool snrq_is_lfs_pointer(const char *data, size_t bytes)
{
    static const char start[] = "version https://git-lfs.github.com/spec/";
    return bytes >= sizeof start - 1 && memcmp(data, start, sizeof start - 1) == 0;
}

snrq_status snrq_lfs_pointer_refuse(const char *path)
{
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: is a git-lfs pointer, which stands for a file that was not fetched; run "
                     "`git lfs pull` there, or download the file itself",
                     path);
}

static void to_hex(XXH128_hash_t hash, char out[33])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    for (size_t i = 0; i < sizeof canonical.digest; i++)
        snprintf(out + 2 * i, 3, "%02x", canonical.digest[i]);
}

void snrq_hash(const void *data, size_t bytes, char out[33])
{
    to_hex(XXH3_128bits(data, bytes), out);
}

snrq_status snrq_file_hash(const char *path, char out[33], uint64_t *bytes)
{
    int fd;
    uint64_t size;
    SNRQ_TRY(snrq_file_open(path, &fd, &size));
    unsigned char *buffer = NULL;
    XXH3_state_t *state = XXH3_createState();
    snrq_status status =
        state != NULL ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "cannot allocate a hash");
    size_t room = size < HASH_BUFFER ? (size_t)size : HASH_BUFFER;
    if (status == SNRQ_OK) status = snrq_allocate_scratch(room, 1, "hash buffer", &buffer);
    if (status == SNRQ_OK) XXH3_128bits_reset(state);
    for (uint64_t done = 0; status == SNRQ_OK && done < size;) {
        size_t chunk = size - done < HASH_BUFFER ? (size_t)(size - done) : HASH_BUFFER;
        status = snrq_file_read_at(fd, path, done, buffer, chunk);
        if (status == SNRQ_OK) XXH3_128bits_update(state, buffer, chunk);
        done += chunk;
    }
    if (status == SNRQ_OK) {
        to_hex(XXH3_128bits_digest(state), out);
        *bytes = size;
    }
    XXH3_freeState(state);
    free(buffer);
    close(fd);
    return status;
}

void snrq_file_forget(int fd)
{
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
#else
    (void)fd;
#endif
}
