/* Writing a GGUF file with all ranks: the tensors are the same on each, so every rank knows
 * where its rows go before the first one is written, and nothing is gathered.
 *
 * First the tensors are described, by the same calls on all ranks, and on rank 0 the
 * metadata; then the file is opened, each rank writes rows in any order, and it is finished.
 * A failure while describing (lack of memory) is kept and returned by snrq_gguf_open.
 *
 * The bytes of the file do not depend on the number of ranks. */
#ifndef SNRQ_GGUF_WRITER_H
#define SNRQ_GGUF_WRITER_H

#include <stdbool.h>
#include <stddef.h>

#include "io/gguf/layout.h"
#include "mpi/context.h"

typedef struct snrq_gguf_writer snrq_gguf_writer;

snrq_status snrq_gguf_writer_create(snrq_gguf_writer **out);
/* Closes and removes what was not finished. Not collective. */
void snrq_gguf_writer_destroy(snrq_gguf_writer **writer);

/* One key-value pair, in the order of the calls; each key once. Those of rank 0 are written.
 * Not collective. */
void snrq_gguf_put_u32(snrq_gguf_writer *writer, const char *key, int64_t value);
void snrq_gguf_put_f32(snrq_gguf_writer *writer, const char *key, double value);
void snrq_gguf_put_bool(snrq_gguf_writer *writer, const char *key, bool value);
void snrq_gguf_put_string(snrq_gguf_writer *writer, const char *key, const char *text);
/* The head of an array; its `count` elements must follow. */
void snrq_gguf_put_array(snrq_gguf_writer *writer, const char *key, snrq_gguf_kind kind,
                         int64_t count);
void snrq_gguf_element_string(snrq_gguf_writer *writer, const char *text, size_t bytes);
void snrq_gguf_element_i32(snrq_gguf_writer *writer, int64_t value);
void snrq_gguf_element_f32(snrq_gguf_writer *writer, double value);

/* Adds a matrix [rows, columns], or with columns = 0 a vector [rows], whose elements are its
 * rows; with `stacked` > 0 that many matrices, one after the other, whose rows are counted
 * through. Returns its index. `name` is shorter than SNRQ_GGUF_NAME. Not collective. */
int64_t snrq_gguf_add_tensor(snrq_gguf_writer *writer, const char *name, snrq_gguf_type type,
                             int64_t rows, int64_t columns, int64_t stacked);

/* Creates PATH.snrq.tmp at its full size with the header in it. SNRQ_CANNOT_WRITE if there is no
 * room. Collective; agreed. */
snrq_status snrq_gguf_open(const snrq_context *context, snrq_gguf_writer *writer, const char *path);

/* Writes rows [first, first + rows) of a tensor from `data`, already in GGUF blocks. Every row
 * must be written by one rank. Not collective. */
snrq_status snrq_gguf_write_rows(const snrq_gguf_writer *writer, int64_t tensor, int64_t first,
                                 int64_t rows, const void *data);

/* `status` is the outcome of this rank's writing. If all ranks are well the file is made
 * durable and renamed to PATH, else PATH.snrq.tmp is removed. Collective; agreed. */
snrq_status snrq_gguf_finish(const snrq_context *context, snrq_gguf_writer *writer,
                             snrq_status status);

/* Everything before the data, as snrq_gguf_open() would write it; the caller frees *out. Not
 * collective: of rank 0, which has the metadata. */
snrq_status snrq_gguf_header(const snrq_gguf_writer *writer, unsigned char **out, size_t *bytes);

/* Size of the whole file; known once it is open. */
uint64_t snrq_gguf_bytes(const snrq_gguf_writer *writer);

#endif
