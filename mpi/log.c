/* Lines for people; see log.h. */
#include "mpi/log.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES = 8192 }; /* a message and two paths; longer lines are cut */

/* In one piece, so that the lines of several ranks do not mix. */
static void print_line(const char *start, const char *format, va_list arguments)
{
    char text[LINE_BYTES];
    vsnprintf(text, sizeof text, format, arguments);
    fprintf(stderr, "%s%s\n", start, text);
}

void snrq_note(const snrq_context *context, const char *format, ...)
{
    if (context->rank != 0) return;
    va_list arguments;
    va_start(arguments, format);
    print_line("", format, arguments);
    va_end(arguments);
}

void snrq_time_text(char out[SNRQ_TIME_TEXT])
{
    const time_t now = time(NULL);
    struct tm at;
    if (localtime_r(&now, &at) == NULL || strftime(out, SNRQ_TIME_TEXT, "%H:%M:%S", &at) == 0)
        snprintf(out, SNRQ_TIME_TEXT, "--:--:--");
}

void snrq_note_timed(const snrq_context *context, const char *format, ...)
{
    char start[SNRQ_TIME_TEXT + 1];
    if (context->rank != 0) return;
    snrq_time_text(start);
    strcat(start, " ");
    va_list arguments;
    va_start(arguments, format);
    print_line(start, format, arguments);
    va_end(arguments);
}

void snrq_note_here(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_line("snrq: ", format, arguments);
    va_end(arguments);
}

void snrq_clock_text(double seconds, char *out, size_t size)
{
    long s = seconds > 0 && seconds < 1e9 ? lround(seconds) : 0;
    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}
