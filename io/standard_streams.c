/* Standard streams; see standard_streams.h. */
#include "io/standard_streams.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

void snrq_standard_streams_start(void)
{
    signal(SIGPIPE, SIG_IGN);
    /* The wrong way round, so that using one that was closed still fails. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return;
}

static snrq_status fail(const FILE *stream, int cause)
{
    return snrq_fail(SNRQ_IO_ERROR, "standard %s cannot be written: %s",
                     stream == stdout ? "output" : "error",
                     cause != 0 ? strerror(cause) : "an earlier line was lost");
}

snrq_status snrq_print(const char *text)
{
    errno = 0;
    return fputs(text, stdout) == EOF ? fail(stdout, errno) : snrq_print_end(stdout);
}

snrq_status snrq_print_end(FILE *stream)
{
    errno = 0;
    bool failed = fflush(stream) != 0 || ferror(stream);
    return failed ? fail(stream, errno) : SNRQ_OK;
}
