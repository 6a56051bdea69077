/* Writing an HDF5 file by all ranks: the same bytes for any number of ranks, and no hang if one of
 * them fails.
 *
 *   1. Rank 0 alone lays the file out: groups, attributes, and tables whose storage is allocated at
 *      once and never filled. No object times, no filters, object headers with checksums (the
 * format of HDF5 1.8). Then the whole size of the file is reserved on the file system.
 *   2. Every rank opens the file through MPI-IO for itself and writes its own rows, in place.
 * Nothing else changes: neither metadata nor the size of the file.
 *   3. Every rank makes durable what it wrote and closes the file; rank 0 reads it back.
 *
 * Nothing that HDF5 or MPI-IO does here is collective: when one rank fails in a collective opening,
 * write or closing, the others wait inside it for ever (measured with faults in each of them), and
 * Open MPI 4.1 can corrupt interleaved collective writes (its issue 12718). Ranks write long
 * contiguous runs, which have little to gain from collective buffering.
 */
#ifndef SNRQ_HDF5_WRITER_H
#define SNRQ_HDF5_WRITER_H

#include <stdbool.h>

#include "io/hdf5/helpers.h"

typedef struct snrq_hdf5_writer {
    const snrq_context *context; /* borrowed */
    snrq_hdf5_object root;       /* open for reading and in-place writing, on all ranks */
    uint64_t hashes;             /* sum over the rows that this rank wrote */
} snrq_hdf5_writer;

/* Lays out an empty file below `root`, with the make and put functions. Called on rank 0 only. */
typedef snrq_status snrq_hdf5_layout(const snrq_hdf5_object *root, const void *source);

/* Creates (or replaces) `path` (borrowed), for about `bytes` bytes of data, and opens it on all
 * ranks. SNRQ_CANNOT_WRITE if it cannot be created or there is no room for it. Collective; agreed.
 * If it fails there is nothing to finish. */
snrq_status snrq_hdf5_create(const snrq_context *context, const char *path, int64_t bytes,
                             snrq_hdf5_layout *layout, const void *source, snrq_hdf5_writer *out);

/* For layout functions. Not collective. The caller closes groups with
 * snrq_hdf5_close_group(). */
snrq_status snrq_hdf5_make_group(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_object *group);
snrq_status snrq_hdf5_make_table(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_kind kind, int dimensions, const int64_t *shape);
snrq_status snrq_hdf5_put_text(const snrq_hdf5_object *object, const char *name, const char *value);
snrq_status snrq_hdf5_put_integer(const snrq_hdf5_object *object, const char *name, int64_t value);
snrq_status snrq_hdf5_put_real(const snrq_hdf5_object *object, const char *name, double value);
snrq_status snrq_hdf5_put_flag(const snrq_hdf5_object *object, const char *name, bool value);

/* What opening tables of the file being written came to: what rank 0 has just laid out is not
 * damaged, but cannot be read, which is SNRQ_IO_ERROR. Call it right after. Not collective. */
snrq_status snrq_hdf5_opened(const snrq_hdf5_writer *writer, snrq_status status);

/* Puts rows [rows.begin, rows.end) of a table, as they are stored, into `out`. */
typedef snrq_status snrq_hdf5_fill(const void *source, snrq_range rows, void *out);

/* Writes the rows of this rank (which may be none), in steps of bounded memory. The ranges of all
 * ranks tile the table. Not collective: the outcome is agreed by snrq_hdf5_finish(). */
snrq_status snrq_hdf5_write_rows(snrq_hdf5_writer *writer, const snrq_hdf5_table *table,
                                 snrq_range rows, snrq_hdf5_fill *fill, const void *source);

/* Recomputes, on rank 0, the sum of the hashes of all rows of a file. */
typedef snrq_status snrq_hdf5_read_back(const char *path, uint64_t *sum);

/* Agrees on `status` (this rank's outcome), closes the file, and on rank 0 reads it back: the sum
 * of the hashes must be the one of what the ranks wrote. read_back NULL: the file holds hashes of
 * its own, which whoever reads it compares. The file is removed if anything failed. Collective;
 * agreed. */
snrq_status snrq_hdf5_finish(snrq_hdf5_writer *writer, snrq_status status,
                             snrq_hdf5_read_back *read_back);

#endif
