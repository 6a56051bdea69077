/* Writing a checkpoint as safetensors files, all ranks together.
 *
 * First every rank adds the same tensors, then the layout - which file, which offset - follows
 * from the list alone; rank 0 makes the files in full size with their headers, and each rank
 * writes its own tensors, or parts of them, at their known offsets. The bytes do not depend on the
 * number of ranks.
 *
 * Files are filled in the order of the list up to the size limit: model.safetensors, or
 * model-00001-of-00003.safetensors, ... and model.safetensors.index.json. In a file, tensors with
 * larger elements come first, so that all of them are aligned.
 */
#ifndef SNRQ_SAFETENSORS_SHARDS_H
#define SNRQ_SAFETENSORS_SHARDS_H

#include "io/staging.h"
#include "mpi/context.h"

typedef struct snrq_shards snrq_shards;

/* An empty list. max_bytes: of the tensors of a file, unless a single tensor is larger. Not
 * collective. */
snrq_status snrq_shards_create(const snrq_context *context, int64_t max_bytes, snrq_shards **out);

/* Adds a tensor; *index is its number. dtype ("I32") is borrowed. Not collective; the same calls
 * on all ranks. */
snrq_status snrq_shards_add(snrq_shards *shards, const char *name, const char *dtype,
                            int dimensions, const int64_t *shape, int *index);

/* Lays out and makes the files. SNRQ_CANNOT_WRITE if there is not room for all of them. Collective;
 * agreed. `staging` is borrowed. */
snrq_status snrq_shards_begin(snrq_shards *shards, snrq_staging *staging);

/* Writes bytes [begin, begin + bytes) of a tensor. Not collective. */
snrq_status snrq_shards_write(snrq_shards *shards, int index, uint64_t begin, const void *data,
                              size_t bytes);

/* Makes everything durable on every rank. Collective; agreed. */
snrq_status snrq_shards_finish(snrq_shards *shards);

/* Adds the index to the files, if there is more than one file. Rank 0; not agreed. */
snrq_status snrq_shards_put_index(snrq_shards *shards);

/* Bytes of all tensors, number of files. After snrq_shards_begin(). */
uint64_t snrq_shards_bytes(const snrq_shards *shards);
int snrq_shards_files(const snrq_shards *shards);

/* Closes files, frees, sets *shards to NULL. Not collective. */
void snrq_shards_destroy(snrq_shards **shards);

#endif
