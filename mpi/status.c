/* Status messages and checked allocation; see status.h. */
#include "mpi/status.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char last_message[2048];

snrq_status snrq_fail(snrq_status status, const char *format, ...)
{
    /* Formatted aside first: an argument may be the previous message. */
    char text[sizeof last_message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(last_message, text, sizeof text);
    return status;
}

const char *snrq_error_message(void)
{
    return last_message;
}

snrq_status snrq_allocate(size_t count, size_t size, const char *what, void *out)
{
    void *memory = NULL;
    if (size == 0 || count <= SIZE_MAX / size) memory = calloc(count ? count : 1, size ? size : 1);
    memcpy(out, &memory, sizeof memory);
    if (memory == NULL)
        return snrq_fail(SNRQ_INTERNAL, "cannot allocate %s: %zu items of %zu bytes", what, count,
                         size);
    return SNRQ_OK;
}
