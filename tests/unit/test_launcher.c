/* Whether a launcher started this process, by the environment alone. */
#define _DEFAULT_SOURCE /* clearenv() */
#include "mpi/launcher.h"

#include "tests/snrq_test.h"

static bool found_with(const char *name, const char *value)
{
    clearenv();
    setenv("PATH", "/usr/bin", 1);
    if (name != NULL) setenv(name, value, 1);
    return snrq_launcher_is_there();
}

static void none_in_a_shell(void)
{
    CU_ASSERT_FALSE(found_with(NULL, NULL));
    CU_ASSERT_FALSE(found_with("OMPI_MCA_pml", "ob1"));
    CU_ASSERT_FALSE(found_with("OMP_NUM_THREADS", "4"));
}

static void launchers_by_their_variables(void)
{
    const char *const names[] = {"PMIX_RANK",   "PMI_RANK",      "OMPI_COMM_WORLD_SIZE",
                                 "PMI_SIZE",    "PMI_FD",        "MV2_COMM_WORLD_SIZE",
                                 "PALS_RANKID", "FLUX_TASK_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) CU_ASSERT(found_with(names[i], "0"));
}

/* What sbatch gives to the script itself, and an interactive shell, which is a step of one task. */
static void a_batch_script_is_not_a_rank(void)
{
    found_with(NULL, NULL);
    setenv("SLURM_JOB_ID", "7", 1);
    setenv("SLURM_NTASKS", "8", 1);
    setenv("SLURM_PROCID", "0", 1);
    CU_ASSERT_FALSE(snrq_launcher_is_there());
    setenv("SLURM_STEP_ID", "4294967290", 1);
    setenv("SLURM_STEP_NUM_TASKS", "1", 1);
    CU_ASSERT_FALSE(snrq_launcher_is_there());
}

static void a_step_of_many_tasks_is_a_launcher(void)
{
    CU_ASSERT(found_with("SLURM_STEP_NUM_TASKS", "2"));
}

int main(void)
{
    static const snrq_test tests[] = {
        SNRQ_TEST(none_in_a_shell),
        SNRQ_TEST(launchers_by_their_variables),
        SNRQ_TEST(a_batch_script_is_not_a_rank),
        SNRQ_TEST(a_step_of_many_tasks_is_a_launcher),
    };
    return snrq_run_tests("launcher", tests, sizeof tests / sizeof *tests, 1);
}
