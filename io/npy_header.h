/* The beginning of a .npy file: what lies in it. Versions 1.0, 2.0 and 3.0 of NumPy's format. */
#ifndef SNRQ_NPY_HEADER_H
#define SNRQ_NPY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/status.h"

enum { SNRQ_NPY_DIMENSIONS = 8 };

typedef struct snrq_npy_header {
    size_t begin; /* of the data, in bytes */
    char kind;    /* 'i', 'u', 'f', 'b', ... as NumPy calls it */
    int item_bytes;
    bool big_endian, fortran_order;
    int dims;
    int64_t shape[SNRQ_NPY_DIMENSIONS];
    int64_t count; /* product of the shape */
} snrq_npy_header;

/* Does a file that begins so [bytes] call itself .npy? */
bool snrq_npy_is(const void *data, size_t bytes);

/* Reads the header of `data` [bytes], a whole .npy file, whose data must end where the file does.
 * SNRQ_BAD_DATA says what was expected and found. Not collective. */
snrq_status snrq_npy_header_read(const char *path, const void *data, size_t bytes,
                                 snrq_npy_header *out);

#endif
