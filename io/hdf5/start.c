/* Starting HDF5; see start.h. */
#include "io/hdf5/start.h"

#include "io/hdf5/helpers.h"

snrq_status snrq_hdf5_start(void)
{
    if (H5dont_atexit() < 0 || H5open() < 0)
        return snrq_fail(SNRQ_INTERNAL, "HDF5 cannot be started");
    snrq_hdf5_silence();
    return SNRQ_OK;
}
