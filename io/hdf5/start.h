/* Starting HDF5, for the main program. */
#ifndef SNRQ_HDF5_START_H
#define SNRQ_HDF5_START_H

#include <stddef.h>

#include "mpi/status.h"

/* Starts HDF5 such that it does nothing when MPI or the program ends: every file is closed before.
 * By itself it then closes once more what could not be closed, as on a full disk, and crashes. Call
 * it before MPI_Init(), to whose end HDF5 ties its own if it starts later. Needs no MPI, and
 * neither does reading a file afterwards; writing one does. Not collective. */
snrq_status snrq_hdf5_start(void);

/* The version of the library this was built with (it accepts no other): "1.10.8". Asking the
 * library itself would start it, before snrq_hdf5_start can. */
void snrq_hdf5_version(char *out, size_t size);

#endif
