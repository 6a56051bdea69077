/* The program snrq of a portable build: becomes the one of its kind with the best instructions that
 * this CPU has, or those that SNRQ_CPU names; see mpi/algebra/kernels.h. It does so before MPI
 * starts, in the process that the launcher made, with all that it was given. */
#define _DEFAULT_SOURCE /* readlink() */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mpi/status.h"

enum { SETS = 3 };
static const char *const names[SETS] = {"generic", "avx2", "avx512"};

/* From the folder of this program: as installed, and as built. */
static const char *const folders[] = {SNRQ_KERNELS_FOLDER, "kernels"};
enum { FOLDERS = sizeof folders / sizeof *folders };

/* What the compiler may use for each set of instructions (CMakeLists.txt). */
static int best_set(void)
{
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return avx2 && avx512 ? 2 : avx2 ? 1 : 0;
}

/* The set to use, or -1 after a message. */
static int choose_set(void)
{
    const char *wish = getenv("SNRQ_CPU");
    int best = best_set(), set = 0;
    if (wish == NULL || wish[0] == '\0') return best;
    while (set < SETS && strcmp(wish, names[set]) != 0) set++;
    if (set <= best) return set;
    if (set == SETS)
        fprintf(stderr, "snrq: SNRQ_CPU: expected generic, avx2 or avx512, found '%s'\n", wish);
    else
        fprintf(stderr,
                "snrq: SNRQ_CPU is %s, but this CPU has no such instructions; the best it has is "
                "%s\n",
                wish, names[best]);
    return -1;
}

/* folder [PATH_MAX] <- where this program lies, with a slash. */
static bool find_folder(char *folder)
{
    ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    if (length <= 0) return false;
    folder[length] = '\0';
    *(strrchr(folder, '/') + 1) = '\0';
    return true;
}

int main(int argc, char **argv)
{
    char folder[PATH_MAX], path[2 * PATH_MAX];
    int set = choose_set();
    (void)argc;
    if (set < 0) return SNRQ_USAGE;
    if (!find_folder(folder)) {
        fprintf(stderr, "snrq: /proc/self/exe cannot be read: %s\n", strerror(errno));
        return SNRQ_NO_INPUT;
    }
    for (int i = 0; i < FOLDERS; i++) {
        snprintf(path, sizeof path, "%s%s/snrq-%s", folder, folders[i], names[set]);
        execv(path, argv);
        if (errno != ENOENT) break;
    }
    fprintf(stderr,
            "snrq: %s cannot be started: %s; it is installed and moved together with %ssnrq\n",
            path, strerror(errno), folder);
    return SNRQ_NO_INPUT;
}
