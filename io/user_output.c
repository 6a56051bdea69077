/* Files that a user names; see user_output.h. */
#define _XOPEN_SOURCE 700 /* realpath, S_ISVTX */
#include "io/user_output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/directory.h"
#include "io/file.h"
#include "mpi/log.h"

enum { MAX_LINKS = 40, NAME_ATTEMPTS = 100 };

struct snrq_user_output {
    const char *path;         /* borrowed: as the user wrote it */
    char target[PATH_MAX];    /* where it leads */
    int fd;                   /* what is written to as it is; -1: a regular file, or none yet */
    bool there, takes_stdout; /* is the target there? is it standard output? */
    struct stat facts;        /* of the target, if it is there */
};

/* The directory part of `path`. */
static snrq_status parent_of(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (length >= PATH_MAX)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: the path is longer than %d bytes", path, PATH_MAX);
    memcpy(out, slash == NULL ? "." : path, slash == NULL ? 1 : length);
    out[slash == NULL ? 1 : length] = '\0';
    return SNRQ_OK;
}

/* ---- where a path leads ---- */

/* N of "/dev/fd/N", "/proc/self/fd/N" and what leads there; else -1. */
static int descriptor_of(const char *path)
{
    char parent[PATH_MAX], found[PATH_MAX], own[PATH_MAX], *end = NULL;
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash[1] < '0' || slash[1] > '9') return -1;
    long number = strtol(slash + 1, &end, 10);
    if (*end != '\0' || number > INT_MAX || parent_of(path, parent) != SNRQ_OK) return -1;
    if (realpath(parent, found) == NULL || realpath("/proc/self/fd", own) == NULL) return -1;
    return strcmp(found, own) == 0 ? (int)number : -1;
}

/* Replaces the link `path` by what it names; *is_link: it was one. A link to a pipe or device is
 * left to the system: in /proc it may name nothing that could be found. */
static snrq_status follow_link(char path[PATH_MAX], bool *is_link)
{
    char name[PATH_MAX], parent[PATH_MAX];
    struct stat facts;
    bool is_stream = stat(path, &facts) == 0 && !S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode);
    *is_link = !is_stream && lstat(path, &facts) == 0 && S_ISLNK(facts.st_mode);
    if (!*is_link) return SNRQ_OK;
    ssize_t length = readlink(path, name, sizeof name - 1);
    if (length < 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: the link cannot be read: %s", path,
                         strerror(errno));
    name[length] = '\0';
    SNRQ_TRY(parent_of(path, parent));
    if (name[0] == '/') return snrq_path_join("", name, path, PATH_MAX);
    return snrq_path_join(parent, name, path, PATH_MAX);
}

/* Follows links up to a descriptor of this process or a name that is no link. */
static snrq_status find_target(snrq_user_output *o, int *descriptor)
{
    bool is_link = true;
    *descriptor = -1;
    if (strcmp(o->path, "-") == 0) *descriptor = STDOUT_FILENO;
    SNRQ_TRY(snrq_path_join("", o->path, o->target, PATH_MAX));
    for (int i = 0; is_link && *descriptor < 0; i++) {
        *descriptor = descriptor_of(o->target);
        if (*descriptor >= 0) return SNRQ_OK;
        if (i == MAX_LINKS)
            return snrq_fail(SNRQ_CANNOT_WRITE, "%s: links that lead in a circle", o->path);
        SNRQ_TRY(follow_link(o->target, &is_link));
    }
    return SNRQ_OK;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* A descriptor of this process, of its own. */
static snrq_status use_descriptor(snrq_user_output *o, int descriptor)
{
    int flags = fcntl(descriptor, F_GETFL);
    if (flags >= 0 && (flags & O_ACCMODE) == O_RDONLY) errno = EBADF;
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || fstat(descriptor, &o->facts) != 0 ||
        (o->fd = fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)) < 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be written: %s", o->path, strerror(errno));
    o->there = true;
    return SNRQ_OK;
}

/* ---- what is refused ---- */

static snrq_status refuse_input(const snrq_user_output *o, const char *input)
{
    return snrq_fail(SNRQ_USAGE,
                     "%s: is the same file as %s, which is read; choose another name for the "
                     "output",
                     o->path, input);
}

static snrq_status check_input(const snrq_user_output *o, const char *input)
{
    struct stat facts;
    char **names = NULL, path[PATH_MAX];
    int count = 0;
    if (stat(input, &facts) != 0) return SNRQ_OK; /* whoever reads it says so */
    if (S_ISREG(facts.st_mode) && is_same(&facts, &o->facts)) return refuse_input(o, input);
    if (!S_ISDIR(facts.st_mode) || snrq_directory_names(input, &names, &count) != SNRQ_OK)
        return SNRQ_OK;
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < count && status == SNRQ_OK; i++)
        if (snrq_path_join(input, names[i], path, sizeof path) == SNRQ_OK &&
            stat(path, &facts) == 0 && is_same(&facts, &o->facts))
            status = refuse_input(o, path);
    snrq_names_free(&names, count);
    return status;
}

static snrq_status check_kind(const snrq_user_output *o)
{
    mode_t mode = o->facts.st_mode;
    const char *kind = S_ISDIR(mode)    ? "a directory"
                       : S_ISBLK(mode)  ? "a block device (a disk)"
                       : S_ISSOCK(mode) ? "a socket"
                                        : NULL;
    if (kind == NULL || o->fd >= 0) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE, "%s: expected a name for a file, found %s", o->path, kind);
}

/* ---- opening ---- */

/* Opens a pipe or device; says so before it waits for the reader of a pipe. */
static snrq_status open_stream(snrq_user_output *o)
{
    const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY;
    o->fd = open(o->target, flags | O_NONBLOCK);
    if (o->fd < 0 && errno == ENXIO && S_ISFIFO(o->facts.st_mode)) {
        snrq_note_here("%s: waiting for a reader of this pipe", o->path);
        do o->fd = open(o->target, flags);
        while (o->fd < 0 && errno == EINTR);
    } else if (o->fd >= 0) {
        (void)fcntl(o->fd, F_SETFL, O_WRONLY);
    }
    if (o->fd >= 0) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be opened: %s", o->path, strerror(errno));
}

/* Creates a file that was not there in the target's directory. */
static snrq_status create_own(const snrq_user_output *o, char name[PATH_MAX], int *fd)
{
    char parent[PATH_MAX], own[64];
    struct timespec now = {0};
    SNRQ_TRY(parent_of(o->target, parent));
    for (int i = 0; i < NAME_ATTEMPTS; i++) {
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(own, sizeof own, ".snrq-%lld-%09ld.tmp", (long long)getpid(), now.tv_nsec);
        SNRQ_TRY(snrq_path_join(parent, own, name, PATH_MAX));
        *fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (*fd >= 0) return SNRQ_OK;
        if (errno != EEXIST) break;
    }
    if (errno == ENOENT || errno == ENOTDIR)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: there is no directory %s; make it first", o->path,
                         parent);
    return snrq_fail(errno == ENOSPC || errno == EDQUOT || errno == EIO ? SNRQ_IO_ERROR
                                                                        : SNRQ_CANNOT_WRITE,
                     "%s: no file can be made in %s: %s", o->path, parent, strerror(errno));
}

/* May the file that is there be replaced? In a directory like /tmp only its owner may. */
static snrq_status check_replaceable(const snrq_user_output *o)
{
    char parent[PATH_MAX];
    struct stat directory;
    SNRQ_TRY(parent_of(o->target, parent));
    if (faccessat(AT_FDCWD, o->target, W_OK, AT_EACCESS) != 0)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: the file that is there may not be written: %s",
                         o->path, strerror(errno));
    if (geteuid() == 0 || stat(parent, &directory) != 0 || (directory.st_mode & S_ISVTX) == 0 ||
        directory.st_uid == geteuid() || o->facts.st_uid == geteuid())
        return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: the file that is there belongs to another user; choose another name",
                     o->path);
}

static snrq_status try_file(const snrq_user_output *o)
{
    char name[PATH_MAX];
    int fd = -1;
    const char *base = strrchr(o->target, '/');
    base = base != NULL ? base + 1 : o->target;
    if (base[0] == '\0')
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: expected a name for a file", o->path);
    if (strlen(base) > NAME_MAX)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: the name is longer than %d bytes", o->path,
                         NAME_MAX);
    if (o->there) SNRQ_TRY(check_replaceable(o));
    SNRQ_TRY(create_own(o, name, &fd));
    close(fd);
    if (unlink(name) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be removed: %s", name, strerror(errno));
}

static snrq_status open_target(snrq_user_output *o, const char *const *inputs, int count)
{
    struct stat standard;
    int descriptor = -1;
    SNRQ_TRY(find_target(o, &descriptor));
    bool has_standard = fstat(STDOUT_FILENO, &standard) == 0;
    if (descriptor >= 0)
        SNRQ_TRY(use_descriptor(o, descriptor));
    else
        o->there = stat(o->target, &o->facts) == 0;
    for (int i = 0; i < count && o->there; i++)
        if (inputs[i] != NULL) SNRQ_TRY(check_input(o, inputs[i]));
    if (o->there) SNRQ_TRY(check_kind(o));
    o->takes_stdout = o->there && has_standard && is_same(&standard, &o->facts);
    if (o->fd >= 0) return SNRQ_OK;
    if (o->takes_stdout) return use_descriptor(o, STDOUT_FILENO);
    if (o->there && !S_ISREG(o->facts.st_mode)) return open_stream(o);
    return try_file(o);
}

snrq_status snrq_user_output_open(const char *path, const char *const *inputs, int count,
                                  snrq_user_output **out)
{
    SNRQ_TRY(snrq_allocate(1, sizeof **out, "output", out));
    **out = (snrq_user_output){.path = path, .fd = -1};
    snrq_status status = open_target(*out, inputs, count);
    if (status != SNRQ_OK) snrq_user_output_close(out);
    return status;
}

const char *snrq_user_output_path(const snrq_user_output *o)
{
    return o->path;
}

FILE *snrq_user_output_answers(const snrq_user_output *o)
{
    return o->takes_stdout ? stderr : stdout;
}

/* ---- writing ---- */

/* Owner and mode of the file that is replaced, as far as this user and the file system allow. */
static void keep_mode(const snrq_user_output *o, int fd)
{
    if (!o->there) return;
    int failed = fchown(fd, o->facts.st_uid, o->facts.st_gid);
    failed |= fchmod(fd, o->facts.st_mode & 07777);
    (void)failed;
}

static snrq_status replace_file(const snrq_user_output *o, const void *data, size_t bytes)
{
    char name[PATH_MAX];
    int fd = -1;
    SNRQ_TRY(create_own(o, name, &fd));
    keep_mode(o, fd);
    snrq_status status = snrq_file_write_open(fd, o->path, data, bytes);
    if (status == SNRQ_OK) status = snrq_file_sync_open(fd, o->path);
    /* Network file systems report a full quota here. */
    if (close(fd) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_IO_ERROR, "%s: closing failed: %s", o->path, strerror(errno));
    if (status == SNRQ_OK) return snrq_user_output_publish(o, name);
    unlink(name);
    return status;
}

snrq_status snrq_user_output_publish(const snrq_user_output *o, const char *path)
{
    char parent[PATH_MAX];
    snrq_status status = parent_of(o->target, parent);
    if (status == SNRQ_OK && rename(path, o->target) != 0)
        status = snrq_fail(errno == EISDIR ? SNRQ_CANNOT_WRITE : SNRQ_IO_ERROR,
                           "%s: cannot be renamed to %s: %s", path, o->target, strerror(errno));
    if (status == SNRQ_OK) return snrq_directory_sync(parent);
    unlink(path);
    return status;
}

snrq_status snrq_user_output_stage(const snrq_user_output *o, char path[PATH_MAX])
{
    int fd = -1;
    if (o->fd >= 0)
        return snrq_fail(SNRQ_CANNOT_WRITE,
                         "%s: expected a name for a file, which is not written from front to back",
                         o->path);
    SNRQ_TRY(create_own(o, path, &fd));
    keep_mode(o, fd);
    close(fd);
    return SNRQ_OK;
}

void snrq_user_output_discard(const char *path)
{
    unlink(path);
}

snrq_status snrq_user_output_write(snrq_user_output *o, const void *data, size_t bytes)
{
    return o->fd >= 0 ? snrq_file_write_open(o->fd, o->path, data, bytes)
                      : replace_file(o, data, bytes);
}

void snrq_user_output_close(snrq_user_output **output)
{
    if (*output == NULL) return;
    if ((*output)->fd >= 0) close((*output)->fd);
    free(*output);
    *output = NULL;
}

snrq_status snrq_user_directory_check(const char *directory)
{
    char parent[PATH_MAX], name[PATH_MAX];
    struct stat facts;
    if (strcmp(directory, "-") == 0)
        return snrq_fail(
            SNRQ_CANNOT_WRITE,
            "-: expected a directory, found the sign for standard output (./- is one)");
    SNRQ_TRY(snrq_path_join("", directory, name, sizeof name));
    size_t length = strlen(name);
    while (length > 1 && name[length - 1] == '/') name[--length] = '\0';
    bool there = stat(name, &facts) == 0;
    if (there && !S_ISDIR(facts.st_mode))
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: expected a directory, or a name for a new one",
                         directory);
    SNRQ_TRY(parent_of(name, parent));
    if (!there && (stat(parent, &facts) != 0 || !S_ISDIR(facts.st_mode)))
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: there is no directory %s; make it first",
                         directory, parent);
    const char *where = there ? name : parent;
    if (faccessat(AT_FDCWD, where, W_OK | X_OK, AT_EACCESS) == 0) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE, "%s: nothing can be made in %s: %s", directory, where,
                     strerror(errno));
}
