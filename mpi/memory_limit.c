/* Limits on memory; see memory_limit.h. */
#include "mpi/memory_limit.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values above are "no limit": v1 says so with a number near 2^63. */
static const double unlimited = 1e17;

typedef struct limit {
    double bytes; /* 0: none yet */
    const char *source;
} limit;

static void lower(limit *l, double bytes, const char *source)
{
    if (bytes > 0 && bytes < unlimited && (l->bytes <= 0 || bytes < l->bytes))
        *l = (limit){bytes, source};
}

/* The number at the start of a file; 0 if there is none ("max"). */
static double read_number(const char *path)
{
    double value = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%lf", &value) != 1) value = 0;
    fclose(file);
    return value;
}

/* The limit of a group and of all groups above it. In a container the path may be the one outside:
 * what does not exist is passed over. */
static void lower_by_groups(limit *l, const char *mount, const char *group, const char *file,
                            const char *source)
{
    char at[2048], path[PATH_MAX];
    snprintf(at, sizeof at, "%s", group);
    for (;;) {
        char *end = strrchr(at, '/');
        snprintf(path, sizeof path, "%s%s/%s", mount, strcmp(at, "/") == 0 ? "" : at, file);
        lower(l, read_number(path), source);
        if (end == NULL) return;
        *end = '\0';
    }
}

/* Lines of /proc/self/cgroup are "0::/group" (v2) and "N:controllers:/group" (v1). */
static void lower_by_cgroups(limit *l, const char *root)
{
    char path[PATH_MAX], line[2048], mount[PATH_MAX];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "r");
    if (file == NULL) return;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) continue;
        *group++ = '\0';
        if (strcmp(controllers, ":") == 0) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
            lower_by_groups(l, mount, group, "memory.max", "the control group's memory.max");
        } else if (strstr(controllers, "memory") != NULL) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/memory", root);
            lower_by_groups(l, mount, group, "memory.limit_in_bytes",
                            "the control group's memory.limit_in_bytes");
        }
    }
    fclose(file);
}

static double environment_number(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtod(text, NULL) : 0;
}

static void lower_by_slurm(limit *l)
{
    double cpus = environment_number("SLURM_CPUS_ON_NODE");
    lower(l, environment_number("SLURM_MEM_PER_NODE") * 1048576.0, "Slurm's --mem");
    lower(l, environment_number("SLURM_MEM_PER_CPU") * (cpus > 0 ? cpus : 0) * 1048576.0,
          "Slurm's --mem-per-cpu");
}

static void lower_by_machine(limit *l, const char *root)
{
    char path[PATH_MAX], line[256];
    double kilobytes = 0;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = fopen(path, "r");
    if (file == NULL) return;
    while (kilobytes <= 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "MemTotal:", 9) == 0) kilobytes = strtod(line + 9, NULL);
    fclose(file);
    lower(l, kilobytes * 1024.0, "the node's memory");
}

double snrq_memory_limit(const char *root, const char **source)
{
    limit l = {0, "nothing known"};
    lower_by_machine(&l, root);
    lower_by_cgroups(&l, root);
    lower_by_slurm(&l);
    *source = l.source;
    return l.bytes;
}
