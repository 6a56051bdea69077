/* Loaded in front of libc in the tests: a rank that waits sleeps a little between two looks.
 *
 * Open MPI waits by asking again and again, with sched_yield() in between. Where ranks are more
 * than cores, those that wait then take half of the time of those that work: a run of 4 ranks on 2
 * busy cores takes twice as long. Short waits are as quick as ever: the first looks of a row only
 * yield.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOOKS = 20, SLEEP_NS = 30000, SAME_ROW_NS = 50000 };

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int sched_yield(void)
{
    static _Thread_local int64_t last;
    static _Thread_local int looks;
    int result = 0;
    if (now_ns() - last > SAME_ROW_NS) looks = 0;
    if (looks < LOOKS) {
        looks++;
        result = (int)syscall(SYS_sched_yield);
    } else {
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    }
    last = now_ns();
    return result;
}
