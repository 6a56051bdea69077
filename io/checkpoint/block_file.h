/* Quantized blocks in parallel HDF5: OUT/block-00007.h5.
 *
 * Layout (docs/format.md is the page for readers):
 *
 *   /                    attributes: format = "snrq-block", format_version (1 or 2), block
 *   /MODULE/             one group per linear module, called by its full Hugging Face name
 *       codes            u8 [rows, ceil(columns * bits / 8)]: a row is one LSB-first bit stream
 *       scales           f16 | bf16 (as u16) | f32 [rows, groups]
 *       zeros            u8 [rows, groups]
 *       minima           as scales; only of formats that have them
 *       g_idx            i32 [columns]: group of each column, original column order
 *       attributes       "index" and the fields of snrq_module_record, but for the name
 *
 *   weight (r, c) = scales[r, g_idx[c]] * (code[r, c] - zeros[r, g_idx[c]]) - minima[r, g_idx[c]],
 *   in fp32, or scales[r, g_idx[c]] * level[code] of a format with a code book
 *
 * format_version is 2 if a module has minima or a code book, which older readers do not know,
 * else 1.
 *
 * The bytes of the file do not depend on the number of ranks: see io/hdf5/writer.h.
 */
#ifndef SNRQ_BLOCK_FILE_H
#define SNRQ_BLOCK_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "io/checkpoint/block_record.h"
#include "mpi/collective.h"

/* A module with this rank's part of its arrays; all borrowed. */
typedef struct snrq_module_rows {
    snrq_module_record record;
    snrq_range rows; /* of this rank; the ranges of all ranks tile [0, record.rows) in rank order */
    const uint8_t *codes; /* [local rows, columns], one code per byte */
    const float *scales;  /* [local rows, groups], values that scale_type holds exactly */
    const uint8_t *zeros; /* [local rows, groups] */
    const float *minima;  /* [local rows, groups] if the record's format has them, else NULL */
    const int32_t *g_idx; /* [columns], the same on all ranks */
} snrq_module_rows;

/* Name of a block's file in an output directory. */
void snrq_block_file_name(int64_t block, char out[32]);

/* Writes a complete block file at `path` (no rename: see output.h) and reads it back on rank 0: an
 * order-free sum of row hashes must agree with what the ranks passed in. Collective; agreed. */
snrq_status snrq_block_file_write(const snrq_context *context, const char *path, int64_t block,
                                  const snrq_module_rows *modules, int count);

/* Reading. Not collective: each process opens the file by itself. */
typedef struct snrq_block_file snrq_block_file;
snrq_status snrq_block_file_open(const char *path, snrq_block_file **out);
void snrq_block_file_close(snrq_block_file **file);
int64_t snrq_block_file_block(const snrq_block_file *file);
int snrq_block_file_count(const snrq_block_file *file);
/* Record of module i, in the order they were written (attribute "index" keeps it). Borrowed. */
const snrq_module_record *snrq_block_file_record(const snrq_block_file *file, int index);
/* Reads rows [rows.begin, rows.end) of a module; any output may be NULL. codes are unpacked, one
 * per byte; g_idx [columns] is read whole and every entry checked to be in [0, groups), codes and
 * zeros to be < 2^bits, scales to be finite. */
snrq_status snrq_block_file_read(const snrq_block_file *file, int index, snrq_range rows,
                                 uint8_t *codes, float *scales, uint8_t *zeros, int32_t *g_idx);

/* The same of the minima [rows, groups]: 0 where a module has none. */
snrq_status snrq_block_file_read_minima(const snrq_block_file *file, int index, snrq_range rows,
                                        float *minima);

/* What is read of some rows of a module. */
typedef struct snrq_module_codes {
    uint8_t *codes, *zeros; /* [rows, columns], [rows, groups] */
    float *scales, *minima; /* [rows, groups] */
    int32_t *g_idx;         /* [columns] */
} snrq_module_codes;
/* Allocates it for `rows` rows; free it in any case. */
snrq_status snrq_module_codes_allocate(const snrq_module_record *record, int64_t rows,
                                       snrq_module_codes *out);
/* Reads rows into it, all of them, and g_idx. */
snrq_status snrq_module_codes_read(const snrq_block_file *file, int index, snrq_range rows,
                                   const snrq_module_codes *out);
/* The weight in row i of them, column c. groups: of the record. */
static inline float snrq_module_codes_value(const snrq_module_codes *m,
                                            const snrq_module_record *record, int64_t i, int64_t c)
{
    int64_t g = i * record->groups + m->g_idx[c];
    return snrq_code_value(snrq_module_record_levels(record), m->scales[g], m->zeros[g],
                           m->minima[g], m->codes[i * record->columns + c]);
}
void snrq_module_codes_free(snrq_module_codes *codes);

#endif
