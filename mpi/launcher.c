/* Launchers, by what they leave in the environment; see launcher.h. */
#include "mpi/launcher.h"

#include <stddef.h>
#include <stdlib.h>

/* Set for every rank by PMIx and PMI, which nearly all launchers speak, and by those that have
 * words of their own. */
static const char *const variables[] = {
    "PMIX_RANK",      "PMIX_NAMESPACE",       "PMI_RANK",        "PMI_SIZE",
    "PMI_FD",         "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE",
    "MPIRUN_RANK",    "PALS_RANKID",          "ALPS_APP_PE",     "JSM_NAMESPACE_SIZE",
    "FLUX_TASK_RANK",
};

bool snrq_launcher_is_there(void)
{
    /* A step of several tasks, whatever they use to find each other; 1 in an interactive shell. */
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    bool found = tasks != NULL && strtol(tasks, NULL, 10) > 1;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        found = found || getenv(variables[i]) != NULL;
    return found;
}

void snrq_launcher_expect_none(void)
{
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    setenv("OMPI_MCA_pml", "ob1", 0);
    setenv("OMPI_MCA_btl", "self", 0);
}
