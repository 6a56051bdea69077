/* Reading safetensors checkpoints: one file, or a sharded directory with an index.
 *
 * The header is checked before anything is believed (format rules: docs/format.md and the
 * safetensors README): length, UTF-8 JSON object, duplicate keys, dtypes, shapes, offsets without
 * hole or overlap, file size. Tensor data is read with large explicit reads, never mapped.
 */
#ifndef SNRQ_SAFETENSORS_H
#define SNRQ_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

enum { SNRQ_MAX_DIMENSIONS = 8 };

typedef struct snrq_tensor {
    char *name;                         /* owned by the reader */
    char dtype[16];                     /* as the file spells it: "F32", "BF16", "I32", ... */
    int element_bits;                   /* 8, 16, 32, 64, ... */
    int dimensions;                     /* 0..SNRQ_MAX_DIMENSIONS */
    int64_t shape[SNRQ_MAX_DIMENSIONS]; /* row-major */
    uint64_t offset;                    /* of the first byte, from the start of its file */
    uint64_t bytes;
    int file;     /* index of the shard */
    bool another; /* another name of a tensor that is there: the same bytes */
} snrq_tensor;

typedef struct snrq_safetensors snrq_safetensors;

/* Opens `path`: a .safetensors file, or a directory that holds model.safetensors or
 * model.safetensors.index.json. Not collective. SNRQ_NO_INPUT if it is missing, SNRQ_BAD_DATA if
 * any rule is violated (message: file, place, expected, found). */
snrq_status snrq_safetensors_open(const char *path, snrq_safetensors **out);
/* Closes files, frees, sets *reader to NULL. */
void snrq_safetensors_close(snrq_safetensors **reader);

/* Gives tensors the names that Hugging Face models use, in the whole checkpoint alike:
 * - what __metadata__ says is a tensor under another name ({"NAME": "TENSOR"}, as safetensors
 *   writes where several names share one) gets that name as well;
 * - what wrappers put before names ("module.", "_orig_mod.", "base_model.model.") goes, and
 *   "model." comes where it is missing. The tensor model.norm.weight tells which of them.
 * To be called once, after opening. SNRQ_BAD_DATA if names are those of two models, or two tensors
 * would get one. Not collective. */
snrq_status snrq_safetensors_resolve(snrq_safetensors *reader);
/* What that changed, in words ("without 'module.'"), or "". Borrowed. */
const char *snrq_safetensors_spelling(const snrq_safetensors *reader);

/* The shard in which the index lists a tensor that no shard holds, or NULL. Borrowed. */
const char *snrq_safetensors_missing(const snrq_safetensors *reader, const char *name);

/* Number of tensors, and the i-th in order of name. Borrowed. */
int64_t snrq_safetensors_count(const snrq_safetensors *reader);
const snrq_tensor *snrq_safetensors_at(const snrq_safetensors *reader, int64_t index);
/* The tensor called `name`, or NULL. Borrowed. */
const snrq_tensor *snrq_safetensors_find(const snrq_safetensors *reader, const char *name);
/* Value of `key` in __metadata__ (first shard that has it), or NULL. Borrowed. */
const char *snrq_safetensors_metadata(const snrq_safetensors *reader, const char *key);
/* Path of the file that holds the tensor, for messages. Borrowed. */
const char *snrq_safetensors_file(const snrq_safetensors *reader, const snrq_tensor *tensor);

/* Reads `bytes` bytes from `begin` (relative to the tensor's data) into `out`. Not collective; safe
 * on several tensors from several ranks at once. SNRQ_IO_ERROR on a failed or short read. */
snrq_status snrq_safetensors_read(const snrq_safetensors *reader, const snrq_tensor *tensor,
                                  uint64_t begin, uint64_t bytes, void *out);

/* Tells the system that these bytes will be read: it fetches them from the disk if it likes to,
 * while the caller goes on. Not collective; for any thread. */
void snrq_safetensors_expect(const snrq_safetensors *reader, const snrq_tensor *tensor,
                             uint64_t begin, uint64_t bytes);

#endif
