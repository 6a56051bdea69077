/* Ending a rank that failed alone; see lone_failure.h. */
#include "mpi/lone_failure.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What the signal handler needs; it can be handed nothing. */
static struct {
    int rank;
    unsigned seconds; /* 0: not turned on */
    int status;       /* of the failure; 0: none yet */
    size_t bytes;
    char message[2304];
} state;

static void end_process(int number)
{
    (void)number;
    ssize_t written = write(STDERR_FILENO, state.message, state.bytes);
    _exit(written < 0 ? SNRQ_INTERNAL : state.status);
}

void snrq_lone_failure_listen(int rank, unsigned seconds)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = end_process;
    sigemptyset(&action.sa_mask);
    sigaction(SIGALRM, &action, NULL);
    state.rank = rank;
    state.seconds = seconds;
}

void snrq_lone_failure_begin(snrq_status status)
{
    if (state.seconds == 0 || state.status != SNRQ_OK) return;
    int length = snprintf(state.message, sizeof state.message,
                          "snrq: rank %d: %s; this rank failed without the others, or they hang: "
                          "ended after %u s\n",
                          state.rank, snrq_error_message(), state.seconds);
    state.bytes = length < (int)sizeof state.message ? (size_t)length : sizeof state.message - 1;
    state.status = (int)status;
    alarm(state.seconds);
}

void snrq_lone_failure_end(void)
{
    if (state.status != SNRQ_OK) alarm(0);
}
