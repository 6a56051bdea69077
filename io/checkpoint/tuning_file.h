/* Where tuning is after an epoch, in parallel HDF5: OUT/snrq.tuning.
 *
 * Not part of a checkpoint: a run that resumes goes on from it. Layout:
 *
 *   /           attributes: format = "snrq-tuning", format_version, records (fingerprint of the
 *               records of what is tuned), epoch, best, xxh3 (of the numbers, 16 hex digits)
 *   history     u8 [bytes]: JSON, what is recorded of the epochs
 *   numbers     f32 [rows, 256]: values, the optimizer's means and squares, best values
 *
 * The hash is of what was in memory when it was written, and is compared with what is in memory
 * when it was read. The bytes do not depend on the number of ranks: see io/hdf5/writer.h.
 */
#ifndef SNRQ_TUNING_FILE_H
#define SNRQ_TUNING_FILE_H

#include "mpi/collective.h"

enum { SNRQ_TUNING_ROW = 256 /* numbers */ };

typedef struct snrq_tuning_facts {
    char records[33]; /* 32 hex digits */
    int64_t epoch, best, rows;
    const char *history; /* borrowed */
} snrq_tuning_facts;

/* Writes a complete file at `path` (no rename: see output.h). numbers [rows, 256]: the same on all
 * ranks, borrowed. Nothing is left at `path` if it fails. Collective; agreed. */
snrq_status snrq_tuning_file_write(const snrq_context *context, const char *path,
                                   const snrq_tuning_facts *facts, const float *numbers);

/* Reads a file that must have the records and rows of *facts, whose other fields are filled in;
 * *history is what facts->history points to, and the caller's to free. numbers [rows, 256]: of each
 * node, whose ranks fill in a share each. SNRQ_BAD_DATA if it is damaged or belongs to something
 * else; numbers are undefined then. The caller agrees, syncs, and asks snrq_tuning_file_check().
 * Not collective. */
snrq_status snrq_tuning_file_read(const snrq_context *context, const char *path,
                                  snrq_tuning_facts *facts, char **history, float *numbers);

/* Are the numbers that all ranks of the node have read those that were written? Not collective. */
snrq_status snrq_tuning_file_check(const char *path, int64_t rows, const float *numbers);

#endif
