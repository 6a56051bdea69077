/* The watchdog; see watchdog.h. */
#include "mpi/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "mpi/log.h"

enum { REPORT_SECONDS = 5 };

struct snrq_watchdog {
    snrq_watchdog_settings settings;
    int rank;
    char message[1024]; /* of the end */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool ending, reported; /* under mutex */
};

static double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void *report(void *argument)
{
    snrq_watchdog *w = argument;
    w->settings.report(w->settings.user, w->message);
    pthread_mutex_lock(&w->mutex);
    w->reported = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* Waits until the end was reported, but not for long. The caller holds the mutex. */
static void report_end(snrq_watchdog *w)
{
    pthread_t thread;
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += REPORT_SECONDS;
    if (w->settings.report == NULL || pthread_create(&thread, NULL, report, w) != 0) return;
    while (!w->reported && pthread_cond_timedwait(&w->wake, &w->mutex, &limit) == 0) continue;
}

static void end_process(snrq_watchdog *w, int phase)
{
    char host[256] = "?", time[SNRQ_TIME_TEXT];
    gethostname(host, sizeof host - 1);
    snrq_time_text(time);
    snprintf(w->message, sizeof w->message,
             "rank %d on %s: no progress for %.0f s in phase %s: ended by the watchdog; run the "
             "same command again to go on (--watchdog TIME allows more, 0s any)",
             w->rank, host, w->settings.seconds,
             phase >= 0 ? w->settings.phase_name(phase) : "none");
    snrq_note_here("%s %s", time, w->message);
    fflush(stderr);
    report_end(w);
    _exit(SNRQ_HUNG);
}

static void *watch(void *argument)
{
    snrq_watchdog *w = argument;
    int64_t seen = -1;
    double changed = clock_seconds(), last = changed;
    pthread_mutex_lock(&w->mutex);
    while (!w->ending) {
        struct timespec next;
        clock_gettime(CLOCK_REALTIME, &next);
        next.tv_sec += 1;
        (void)pthread_cond_timedwait(&w->wake, &w->mutex, &next);
        double now = clock_seconds();
        int64_t entered = w->settings.timers->entered;
        /* A process that was suspended did not hang: its clock starts anew. */
        if (entered != seen || now - last > 5.0) changed = now;
        seen = entered;
        last = now;
        if (!w->ending && now - changed >= w->settings.seconds)
            end_process(w, w->settings.timers->running);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

snrq_status snrq_watchdog_start(const snrq_context *c, const snrq_watchdog_settings *settings,
                                snrq_watchdog **out)
{
    snrq_watchdog *w = NULL;
    sigset_t all, before;
    *out = NULL;
    if (settings->seconds <= 0) return SNRQ_OK;
    SNRQ_TRY(snrq_allocate(1, sizeof *w, "watchdog", &w));
    w->settings = *settings;
    w->rank = c->job_rank;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    sigfillset(&all); /* signals are for the other threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&w->thread, NULL, watch, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        free(w);
        return snrq_fail(SNRQ_INTERNAL, "the watchdog's thread cannot be started");
    }
    *out = w;
    return SNRQ_OK;
}

void snrq_watchdog_stop(snrq_watchdog **watchdog)
{
    snrq_watchdog *w = *watchdog;
    if (w == NULL) return;
    pthread_mutex_lock(&w->mutex);
    w->ending = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->mutex);
    free(w);
    *watchdog = NULL;
}
