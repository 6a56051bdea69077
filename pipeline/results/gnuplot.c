/* gnuplot as another process; see gnuplot.h. */
#include "pipeline/results/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_THERE = 127, NO_DIRECTORY = 126 };

/* In the new process: what gnuplot says goes nowhere, for it also warns of fonts. */
static void become_gnuplot(const char *directory, const char *script)
{
    int nowhere = open("/dev/null", O_RDWR);
    if (nowhere < 0 || chdir(directory) != 0) _exit(NO_DIRECTORY);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(nowhere, fd) < 0) _exit(NO_DIRECTORY);
    execlp("gnuplot", "gnuplot", script, (char *)NULL);
    _exit(NOT_THERE);
}

snrq_status snrq_gnuplot_run(const char *directory, const char *script, bool *done, char *why,
                             size_t size)
{
    int state = 0;
    pid_t process = fork();
    if (process < 0)
        return snrq_fail(SNRQ_INTERNAL, "gnuplot cannot be started: %s", strerror(errno));
    if (process == 0) become_gnuplot(directory, script);
    while (waitpid(process, &state, 0) < 0)
        if (errno != EINTR)
            return snrq_fail(SNRQ_INTERNAL, "gnuplot was lost: %s", strerror(errno));
    *done = WIFEXITED(state) && WEXITSTATUS(state) == 0;
    if (WIFEXITED(state) && WEXITSTATUS(state) == NOT_THERE)
        snprintf(why, size,
                 "There are no pictures: gnuplot is not installed (Debian: gnuplot-nox).");
    else if (!*done)
        snprintf(why, size, "There are no pictures: `gnuplot %s` failed; run it to see why.",
                 script);
    return SNRQ_OK;
}
