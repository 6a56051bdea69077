/* Arrays for NumPy; see npy.h.
 *
 * Layout: "\x93NUMPY", 1, 0, length of the header (u16, little-endian), header, data. The header is
 * a Python dict, padded with blanks and ended by a newline so that the data begins at a multiple
 * of 64.
 */
#include "io/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the data is written as it lies in memory: this needs a little-endian machine"
#endif

enum { MAX_DIMENSIONS = 8, HEADER_BYTES = 320, ALIGNMENT = 64, PREFIX = 10 };

/* Builds the header; returns its size. */
static size_t make_header(const int64_t *shape, int dims, unsigned char header[HEADER_BYTES])
{
    char text[HEADER_BYTES - PREFIX];
    int used = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < dims; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%lld%s", (long long)shape[i],
                         i + 1 < dims ? ", "
                         : dims == 1  ? ","
                                      : "");
    used += snprintf(text + used, sizeof text - (size_t)used, "), }");
    size_t bytes = ((size_t)used + PREFIX + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (unsigned char)((bytes - PREFIX) & 0xff);
    header[9] = (unsigned char)((bytes - PREFIX) >> 8);
    memset(header + PREFIX, ' ', bytes - PREFIX);
    memcpy(header + PREFIX, text, (size_t)used);
    header[bytes - 1] = '\n';
    return bytes;
}

snrq_status snrq_npy_write_f32(snrq_user_output *out, const float *data, const int64_t *shape,
                               int dims)
{
    const char *path = snrq_user_output_path(out);
    unsigned char header[HEADER_BYTES];
    size_t count = 1;
    if (dims < 0 || dims > MAX_DIMENSIONS)
        return snrq_fail(SNRQ_INTERNAL, "%s: an array of %d dimensions cannot be written", path,
                         dims);
    for (int i = 0; i < dims; i++) {
        if (shape[i] < 0 || (shape[i] > 0 && count > SIZE_MAX / 8 / (size_t)shape[i]))
            return snrq_fail(SNRQ_INTERNAL, "%s: dimension %d of %lld is out of range", path, i,
                             (long long)shape[i]);
        count *= (size_t)shape[i];
    }
    size_t begin = make_header(shape, dims, header), bytes = begin + count * sizeof *data;
    unsigned char *file = NULL;
    SNRQ_TRY(snrq_allocate(bytes, 1, "a .npy file", &file));
    memcpy(file, header, begin);
    if (count > 0) memcpy(file + begin, data, count * sizeof *data);
    snrq_status status = snrq_user_output_write(out, file, bytes);
    free(file);
    return status;
}
