/* Makes the n-th call of one kind fail, for tests: a library for LD_PRELOAD (sweep.py does that).
 *
 *   SNRQ_FAULT_REPORT  file that says what was done: without it nothing is
 *   SNRQ_FAULT_BELOW   directories or files, absolute, separated by ':': only these paths count
 *   SNRQ_FAULT_RANK    only this rank of MPI's world; empty: every rank
 *   SNRQ_FAULT_CALL    kind of call: open, create, read, write, sync, rename, link, truncate,
 * mkdir, unlink, close, lock, list, alloc, or step: all that change the directory SNRQ_FAULT_AT n,
 * counted from 1 in each process SNRQ_FAULT_ACTION  a number: the call fails with this errno;
 * short: it moves half of the bytes; kill-before, kill-after, kill-half: SIGKILL before or after
 * the call, or when it has moved half of the bytes SNRQ_FAULT_ON      1: so do all calls of that
 * kind after the n-th SNRQ_FAULT_BYTES   alloc: only allocations at least this large
 *   SNRQ_FAULT_CALLER  alloc: made by the library of this name; empty: by the program itself
 *
 * Allocations count from the first open of a path that counts: what MPI needs to start is no part
 * of them. The report has a line "injected RANK N CALL FLAGS PATH" per fault (FLAGS: w, opened for
 * writing), and at the end of each process that opened such a path a line "counted RANK", followed
 * for each kind by its name, the number of calls, and how many of them can be halved.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    OPEN = 1,
    CREATE = 2,
    READ = 4,
    WRITE = 8,
    SYNC = 16,
    RENAME = 32,
    TRUNCATE = 64,
    MKDIR = 128,
    UNLINK = 256,
    CLOSE = 512,
    LOCK = 1024,
    LIST = 2048,
    ALLOC = 4096,
    LINK = 8192,
    RESERVE = 16384,
    KINDS = 15,
    STEP = CREATE | LINK | WRITE | SYNC | RENAME | TRUNCATE | RESERVE | MKDIR | UNLINK
};

static const struct {
    const char *name;
    int calls;
} kinds[] = {{"open", OPEN},   {"create", CREATE},     {"read", READ},       {"write", WRITE},
             {"sync", SYNC},   {"rename", RENAME},     {"mkdir", MKDIR},     {"unlink", UNLINK},
             {"close", CLOSE}, {"truncate", TRUNCATE}, {"lock", LOCK},       {"list", LIST},
             {"alloc", ALLOC}, {"link", LINK},         {"reserve", RESERVE}, {"step", STEP}};

enum action { PASS, FAIL, SHORT, KILL_BEFORE, KILL_AFTER, KILL_HALF };

static struct {
    const char *report, *below, *rank;
    int calls, error;
    enum action action;
    bool goes_on;
    long at;
    size_t bytes;
    uintptr_t code_begin, code_end; /* of the object whose allocations count */
} fault;

static atomic_bool armed;
static atomic_long count;          /* of the chosen kind */
static atomic_long seen[KINDS][2]; /* of every kind: all of them, and those that can be halved */

/* The real functions of libc. */
#define NEXT(name) (__extension__(__typeof__(&name)) next(#name))

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? value : "";
}

static int find_code(struct dl_phdr_info *info, size_t size, void *user)
{
    const char *caller = user;
    (void)size;
    if (caller[0] == '\0' ? info->dlpi_name[0] != '\0' : strstr(info->dlpi_name, caller) == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X) != 0) {
            fault.code_begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            fault.code_end = fault.code_begin + info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

static enum action parse_action(const char *text)
{
    static const char *const names[] = {
        [SHORT] = "short",
        [KILL_BEFORE] = "kill-before",
        [KILL_AFTER] = "kill-after",
        [KILL_HALF] = "kill-half",
    };
    for (int i = SHORT; i <= KILL_HALF; i++)
        if (strcmp(text, names[i]) == 0) return (enum action)i;
    return FAIL;
}

__attribute__((constructor)) static void begin(void)
{
    const char *rank = variable("OMPI_COMM_WORLD_RANK");
    const char *chosen = variable("SNRQ_FAULT_RANK");
    fault.rank = rank[0] != '\0' ? rank : "0";
    if (chosen[0] != '\0' && strcmp(chosen, fault.rank) != 0) return;
    fault.below = variable("SNRQ_FAULT_BELOW");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, variable("SNRQ_FAULT_CALL")) == 0) fault.calls = kinds[i].calls;
    fault.action = parse_action(variable("SNRQ_FAULT_ACTION"));
    fault.error = atoi(variable("SNRQ_FAULT_ACTION"));
    fault.at = atol(variable("SNRQ_FAULT_AT"));
    fault.goes_on = strcmp(variable("SNRQ_FAULT_ON"), "1") == 0;
    fault.bytes = (size_t)atol(variable("SNRQ_FAULT_BYTES"));
    dl_iterate_phdr(find_code, (void *)variable("SNRQ_FAULT_CALLER"));
    fault.report = getenv("SNRQ_FAULT_REPORT"); /* last: from here on calls are looked at */
}

/* One line; by system calls, which nothing here can intercept, and without allocating. */
static void report(const char *text, size_t bytes)
{
    long fd = syscall(SYS_openat, AT_FDCWD, fault.report, O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (fd < 0 || syscall(SYS_write, fd, text, bytes) != (long)bytes) _exit(99);
    syscall(SYS_close, fd);
}

__attribute__((destructor)) static void end(void)
{
    char line[1024];
    if (fault.report == NULL || !armed) return;
    int used = snprintf(line, sizeof line, "counted %s", fault.rank);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        long sums[2] = {0, 0};
        for (int bit = 0; bit < KINDS; bit++)
            for (int half = 0; half < 2 && (kinds[i].calls & 1 << bit) != 0; half++)
                sums[half] += seen[bit][half];
        used += snprintf(line + used, sizeof line - (size_t)used, " %s %ld %ld", kinds[i].name,
                         sums[0], sums[1]);
    }
    line[used++] = '\n';
    report(line, (size_t)used);
}

static bool counts(const char *path)
{
    const char *at = fault.below;
    while (*at != '\0') {
        size_t length = strcspn(at, ":");
        if (strncmp(path, at, length) == 0 && (path[length] == '/' || path[length] == '\0'))
            return true;
        at += length + (at[length] == ':');
    }
    return false;
}

/* Path and access mode of an open file; false if it does not count. */
static bool counts_open(int fd, char path[PATH_MAX], bool *writes)
{
    char link[64];
    if (fault.report == NULL) return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return false;
    path[length] = '\0';
    int flags = NEXT(fcntl)(fd, F_GETFL);
    *writes = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
    return counts(path);
}

static const char *call_name(int call)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].calls == call) return kinds[i].name;
    return "?";
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts one call and says what is to become of it; sets errno if it is to fail. */
static enum action decide(int call, const char *path, bool writes, bool can_be_halved)
{
    char line[PATH_MAX + 128];
    int saved = errno;
    for (int bit = 0; bit < KINDS; bit++)
        if (call == 1 << bit) {
            seen[bit][0]++;
            seen[bit][1] += can_be_halved;
        }
    if ((fault.calls & call) == 0) return PASS;
    if (!can_be_halved && (fault.action == SHORT || fault.action == KILL_HALF)) return PASS;
    long n = ++count;
    if (n != fault.at && !(fault.goes_on && n > fault.at)) return PASS;
    report(line, (size_t)snprintf(line, sizeof line, "injected %s %ld %s %s %s\n", fault.rank, n,
                                  call_name(call), writes ? "w" : "r", path));
    if (fault.action == KILL_BEFORE) die();
    errno = fault.action == FAIL ? fault.error : saved;
    return fault.action;
}

static enum action decide_path(int call, const char *path)
{
    if (fault.report == NULL || path == NULL || !counts(path)) return PASS;
    armed = true;
    return decide(call, path, true, false);
}

static enum action decide_fd(int call, int fd, bool can_be_halved)
{
    char path[PATH_MAX];
    bool writes = false;
    if (!counts_open(fd, path, &writes)) return PASS;
    return decide(call, path, writes, can_be_halved);
}

/* Opening. */

static enum action decide_open(const char *path, int flags)
{
    if (fault.report == NULL || !counts(path)) return PASS;
    armed = true;
    return decide((flags & O_CREAT) != 0 ? CREATE : OPEN, path, (flags & O_ACCMODE) != O_RDONLY,
                  false);
}

static int open_file(int directory, const char *path, int flags, mode_t mode)
{
    enum action action = decide_open(path, flags);
    if (action == FAIL) return -1;
    int fd = NEXT(openat)(directory, path, flags, mode);
    if (action == KILL_AFTER) die();
    return fd;
}

#define MODE_OF(flags, mode)                                                                       \
    do {                                                                                           \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        if (((flags) & (O_CREAT | O_TMPFILE)) != 0) (mode) = va_arg(arguments, mode_t);            \
        va_end(arguments);                                                                         \
    } while (0)

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_file(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_file(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_file(directory, path, flags | O_LARGEFILE, mode);
}

int creat(const char *path, mode_t mode)
{
    return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
    return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC | O_LARGEFILE, mode);
}

FILE *fopen(const char *path, const char *mode)
{
    enum action action = decide_open(path, mode[0] == 'r' ? O_RDONLY : O_CREAT | O_WRONLY);
    if (action == FAIL) return NULL;
    FILE *file = NEXT(fopen)(path, mode);
    if (action == KILL_AFTER) die();
    return file;
}

DIR *opendir(const char *path)
{
    if (decide_open(path, O_RDONLY) == FAIL) return NULL;
    return NEXT(opendir)(path);
}

struct dirent *readdir(DIR *stream)
{
    if (decide_fd(LIST, dirfd(stream), false) == FAIL) return NULL;
    return NEXT(readdir)(stream);
}

struct dirent64 *readdir64(DIR *stream)
{
    if (decide_fd(LIST, dirfd(stream), false) == FAIL) return NULL;
    return NEXT(readdir64)(stream);
}

/* Moving bytes: `whole` and `half` are the call as it is and with half of the bytes. */
#define MOVE(call, fd, bytes, whole, half)                                                         \
    do {                                                                                           \
        enum action action = decide_fd(call, fd, (bytes) > 1);                                     \
        if (action == FAIL) return -1;                                                             \
        ssize_t moved = action == SHORT || action == KILL_HALF ? (half) : (whole);                 \
        if (action == KILL_AFTER || action == KILL_HALF) die();                                    \
        return moved;                                                                              \
    } while (0)

ssize_t read(int fd, void *data, size_t bytes)
{
    MOVE(READ, fd, bytes, NEXT(read)(fd, data, bytes), NEXT(read)(fd, data, bytes / 2));
}

ssize_t pread(int fd, void *data, size_t bytes, off_t at)
{
    MOVE(READ, fd, bytes, NEXT(pread)(fd, data, bytes, at), NEXT(pread)(fd, data, bytes / 2, at));
}

ssize_t pread64(int fd, void *data, size_t bytes, off64_t at)
{
    MOVE(READ, fd, bytes, NEXT(pread64)(fd, data, bytes, at),
         NEXT(pread64)(fd, data, bytes / 2, at));
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    MOVE(WRITE, fd, bytes, NEXT(write)(fd, data, bytes), NEXT(write)(fd, data, bytes / 2));
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    MOVE(WRITE, fd, bytes, NEXT(pwrite)(fd, data, bytes, at),
         NEXT(pwrite)(fd, data, bytes / 2, at));
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    MOVE(WRITE, fd, bytes, NEXT(pwrite64)(fd, data, bytes, at),
         NEXT(pwrite64)(fd, data, bytes / 2, at));
}

/* Half of a vector: half of its first part. */
static size_t first_bytes(const struct iovec *parts)
{
    return parts[0].iov_len;
}

ssize_t preadv(int fd, const struct iovec *parts, int number, off_t at)
{
    MOVE(READ, fd, first_bytes(parts), NEXT(preadv)(fd, parts, number, at),
         NEXT(pread)(fd, parts[0].iov_base, parts[0].iov_len / 2, at));
}

ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at)
{
    MOVE(WRITE, fd, first_bytes(parts), NEXT(pwritev)(fd, parts, number, at),
         NEXT(pwrite)(fd, parts[0].iov_base, parts[0].iov_len / 2, at));
}

/* Everything else. */
#define SIMPLE(action_, failed, type, expression)                                                  \
    do {                                                                                           \
        enum action action = (action_);                                                            \
        if (action == FAIL) return failed;                                                         \
        type result = (expression);                                                                \
        if (action == KILL_AFTER) die();                                                           \
        return result;                                                                             \
    } while (0)

int fsync(int fd)
{
    SIMPLE(decide_fd(SYNC, fd, false), -1, int, NEXT(fsync)(fd));
}

int fdatasync(int fd)
{
    SIMPLE(decide_fd(SYNC, fd, false), -1, int, NEXT(fdatasync)(fd));
}

int ftruncate(int fd, off_t bytes)
{
    SIMPLE(decide_fd(TRUNCATE, fd, false), -1, int, NEXT(ftruncate)(fd, bytes));
}

int ftruncate64(int fd, off64_t bytes)
{
    SIMPLE(decide_fd(TRUNCATE, fd, false), -1, int, NEXT(ftruncate64)(fd, bytes));
}

int truncate(const char *path, off_t bytes)
{
    SIMPLE(decide_path(TRUNCATE, path), -1, int, NEXT(truncate)(path, bytes));
}

int fallocate(int fd, int mode, off_t at, off_t bytes)
{
    SIMPLE(decide_fd(RESERVE, fd, false), -1, int, NEXT(fallocate)(fd, mode, at, bytes));
}

int fallocate64(int fd, int mode, off64_t at, off64_t bytes)
{
    SIMPLE(decide_fd(RESERVE, fd, false), -1, int, NEXT(fallocate64)(fd, mode, at, bytes));
}

int posix_fallocate(int fd, off_t at, off_t bytes)
{
    SIMPLE(decide_fd(RESERVE, fd, false), fault.error, int, NEXT(posix_fallocate)(fd, at, bytes));
}

int rename(const char *from, const char *to)
{
    SIMPLE(decide_path(RENAME, to), -1, int, NEXT(rename)(from, to));
}

int link(const char *from, const char *to)
{
    SIMPLE(decide_path(LINK, to), -1, int, NEXT(link)(from, to));
}

int mkdir(const char *path, mode_t mode)
{
    SIMPLE(decide_path(MKDIR, path), -1, int, NEXT(mkdir)(path, mode));
}

int unlink(const char *path)
{
    SIMPLE(decide_path(UNLINK, path), -1, int, NEXT(unlink)(path));
}

/* A failed close() has closed the file. */
int close(int fd)
{
    char path[PATH_MAX];
    bool writes = false;
    enum action action = PASS;
    if (counts_open(fd, path, &writes) && writes) action = decide(CLOSE, path, writes, false);
    int result = NEXT(close)(fd);
    if (action != FAIL) return result;
    errno = fault.error;
    return -1;
}

static bool is_lock(int command)
{
    return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK ||
           command == F_OFD_SETLKW;
}

/* The argument is a number, a pointer or none; as wide as any of them it is handed on as it came.
 */
#define DEFINE_FCNTL(name)                                                                         \
    int name(int fd, int command, ...)                                                             \
    {                                                                                              \
        va_list arguments;                                                                         \
        va_start(arguments, command);                                                              \
        void *argument = va_arg(arguments, void *);                                                \
        va_end(arguments);                                                                         \
        if (is_lock(command) && decide_fd(LOCK, fd, false) == FAIL) return -1;                     \
        return NEXT(name)(fd, command, argument);                                                  \
    }
DEFINE_FCNTL(fcntl)
DEFINE_FCNTL(fcntl64)

/* Allocating. dlsym() allocates, so these are libc's own names. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t number, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static bool has_memory(size_t bytes, const void *caller)
{
    char path[32];
    uintptr_t from = (uintptr_t)caller;
    if (fault.report == NULL || !armed || bytes < fault.bytes || from < fault.code_begin ||
        from >= fault.code_end)
        return true;
    snprintf(path, sizeof path, "%zu", bytes);
    return decide(ALLOC, path, false, false) != FAIL;
}

void *malloc(size_t bytes)
{
    return has_memory(bytes, __builtin_return_address(0)) ? __libc_malloc(bytes) : NULL;
}

void *calloc(size_t number, size_t bytes)
{
    bool good = has_memory(number * bytes, __builtin_return_address(0));
    return good ? __libc_calloc(number, bytes) : NULL;
}

void *realloc(void *old, size_t bytes)
{
    return has_memory(bytes, __builtin_return_address(0)) ? __libc_realloc(old, bytes) : NULL;
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    bool good = has_memory(bytes, __builtin_return_address(0));
    return good ? __libc_memalign(alignment, bytes) : NULL;
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (!has_memory(bytes, __builtin_return_address(0))) return ENOMEM;
    void *memory = __libc_memalign(alignment, bytes);
    if (memory == NULL) return ENOMEM;
    *out = memory;
    return 0;
}

char *strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = has_memory(bytes, __builtin_return_address(0)) ? __libc_malloc(bytes) : NULL;
    return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}
