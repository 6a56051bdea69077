/* Status of a call, and the message that belongs to it.
 *
 * Every function that can fail returns a snrq_status. The values are the exit codes of the program,
 * so that what a shell script sees is what the failing function said. The message of the last
 * failure of this thread is kept, as errno is; snrq_agree() (context.h) makes it the same on all
 * ranks.
 */
#ifndef SNRQ_STATUS_H
#define SNRQ_STATUS_H

#include <stddef.h>

typedef enum snrq_status {
    SNRQ_OK = 0,
    SNRQ_USAGE = 64,        /* the command line asks for something that does not exist */
    SNRQ_BAD_DATA = 65,     /* an input file is damaged or not what its name says */
    SNRQ_NO_INPUT = 66,     /* an input file is missing or cannot be opened */
    SNRQ_BUSY = 69,         /* a run is at work there: ask again later */
    SNRQ_INTERNAL = 70,     /* a bug, or memory that cannot be had */
    SNRQ_CANNOT_WRITE = 73, /* the output cannot be created */
    SNRQ_IO_ERROR = 74,     /* reading or writing failed half-way */
    SNRQ_STOPPED = 75,      /* stopped at a safe point on request: run again to continue */
    SNRQ_HUNG = 76          /* ended by the watchdog (watchdog.h) */
} snrq_status;

/* Records a message (printf style: what was expected, what was found, where, what to do next) and
 * returns `status`, so that a failing function ends with `return snrq_fail(...)`. Not collective.
 */
snrq_status snrq_fail(snrq_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The message of this thread's last snrq_fail(); "" before the first. Borrowed, never NULL. */
const char *snrq_error_message(void);

/* Allocates zeroed memory for `count` items of `size` bytes and stores it in *(void **)out.
 * Overflow and lack of memory are SNRQ_INTERNAL with a message that names `what`; *out is then
 * NULL. count = 0 gives a pointer that can be freed. The caller frees it with free(). */
snrq_status snrq_allocate(size_t count, size_t size, const char *what, void *out);

/* A list grows: makes room in *(void **)list, of *capacity items of `size` bytes, for `needed`
 * items at least, by half of what it had at least. New items are not zeroed. On failure,
 * SNRQ_INTERNAL with a message that names `what`, the list stays as it was. */
snrq_status snrq_grow(size_t needed, size_t size, const char *what, void *list, size_t *capacity);

/* A copy of a text; the caller frees it. `what` as above. */
snrq_status snrq_copy_text(const char *text, const char *what, char **out);

/* The same as snrq_allocate() without zeroing and at the start of a cache line: for what is written
 * before it is read.
 */
snrq_status snrq_allocate_scratch(size_t count, size_t size, const char *what, void *out);

/* Returns the status of a failed call to the caller. The only control flow in a macro. */
#define SNRQ_TRY(call)                                                                             \
    do {                                                                                           \
        snrq_status try_status_ = (call);                                                          \
        if (try_status_ != SNRQ_OK) return try_status_;                                            \
    } while (0)

#endif
