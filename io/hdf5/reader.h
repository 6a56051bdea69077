/* Reading HDF5 files that may be damaged or hostile.
 *
 * Nothing is believed: objects must be plain (hard links, contiguous storage inside the file, no
 * filters, no external or virtual data), types, sizes and attributes must be the expected ones.
 * What is wrong is SNRQ_BAD_DATA with the names of file and object. HDF5 itself is not proof
 * against damaged metadata, though its checksums find accidents; the output directory's hashes are
 * checked before a file is opened. Not collective.
 */
#ifndef SNRQ_HDF5_READER_H
#define SNRQ_HDF5_READER_H

#include <stdbool.h>

#include "io/hdf5/helpers.h"

/* Opens a file to read; SNRQ_NO_INPUT if it is missing, SNRQ_BAD_DATA if it is not HDF5 or is cut
 * short, not marked as `format`, or of another version than `version`. *root is the root group;
 * close with snrq_hdf5_close_file(). */
snrq_status snrq_hdf5_open(const char *path, const char *format, int64_t version,
                           snrq_hdf5_object *root);
void snrq_hdf5_close_file(snrq_hdf5_object *root);

/* Names of the objects in a group, in order of name; at most `limit`. *names [*count] is allocated,
 * every name too; release with snrq_names_free() (directory.h). */
snrq_status snrq_hdf5_names(const snrq_hdf5_object *group, int limit, char ***names, int *count);

/* Opens a group; the name is borrowed. The caller closes it with snrq_hdf5_close_group(). */
snrq_status snrq_hdf5_open_group(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_object *group);

/* Is there such an attribute? */
bool snrq_hdf5_has(const snrq_hdf5_object *object, const char *name);

/* Attributes of exactly the types that the writer uses. Text must fit `size` with a NUL and be
 * printable. */
snrq_status snrq_hdf5_get_text(const snrq_hdf5_object *object, const char *name, char *out,
                               size_t size);
snrq_status snrq_hdf5_get_integer(const snrq_hdf5_object *object, const char *name, int64_t *out);
snrq_status snrq_hdf5_get_real(const snrq_hdf5_object *object, const char *name, double *out);
snrq_status snrq_hdf5_get_flag(const snrq_hdf5_object *object, const char *name, bool *out);

/* Opens a dataset of known kind and shape. */
snrq_status snrq_hdf5_open_table(const snrq_hdf5_object *parent, const char *name,
                                 snrq_hdf5_kind kind, int dimensions, const int64_t *shape,
                                 snrq_hdf5_table *out);
/* Opens a dataset of any kind in `kinds` [count] and any shape. */
snrq_status snrq_hdf5_find_table(const snrq_hdf5_object *parent, const char *name,
                                 const snrq_hdf5_kind *kinds, int count, snrq_hdf5_kind *kind,
                                 snrq_hdf5_table *out);

/* Reads the box [start, start + count), which the caller has checked, as it is stored. */
snrq_status snrq_hdf5_read(const char *path, const snrq_hdf5_table *table, const int64_t *start,
                           const int64_t *count, void *out);
/* Reads whole rows, as they are stored. */
snrq_status snrq_hdf5_read_rows(const char *path, const snrq_hdf5_table *table, snrq_range rows,
                                void *out);

/* Adds the hashes of all rows of a table to *sum (twin of the writer's sum). */
snrq_status snrq_hdf5_hash_table(const char *path, const snrq_hdf5_table *table, uint64_t *sum);

#endif
