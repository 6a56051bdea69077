/* A lock file; see lock.h. */
#include "io/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/file.h"
#include "mpi/log.h"

enum { STALE_SECONDS = 600, BEAT_SECONDS = 30, LIMIT_BYTES = 4096, ATTEMPTS = 20 };

/* Who holds a lock. */
struct holder {
    char host[256], job[64];
    long long pid, process, started, heartbeat, restart;
};

struct snrq_lock {
    char *path;
    struct holder self;
    pthread_t thread; /* renews the heartbeat */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool beats, ending; /* the thread exists; it is to end (under mutex) */
};

static long long now(void)
{
    return (long long)time(NULL);
}

/* State ('Z': ended, but not yet waited for) and start, in clock ticks since boot, of process `pid`
 * of this host; '?' and 0 where that cannot be known. */
static long long process_facts(long long pid, char *state)
{
    char path[64], text[1024];
    *state = '?';
    snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    size_t used = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[used] = '\0';
    /* Fields 3 and 22; the command (field 2) may hold anything, so counting begins after its ')'.
     */
    char *at = strrchr(text, ')');
    if (at == NULL || used - (size_t)(at - text) < 3) return 0;
    *state = at[2];
    for (int field = 2; at != NULL && field < 22; field++) at = strchr(at + 1, ' ');
    return at != NULL ? strtoll(at + 1, NULL, 10) : 0;
}

/* Is the holder's process still at work on this host? */
static bool is_alive(const struct holder *h)
{
    char state;
    if (h->pid > INT_MAX || (kill((pid_t)h->pid, 0) != 0 && errno == ESRCH)) return false;
    long long start = process_facts(h->pid, &state);
    if (state == 'Z' || state == 'X') return false;
    return start == 0 || h->process == 0 || start == h->process;
}

static struct holder describe_self(void)
{
    struct holder self = {.pid = (long long)getpid(), .started = now(), .heartbeat = now()};
    const char *job = getenv("SLURM_JOB_ID"), *restart = getenv("SLURM_RESTART_COUNT");
    char state;
    if (gethostname(self.host, sizeof self.host - 1) != 0) strcpy(self.host, "unknown");
    if (job != NULL) snprintf(self.job, sizeof self.job, "%s", job);
    if (restart != NULL) self.restart = strtoll(restart, NULL, 10);
    self.process = process_facts(self.pid, &state);
    return self;
}

/* The file's content; the caller frees it. NULL if there is no memory or a name is not UTF-8. */
static char *format(const struct holder *h)
{
    json_t *object = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "host", h->host, "job",
                               h->job, "pid", (json_int_t)h->pid, "process", (json_int_t)h->process,
                               "started", (json_int_t)h->started, "heartbeat",
                               (json_int_t)h->heartbeat, "restart", (json_int_t)h->restart);
    char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(object);
    return text;
}

static bool parse(const char *data, size_t bytes, struct holder *h)
{
    const char *host = NULL, *job = NULL;
    json_int_t pid = 0, process = 0, started = 0, heartbeat = 0, restart = 0;
    json_t *object = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    bool good = object != NULL &&
                json_unpack(object, "{s:s, s:s, s:I, s:I, s:I, s:I, s?:I}", "host", &host, "job",
                            &job, "pid", &pid, "process", &process, "started", &started,
                            "heartbeat", &heartbeat, "restart", &restart) == 0 &&
                strlen(host) < sizeof h->host && strlen(job) < sizeof h->job && pid > 0;
    *h = (struct holder){.pid = pid,
                         .process = process,
                         .started = started,
                         .heartbeat = heartbeat,
                         .restart = restart};
    if (good) {
        strcpy(h->host, host);
        strcpy(h->job, job);
    }
    json_decref(object);
    return good;
}

static bool is_same(const struct holder *a, const struct holder *b)
{
    return a->pid == b->pid && a->process == b->process && a->started == b->started &&
           strcmp(a->host, b->host) == 0;
}

/* Reads a lock file. *found: there is one; *known: it says who holds it (where there are no hard
 * links, a job that is just taking the lock has not written that yet). */
static snrq_status look(const char *path, bool *found, bool *known, struct holder *h)
{
    char *data = NULL;
    size_t bytes = 0;
    struct stat facts;
    *found = *known = false;
    if (lstat(path, &facts) != 0) {
        if (errno == ENOENT) return SNRQ_OK;
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: %s", path, strerror(errno));
    }
    *found = true;
    snrq_status status = snrq_file_read(path, LIMIT_BYTES, &data, &bytes);
    if (status == SNRQ_IO_ERROR) return status;
    errno = 0;
    if (status == SNRQ_OK) *known = parse(data, bytes, h);
    if (status == SNRQ_OK && errno == ENOMEM) {
        free(data);
        return snrq_fail(SNRQ_INTERNAL, "%s: no memory to read it", path);
    }
    if (!*known) *h = (struct holder){.heartbeat = (long long)facts.st_mtime};
    free(data);
    return SNRQ_OK;
}

static bool is_stale(const struct holder *h, bool known)
{
    struct holder self = describe_self();
    long long age = now() - h->heartbeat;
    if (known && self.job[0] != '\0' && strcmp(h->job, self.job) == 0 && h->restart < self.restart)
        return true;
    if (!known || strcmp(h->host, self.host) != 0) return age > STALE_SECONDS;
    return !is_alive(h);
}

static snrq_status held(const char *path, const struct holder *h, bool known)
{
    if (!known)
        return snrq_fail(
            SNRQ_CANNOT_WRITE,
            "%s: somebody is taking this lock, or left it half-written; if no job works "
            "here, run again with --force-unlock",
            path);
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: the directory is in use by process %lld on %s%s%s, last heard of %lld "
                     "seconds ago; wait for it, or choose another directory (if it is gone for "
                     "good: --force-unlock)",
                     path, h->pid, h->host, h->job[0] ? ", job " : "", h->job,
                     now() - h->heartbeat);
}

/* Where there are no hard links: creates the file and then writes it. A job that is killed in
 * between leaves a lock that does not say whose it is. */
static snrq_status create_empty(const char *path, const char *text, bool *taken)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        if (errno == EEXIST) return SNRQ_OK;
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be created: %s", path, strerror(errno));
    }
    snrq_status status = snrq_file_write_at(fd, path, 0, text, strlen(text));
    if (status == SNRQ_OK) status = snrq_file_sync_open(fd, path);
    if (close(fd) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_IO_ERROR, "%s: closing failed: %s", path, strerror(errno));
    if (status != SNRQ_OK) unlink(path);
    *taken = status == SNRQ_OK;
    return status;
}

/* Creates the file with its content; *taken stays false if there is one. It is written under a name
 * of its own, as a leftover that every run removes, and linked: whoever sees it sees all of it. */
static snrq_status create(const char *path, const struct holder *self, const char *text,
                          bool *taken)
{
    char own[PATH_MAX];
    struct stat facts;
    int length =
        snprintf(own, sizeof own, "%s.%.64s.%lld.tmp", path, self->host, (long long)self->pid);
    if (length < 0 || (size_t)length >= sizeof own)
        return snrq_fail(SNRQ_USAGE, "%s: the path is too long", path);
    snrq_status status = snrq_file_write(own, text, strlen(text));
    int failed = status == SNRQ_OK && link(own, path) != 0 ? errno : 0;
    /* A network file system may have done it and lost the answer. */
    *taken = status == SNRQ_OK && (failed == 0 || (stat(own, &facts) == 0 && facts.st_nlink == 2));
    unlink(own);
    if (status != SNRQ_OK || *taken || failed == EEXIST || failed == ENOENT) return status;
    if (failed == EPERM || failed == ENOSYS || failed == EOPNOTSUPP || failed == EMLINK)
        return create_empty(path, text, taken);
    return snrq_fail(SNRQ_IO_ERROR, "%s: cannot be linked to %s: %s", own, path, strerror(failed));
}

/* Puts a stale lock aside. Somebody else may do so too, and may have taken the lock already: what
 * was moved is put back unless it is known to be the stale lock. */
static snrq_status put_aside(const char *path, const struct holder *stale, bool known)
{
    char aside[PATH_MAX];
    bool found = false, known_now = false;
    struct holder moved;
    snprintf(aside, sizeof aside, "%s.%lld.tmp", path, (long long)getpid());
    if (rename(path, aside) != 0)
        return errno == ENOENT ? SNRQ_OK
                               : snrq_fail(SNRQ_IO_ERROR, "%s: a stale lock cannot be renamed: %s",
                                           path, strerror(errno));
    snrq_status status = look(aside, &found, &known_now, &moved);
    bool same = status == SNRQ_OK && (known ? known_now && is_same(&moved, stale) : !known_now);
    if (!same) (void)link(aside, path);
    unlink(aside);
    if (!same) return status;
    if (known)
        snrq_note_here("%s was left by process %lld on %s, which is gone or silent: taken over",
                       path, stale->pid, stale->host);
    else
        snrq_note_here("%s was left half-written: taken over", path);
    return SNRQ_OK;
}

static snrq_status take(const char *path, const struct holder *self, const char *text)
{
    const struct timespec pause = {0, 50000000};
    struct holder other;
    bool taken = false, found = false, known = false;
    for (int i = 0; i < ATTEMPTS; i++) {
        SNRQ_TRY(create(path, self, text, &taken));
        if (taken) return SNRQ_OK;
        SNRQ_TRY(look(path, &found, &known, &other));
        if (found && is_stale(&other, known))
            SNRQ_TRY(put_aside(path, &other, known));
        else if (found && known)
            return held(path, &other, true);
        else
            nanosleep(&pause, NULL); /* it is being written, or has just been released */
    }
    return held(path, &other, known);
}

static snrq_status look_for(const char *path, const struct holder *owner, bool *found_it)
{
    struct holder holder;
    bool found, known;
    *found_it = false;
    SNRQ_TRY(look(path, &found, &known, &holder));
    *found_it = known && is_same(&holder, owner);
    return SNRQ_OK;
}

/* Tells others that the holder lives. A failure is not reported: the next beat may work, and what
 * is committed asks snrq_lock_check(). */
static void beat(const snrq_lock *lock)
{
    struct holder self = lock->self;
    bool mine = false;
    if (look_for(lock->path, &self, &mine) != SNRQ_OK || !mine) return;
    self.heartbeat = now();
    char *text = format(&self);
    if (text != NULL) (void)snrq_file_replace(lock->path, text, strlen(text));
    free(text);
}

static void *keep_beating(void *argument)
{
    snrq_lock *lock = argument;
    struct timespec next;
    clock_gettime(CLOCK_REALTIME, &next);
    next.tv_sec += BEAT_SECONDS;
    pthread_mutex_lock(&lock->mutex);
    while (!lock->ending) {
        if (pthread_cond_timedwait(&lock->wake, &lock->mutex, &next) != ETIMEDOUT) continue;
        beat(lock);
        clock_gettime(CLOCK_REALTIME, &next);
        next.tv_sec += BEAT_SECONDS;
    }
    pthread_mutex_unlock(&lock->mutex);
    return NULL;
}

/* The thread leaves signals to the others. Without a thread the lock works, too, only that another
 * host may think its holder gone after a while. */
static void start_beating(snrq_lock *lock)
{
    sigset_t all, before;
    pthread_mutex_init(&lock->mutex, NULL);
    pthread_cond_init(&lock->wake, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    lock->beats = pthread_create(&lock->thread, NULL, keep_beating, lock) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void stop_beating(snrq_lock *lock)
{
    pthread_mutex_lock(&lock->mutex);
    lock->ending = true;
    pthread_cond_signal(&lock->wake);
    pthread_mutex_unlock(&lock->mutex);
    if (lock->beats) pthread_join(lock->thread, NULL);
    pthread_cond_destroy(&lock->wake);
    pthread_mutex_destroy(&lock->mutex);
}

/* What a holder leaves that was killed while it told that it lives. */
static void remove_torn_beat(const char *path)
{
    char torn[PATH_MAX];
    snprintf(torn, sizeof torn, "%s.tmp", path);
    unlink(torn);
}

snrq_status snrq_lock_take(const char *path, snrq_lock **out)
{
    snrq_lock *lock = NULL;
    char *text = NULL;
    *out = NULL;
    SNRQ_TRY(snrq_allocate(1, sizeof *lock, "lock", &lock));
    lock->self = describe_self();
    snrq_status status = snrq_copy_text(path, "path", &lock->path);
    if (status == SNRQ_OK) {
        text = format(&lock->self);
        if (text == NULL)
            status = snrq_fail(
                SNRQ_INTERNAL,
                "%s: cannot be composed: no memory, or a host name that is not UTF-8", path);
    }
    if (status == SNRQ_OK) status = take(path, &lock->self, text);
    free(text);
    if (status == SNRQ_OK) {
        remove_torn_beat(path);
        start_beating(lock);
        *out = lock;
    } else if (lock != NULL) {
        free(lock->path);
        free(lock);
    }
    return status;
}

void snrq_lock_tell_owner(const snrq_lock *lock, snrq_lock_owner *out)
{
    const struct holder *self = &lock->self;
    *out = (snrq_lock_owner){.pid = self->pid, .process = self->process, .started = self->started};
    memcpy(out->host, self->host, sizeof out->host);
}

snrq_status snrq_lock_check_owner(const char *path, const snrq_lock_owner *owner)
{
    struct holder expected = {
        .pid = owner->pid, .process = owner->process, .started = owner->started};
    bool held = false;
    memcpy(expected.host, owner->host, sizeof expected.host);
    SNRQ_TRY(look_for(path, &expected, &held));
    if (held) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: the lock is gone or somebody else's: another run may be writing here, so "
                     "this one ends",
                     path);
}

snrq_status snrq_lock_check(const snrq_lock *lock)
{
    snrq_lock_owner self;
    snrq_lock_tell_owner(lock, &self);
    return snrq_lock_check_owner(lock->path, &self);
}

void snrq_lock_release(snrq_lock **lock)
{
    snrq_lock *l = *lock;
    bool mine = false;
    if (l == NULL) return;
    stop_beating(l);
    snrq_status status = look_for(l->path, &l->self, &mine);
    if (mine && unlink(l->path) != 0)
        status = snrq_fail(SNRQ_IO_ERROR, "%s: %s", l->path, strerror(errno));
    if (status != SNRQ_OK)
        snrq_note_here("warning: the lock cannot be removed, the next run takes it over: %s",
                       snrq_error_message());
    free(l->path);
    free(l);
    *lock = NULL;
}

snrq_status snrq_lock_look(const char *path, snrq_lock_facts *out)
{
    struct holder holder;
    bool found = false, known = false;
    *out = (snrq_lock_facts){0};
    SNRQ_TRY(look(path, &found, &known, &holder));
    if (!found) return SNRQ_OK;
    *out = (snrq_lock_facts){.found = true,
                             .known = known,
                             .stale = is_stale(&holder, known),
                             .pid = holder.pid,
                             .started = holder.started,
                             .silent = now() - holder.heartbeat};
    memcpy(out->host, holder.host, sizeof out->host);
    memcpy(out->job, holder.job, sizeof out->job);
    return SNRQ_OK;
}

/* A lock whose process works on this host is not removed by force. */
static snrq_status check_force(const char *path, const snrq_lock_facts *facts)
{
    struct holder self = describe_self();
    if (!facts->known || facts->stale || strcmp(facts->host, self.host) != 0) return SNRQ_OK;
    return snrq_fail(SNRQ_CANNOT_WRITE,
                     "%s: process %lld works here and runs on this host: end it first, then no "
                     "--force-unlock is needed",
                     path, facts->pid);
}

snrq_status snrq_lock_try(const char *path, bool force)
{
    struct holder holder;
    snrq_lock_facts facts;
    bool found = false, known = false;
    SNRQ_TRY(snrq_lock_look(path, &facts));
    if (!facts.found || (facts.stale && !force)) return SNRQ_OK;
    if (force) return check_force(path, &facts);
    SNRQ_TRY(look(path, &found, &known, &holder));
    return found ? held(path, &holder, known) : SNRQ_OK;
}

snrq_status snrq_lock_force(const char *path)
{
    snrq_lock_facts facts;
    SNRQ_TRY(snrq_lock_look(path, &facts));
    if (!facts.found) return SNRQ_OK;
    SNRQ_TRY(check_force(path, &facts));
    if (unlink(path) != 0 && errno != ENOENT)
        return snrq_fail(SNRQ_CANNOT_WRITE, "%s: cannot be removed: %s", path, strerror(errno));
    snrq_note_here("%s: removed the lock of process %lld on %s, last heard of %lld seconds ago",
                   path, facts.pid, facts.known ? facts.host : "an unknown host", facts.silent);
    return SNRQ_OK;
}
