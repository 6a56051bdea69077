/* Limits on memory: of made-up machines and control groups, and of Slurm's variables. */
#include "mpi/memory_limit.h"
#include "tests/unit/test_files.h"

static const double mega = 1048576.0;

/* Writes a file and the folders above it. */
static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s", name);
    for (char *at = path; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        mkdir(scratch_path(path), 0777);
        *at = '/';
    }
    scratch_write_text(name, text);
}

/* A machine of 4000 MiB whose processes are in `groups`. */
static void begin(const char *groups)
{
    remove_tree(scratch());
    mkdir(scratch(), 0777);
    unsetenv("SLURM_MEM_PER_NODE");
    unsetenv("SLURM_MEM_PER_CPU");
    unsetenv("SLURM_CPUS_ON_NODE");
    put("proc/meminfo", "MemFree: 1 kB\nMemTotal:     4096000 kB\n");
    put("proc/self/cgroup", groups);
}

static void expect(double bytes, const char *what)
{
    const char *source = NULL;
    CU_ASSERT_EQUAL(snrq_memory_limit(scratch(), &source), bytes);
    CU_ASSERT_PTR_NOT_NULL(strstr(source, what));
}

static void the_machine_is_the_limit(void)
{
    begin("0::/\n");
    expect(4000 * mega, "the node's memory");
    put("sys/fs/cgroup/memory.max", "max\n");
    expect(4000 * mega, "the node's memory");
}

static void the_narrowest_group_counts(void)
{
    begin("0::/slurm/job_7/step_0\n");
    put("sys/fs/cgroup/slurm/job_7/memory.max", "1048576000\n");
    put("sys/fs/cgroup/slurm/job_7/step_0/memory.max", "max\n");
    expect(1000 * mega, "memory.max");
    put("sys/fs/cgroup/memory.max", "943718400\n");
    expect(900 * mega, "memory.max");
}

static void groups_of_version_1(void)
{
    begin("9:cpuset:/a\n8:memory:/slurm/job_7\n1:name=systemd:/x\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    expect(4000 * mega, "the node's memory");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "524288000\n");
    expect(500 * mega, "limit_in_bytes");
}

static void slurm_says_how_much(void)
{
    begin("0::/\n");
    setenv("SLURM_MEM_PER_NODE", "3000", 1);
    expect(3000 * mega, "--mem");
    setenv("SLURM_MEM_PER_NODE", "0", 1); /* all of it */
    expect(4000 * mega, "the node's memory");
    setenv("SLURM_MEM_PER_CPU", "512", 1);
    setenv("SLURM_CPUS_ON_NODE", "4", 1);
    expect(2048 * mega, "--mem-per-cpu");
}

static void nothing_is_known(void)
{
    begin("");
    remove_tree(scratch_path("proc"));
    expect(0, "nothing known");
}

int main(void)
{
    static const snrq_test tests[] = {SNRQ_TEST(the_machine_is_the_limit),
                                      SNRQ_TEST(the_narrowest_group_counts),
                                      SNRQ_TEST(groups_of_version_1),
                                      SNRQ_TEST(slurm_says_how_much), SNRQ_TEST(nothing_is_known)};
    int result = snrq_run_tests("memory limit", tests, sizeof tests / sizeof *tests, 1);
    scratch_remove();
    return result;
}
