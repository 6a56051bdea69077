/* Starting HDF5; see start.h. */
#include "io/hdf5/start.h"

#include <stdio.h>

#include "io/hdf5/helpers.h"

snrq_status snrq_hdf5_start(void)
{
    if (H5dont_atexit() < 0 || H5open() < 0)
        return snrq_fail(SNRQ_INTERNAL, "HDF5 cannot be started");
    snrq_hdf5_silence();
    return SNRQ_OK;
}

void snrq_hdf5_version(char *out, size_t size)
{
    snprintf(out, size, "%d.%d.%d", H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE);
}
