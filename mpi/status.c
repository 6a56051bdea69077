/* Status messages and checked allocation; see status.h. */
#define _DEFAULT_SOURCE /* madvise() */
#include "mpi/status.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_BYTES = 1 << 23 };

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

static snrq_status cannot_allocate(size_t count, size_t size, const char *what)
{
    return snrq_fail(SNRQ_INTERNAL, "cannot allocate %s: %zu items of %zu bytes", what, count,
                     size);
}

static snrq_status give(void *memory, size_t count, size_t size, const char *what, void *out)
{
    memcpy(out, &memory, sizeof memory);
    return memory == NULL ? cannot_allocate(count, size, what) : SNRQ_OK;
}

/* Asks for huge pages where there are any. Touching 4 KiB pages for the first time, one fault each,
 * takes longer than what is computed in them. */
static void enlarge_pages(void *memory, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t huge = (uintptr_t)1 << 21;
    uintptr_t begin = ((uintptr_t)memory + huge - 1) / huge * huge;
    uintptr_t end = ((uintptr_t)memory + bytes) / huge * huge;
    if (memory != NULL && begin < end) /* a wish: that it fails does not matter */
        madvise((unsigned char *)memory + (begin - (uintptr_t)memory), end - begin, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

snrq_status snrq_allocate(size_t count, size_t size, const char *what, void *out)
{
    void *memory = NULL;
    if (size == 0 || count <= SIZE_MAX / size) memory = calloc(count ? count : 1, size ? size : 1);
    if (count * size >= HUGE_BYTES) enlarge_pages(memory, count * size);
    return give(memory, count, size, what, out);
}

snrq_status snrq_grow(size_t needed, size_t size, const char *what, void *list, size_t *capacity)
{
    enum { FEWEST = 64 };
    void *memory = NULL;
    size_t count = *capacity + *capacity / 2;
    if (needed <= *capacity) return SNRQ_OK;
    if (count < needed) count = needed;
    if (count < FEWEST) count = FEWEST;
    memcpy(&memory, list, sizeof memory);
    memory = size == 0 || count <= SIZE_MAX / size ? realloc(memory, count * size) : NULL;
    if (memory == NULL) return cannot_allocate(count, size, what);
    memcpy(list, &memory, sizeof memory);
    *capacity = count;
    return SNRQ_OK;
}

snrq_status snrq_copy_text(const char *text, const char *what, char **out)
{
    const size_t bytes = strlen(text) + 1;
    SNRQ_TRY(snrq_allocate(bytes, 1, what, out));
    memcpy(*out, text, bytes);
    return SNRQ_OK;
}

snrq_status snrq_allocate_scratch(size_t count, size_t size, const char *what, void *out)
{
    const size_t line = 64;
    void *memory = NULL;
    if (size == 0 || count < (SIZE_MAX - line) / size) {
        size_t bytes = (count * size / line + 1) * line;
        memory = aligned_alloc(line, bytes);
        if (bytes >= HUGE_BYTES) enlarge_pages(memory, bytes);
    }
    return give(memory, count, size, what, out);
}
