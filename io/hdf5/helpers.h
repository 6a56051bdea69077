/* What reading and writing HDF5 files have in common: error text, element types, tables.
 *
 * A dataset is seen as a table of rows: the first dimension counts them, the others make up a row.
 * Data is always read and written in the type it is stored in, so that what is hashed are the bytes
 * of the file.
 */
#ifndef SNRQ_HDF5_HELPERS_H
#define SNRQ_HDF5_HELPERS_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "mpi/collective.h"

enum { SNRQ_HDF5_MAX_DIMENSIONS = 8, SNRQ_HDF5_MAX_NAME = 255 };

/* Types of elements, all little-endian. BF16 is stored as u16 with the attribute dtype = "BF16". */
typedef enum snrq_hdf5_kind {
    SNRQ_HDF5_U8,
    SNRQ_HDF5_I32,
    SNRQ_HDF5_F16,
    SNRQ_HDF5_BF16,
    SNRQ_HDF5_F32
} snrq_hdf5_kind;

/* An open file, group or dataset, with its name for messages. */
typedef struct snrq_hdf5_object {
    hid_t id;
    const char *path; /* of the file; borrowed */
    const char *name; /* borrowed; "/" for the root */
} snrq_hdf5_object;

/* Closes a group; one that could not be opened is left alone. */
void snrq_hdf5_close_group(snrq_hdf5_object *group);

/* An open dataset. */
typedef struct snrq_hdf5_table {
    hid_t dataset, type; /* owned */
    int dimensions;
    int64_t shape[SNRQ_HDF5_MAX_DIMENSIONS];
    int64_t rows;     /* shape[0]; 1 for a single number */
    size_t row_bytes; /* bytes of one row; 0 if another dimension is 0 */
    int64_t index;    /* number of the table in its file, seeds the hash of its rows */
} snrq_hdf5_table;

/* Records `what` happened to `path`, with what HDF5 says about the call that just failed; returns
 * `status`, or SNRQ_IO_ERROR if the system could not read or write the file (or could not open it
 * and `status` is SNRQ_BAD_DATA). Call it before any other HDF5 function. Not collective. */
snrq_status snrq_hdf5_error(snrq_status status, const char *path, const char *what);

/* True if the HDF5 call that just failed did so because the system could not read the file: then
 * *status is SNRQ_IO_ERROR with a message. Call it before any other HDF5 function. Not collective.
 */
bool snrq_hdf5_system_failed(const char *path, snrq_status *status);

/* Turns HDF5's own error printing off. Not collective. */
void snrq_hdf5_silence(void);

/* A new handle of the type that is stored for `kind`, or -1; the caller closes it. */
hid_t snrq_hdf5_type(snrq_hdf5_kind kind);
size_t snrq_hdf5_size(snrq_hdf5_kind kind);

/* Fills in the shape of a table. SNRQ_BAD_DATA if it has too many dimensions or more than 2^62
 * bytes. */
snrq_status snrq_hdf5_shape(snrq_hdf5_table *table, const char *name, snrq_hdf5_kind kind,
                            int dimensions, const int64_t *shape);
/* Closes the handles of a table (zeroed ones are left alone) and zeroes it. */
void snrq_hdf5_table_close(snrq_hdf5_table *table);

/* Dataspaces for a transfer of the box [start, start + count) of a table, one entry per dimension.
 * Both are closed by the caller; -1 on failure. */
void snrq_hdf5_select(const snrq_hdf5_table *table, const int64_t *start, const int64_t *count,
                      hid_t *file_space, hid_t *memory_space);

/* Sum modulo 2^64 of the hashes of `rows` (XXH3-64, seeded by table and row); data holds these
 * rows. */
uint64_t snrq_hdf5_row_hashes(const snrq_hdf5_table *table, snrq_range rows, const void *data);

/* True if `name` can be the name of a group or dataset and be printed: not empty, not "." or "..",
 * at most SNRQ_HDF5_MAX_NAME bytes, no '/', no control characters. */
bool snrq_hdf5_name_is_valid(const char *name);

#endif
