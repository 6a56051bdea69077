/* Arrays for NumPy: the .npy format, version 1.0. */
#ifndef SNRQ_NPY_H
#define SNRQ_NPY_H

#include <stdint.h>

#include "io/user_output.h"

/* Writes data [shape[0], ..., shape[dims - 1]], row-major, as float32; dims 0 to 8 (0: a single
 * number), as the whole content of `out`. Not collective. */
snrq_status snrq_npy_write_f32(snrq_user_output *out, const float *data, const int64_t *shape,
                               int dims);

#endif
