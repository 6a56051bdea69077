/* What a block file says about a module besides its arrays: fields as attributes, and the shapes
 * that follow.
 *
 * One table of fields serves writing and reading; one set of rules says what is possible in both
 * directions.
 */
#ifndef SNRQ_BLOCK_RECORD_H
#define SNRQ_BLOCK_RECORD_H

#include "io/checkpoint/block_file.h"
#include "io/hdf5/reader.h"
#include "io/hdf5/writer.h"

/* The tables of a module, in the order in which they are made. */
enum { SNRQ_CODES, SNRQ_SCALES, SNRQ_ZEROS, SNRQ_G_IDX, SNRQ_TABLES };

/* What makes a record impossible, or NULL. */
const char *snrq_block_record_problem(const snrq_module_record *record);

/* Kind and shape of a table of a module; returns the number of dimensions. */
int snrq_block_table_shape(const snrq_module_record *record, int table, snrq_hdf5_kind *kind,
                           int64_t shape[2]);

/* Writes the attributes of a module's group (rank 0). */
snrq_status snrq_block_record_put(const snrq_hdf5_object *group, const snrq_module_record *record);
/* Reads and checks them; the name is the group's. SNRQ_BAD_DATA says what is wrong. */
snrq_status snrq_block_record_get(const snrq_hdf5_object *group, snrq_module_record *record);

#endif
