/* Was this process started by an MPI launcher? Asked before MPI is started, so that a command that
 * works on one process starts MPI only where there may be others. */
#ifndef SNRQ_LAUNCHER_H
#define SNRQ_LAUNCHER_H

#include <stdbool.h>

/* Whether the environment holds what a launcher gives to its ranks (mpirun of Open MPI, MPICH,
 * Intel MPI or MVAPICH; srun, aprun, jsrun, flux). In doubt true: one rank too many that starts MPI
 * costs half a second, one too few leaves the others waiting. False in the script of a batch job,
 * which Slurm starts once and not as a rank. Not collective. */
bool snrq_launcher_is_there(void);

/* Tells Open MPI what it would find out in a third of a second: that there is one process, which
 * needs no daemon beside it and no network. To be called before MPI is started, where no launcher
 * is there. Variables that are set already stay as they are; other MPIs do not know them. Not
 * collective. */
void snrq_launcher_expect_none(void);

#endif
