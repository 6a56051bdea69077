/* Requests to stop; see stop.h. */
#include "mpi/stop.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "mpi/timers.h"

static const int signals[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGHUP};
enum { SIGNALS = sizeof signals / sizeof *signals };

/* The signal that was caught, or 0. A signal handler has nowhere else to write to. */
static volatile sig_atomic_t caught;

static void note_signal(int number)
{
    caught = number;
}

/* A program that nohup started outlives its terminal. Libraries may put a handler of theirs in the
 * place of what nohup asked for as soon as they are loaded (UCX does): this is looked at before,
 * where the program can. */
static bool hangups_were_looked_at, hangups_are_ignored;

static void look_at_hangups(void)
{
    struct sigaction before;
    hangups_are_ignored = sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
    hangups_were_looked_at = true;
}

#if defined __ELF__ && !defined SNRQ_SANITIZED /* whose own sigaction() is not ready so early */
__attribute__((section(".preinit_array"),
               used)) static void (*const before_libraries)(void) = look_at_hangups;
#endif

static void handle_signals(void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART; /* reads and writes under way are not disturbed */
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNALS; i++) sigaction(signals[i], &action, NULL);
    action.sa_handler = SIG_IGN;
    if (hangups_are_ignored) sigaction(SIGHUP, &action, NULL);
}

void snrq_stop_listen(void)
{
    if (!hangups_were_looked_at) look_at_hangups();
    handle_signals(note_signal);
}

void snrq_stop_ignore(void)
{
    handle_signals(SIG_DFL);
    if (caught != 0) raise(caught);
}

void snrq_stop_begin(const char *halt_file, double seconds, snrq_stop *out)
{
    double now = snrq_now();
    *out = (snrq_stop){.halt_file = halt_file, .seconds = seconds, .started = now, .last = now};
}

/* Why a run stops; the largest number that any rank has wins, so a signal wins over the rest. */
enum reason { NONE, OTHERS, TIME_IS_UP, HALT_FILE, SIGNALLED };

static int find_reason(const snrq_context *c, snrq_stop *s)
{
    struct stat facts;
    double now = snrq_now(), step = now - s->last;
    s->longest = step > s->longest ? step : s->longest;
    s->last = now;
    if (caught != 0) return SIGNALLED + caught;
    if (c->rank == 0 && s->halt_file != NULL && stat(s->halt_file, &facts) == 0) return HALT_FILE;
    if (s->seconds > 0 && now - s->started + s->longest >= s->seconds) return TIME_IS_UP;
    return s->asked ? OTHERS : NONE;
}

snrq_status snrq_stop_check(const snrq_context *c, snrq_stop *s)
{
    int mine = find_reason(c, s), reason = NONE;
    SNRQ_TRY(snrq_call_check(c, SNRQ_HERE, "asks who wants to stop"));
    SNRQ_TRY(snrq_mpi_check(MPI_Allreduce(&mine, &reason, 1, MPI_INT, MPI_MAX, c->comm),
                            "MPI_Allreduce"));
    switch (reason) {
    case NONE:
        return SNRQ_OK;
    case OTHERS:
        s->for_others = true;
        return snrq_fail(SNRQ_STOPPED, "another group of ranks has stopped");
    case TIME_IS_UP:
        return snrq_fail(SNRQ_STOPPED,
                         "the time is up: another step of %.2f s would not end within %.2f s",
                         s->longest, s->seconds);
    case HALT_FILE:
        return snrq_fail(SNRQ_STOPPED, "%s exists; delete it before the next run", s->halt_file);
    default:
        return snrq_fail(SNRQ_STOPPED, "signal %d (%s) was received", reason - SIGNALLED,
                         strsignal(reason - SIGNALLED));
    }
}
