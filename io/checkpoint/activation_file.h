/* Activations of both streams between two blocks, in parallel HDF5: OUT/activations-00007.h5.
 *
 * Not part of a checkpoint: a run that resumes reads them where it would have to take both streams
 * through all committed blocks again. Layout:
 *
 *   /           attributes: format = "snrq-activations", format_version, block (the last one that
 *               the streams went through), record (fingerprint of its manifest record)
 *   quantized   f32 [windows, tokens, hidden]: after the blocks as they are committed
 *   full        f32 [windows, tokens, hidden]: after the original blocks
 *   hashes      u8 [windows, 16]: XXH3-64 of a window of `quantized` and of `full`, little-endian,
 *               seeded by stream and window
 *
 * The hashes are of what the ranks had in memory when they wrote, and are compared with what the
 * ranks have in memory when they have read: whatever happens between, on any number of ranks, a
 * window is read as it was or not at all. HDF5 has checksums of its own for everything else in the
 * file. Its bytes do not depend on the number of ranks: see io/hdf5/writer.h.
 */
#ifndef SNRQ_ACTIVATION_FILE_H
#define SNRQ_ACTIVATION_FILE_H

#include "mpi/collective.h"

/* What activations belong to. Same on all ranks. */
typedef struct snrq_activation_facts {
    int64_t block;
    char record[33]; /* 32 hex digits */
    int64_t windows, tokens, hidden;
} snrq_activation_facts;

/* Writes a complete file at `path` (no rename: see output.h). windows: those of this rank; the
 * ranges of all ranks tile [0, facts->windows) in rank order. quantized, full: [local windows,
 * tokens, hidden], borrowed. SNRQ_CANNOT_WRITE if there is no room; nothing is left at `path` if it
 * fails. Collective; agreed. */
snrq_status snrq_activation_file_write(const snrq_context *context, const char *path,
                                       const snrq_activation_facts *facts, snrq_range windows,
                                       const float *quantized, const float *full);

/* Reads some windows into quantized and full, [windows.end - windows.begin, tokens, hidden].
 * SNRQ_BAD_DATA if the file is damaged, or belongs to something else than `facts`. What the arrays
 * hold after a failure is undefined. Not collective: each process opens the file by itself. */
snrq_status snrq_activation_file_read(const char *path, const snrq_activation_facts *facts,
                                      snrq_range windows, float *quantized, float *full);

/* Checks every window of a file. Not collective. */
snrq_status snrq_activation_file_check(const char *path);

/* Bytes of the activations of a file, without what HDF5 adds. */
int64_t snrq_activation_file_bytes(int64_t windows, int64_t tokens, int64_t hidden);

#endif
