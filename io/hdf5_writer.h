/* Writing an HDF5 file by all ranks: the same bytes for any number of ranks.
 *
 * Order of calls: create; groups, attributes and tables; rows of every table; finish. Everything is
 * created by all ranks alike before the first row is written: no object times, storage allocated at
 * once and never filled, no filters, object headers with checksums (format of HDF5 1.8). No
 * function leaves ranks behind in a collective call: outcomes are agreed before the next one.
 */
#ifndef SNRQ_HDF5_WRITER_H
#define SNRQ_HDF5_WRITER_H

#include <stdbool.h>

#include "io/hdf5_helpers.h"

typedef struct snrq_hdf5_writer {
    const snrq_context *context; /* borrowed */
    const char *path;            /* borrowed */
    hid_t file;
    int64_t tables;  /* made so far */
    uint64_t hashes; /* sum over the rows that this rank wrote */
} snrq_hdf5_writer;

/* Creates (or truncates) `path`, for about `bytes` bytes of data. SNRQ_CANNOT_WRITE if it cannot be
 * created or if the file system has less room. Collective; agreed. If it fails there is nothing to
 * finish. */
snrq_status snrq_hdf5_create(const snrq_context *context, const char *path, int64_t bytes,
                             snrq_hdf5_writer *out);

/* Flushes and closes the file. `status`: outcome so far, agreed; the file is removed if it,
 * flushing or closing failed. Collective; agreed. */
snrq_status snrq_hdf5_finish(snrq_hdf5_writer *writer, snrq_status status);

/* Each of these is called by all ranks with the same arguments and returns this rank's outcome, to
 * be agreed once everything is created. The caller closes *group (H5Gclose) and the table. */
snrq_status snrq_hdf5_make_group(snrq_hdf5_writer *writer, const char *name, hid_t *group);
snrq_status snrq_hdf5_make_table(snrq_hdf5_writer *writer, hid_t parent, const char *name,
                                 snrq_hdf5_kind kind, int dimensions, const int64_t *shape,
                                 snrq_hdf5_table *out);
snrq_status snrq_hdf5_put_text(const snrq_hdf5_writer *writer, hid_t object, const char *name,
                               const char *value);
snrq_status snrq_hdf5_put_integer(const snrq_hdf5_writer *writer, hid_t object, const char *name,
                                  int64_t value);
snrq_status snrq_hdf5_put_real(const snrq_hdf5_writer *writer, hid_t object, const char *name,
                               double value);
snrq_status snrq_hdf5_put_flag(const snrq_hdf5_writer *writer, hid_t object, const char *name,
                               bool value);

/* Puts rows [rows.begin, rows.end) of a table, as they are stored, into `out`. */
typedef snrq_status snrq_hdf5_fill(const void *source, snrq_range rows, void *out);

/* Writes the rows of this rank (which may be none), in steps of bounded memory. The ranges of all
 * ranks tile the table. Collective; agreed. */
snrq_status snrq_hdf5_write_rows(snrq_hdf5_writer *writer, const snrq_hdf5_table *table,
                                 snrq_range rows, snrq_hdf5_fill *fill, const void *source);

/* After finish: rank 0 opens the file again through `read_back`, which sums up the hashes of all
 * its rows; the sum must be the one of all ranks' rows. A file that fails is removed:
 * SNRQ_IO_ERROR. Collective; agreed. */
typedef snrq_status snrq_hdf5_read_back(const char *path, uint64_t *sum);
snrq_status snrq_hdf5_check(const snrq_hdf5_writer *writer, snrq_hdf5_read_back *read_back);

#endif
