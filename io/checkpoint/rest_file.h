/* Everything that is not quantized, in parallel HDF5: OUT/rest.h5 (embeddings, norms, head), in the
 * model's type.
 *
 * Layout: one dataset per tensor, called by its Hugging Face name, shape as in the model; F32 as
 * f32, F16 as f16, BF16 as u16 with the attribute dtype = "BF16". The root has format =
 * "snrq-rest", format_version.
 *
 * Embeddings and head can be quantized. Then they are modules of tables.h5, a file like that of a
 * block, and the reader has them among its tensors: in F32, with the values of their codes.
 */
#ifndef SNRQ_REST_FILE_H
#define SNRQ_REST_FILE_H

#include "io/checkpoint/block_file.h"
#include "io/safetensors.h"
#include "mpi/context.h"

/* Other numbers for some vectors of the model: get() puts those of the tensor `name` into out,
 * which its type holds exactly, or returns false to leave it as it is. */
typedef struct snrq_rest_changes {
    bool (*get)(const void *user, const char *name, float *out);
    const void *user;
} snrq_rest_changes;

/* Copies the tensors `names` [count] from a safetensors checkpoint to `path`, rows split over the
 * ranks, in chunks of bounded memory; reads back on rank 0 (order-free sum of row hashes).
 * `changes` may be NULL. Collective; agreed. */
snrq_status snrq_rest_file_write(const snrq_context *context, const char *path,
                                 const snrq_safetensors *model, const char *const *names, int count,
                                 const snrq_rest_changes *changes);

/* Reading. Not collective. snrq_tensor.offset and .file have no meaning here. */
typedef struct snrq_rest_file snrq_rest_file;
snrq_status snrq_rest_file_open(const char *path, snrq_rest_file **out);
void snrq_rest_file_close(snrq_rest_file **file);
/* Adds the modules of tables.h5, which is there. SNRQ_BAD_DATA for one that is there already. */
snrq_status snrq_rest_file_add_tables(snrq_rest_file *file, const char *path);
/* The tables file, or NULL; its module behind the tensor `name`, or -1. Borrowed. */
const snrq_block_file *snrq_rest_file_tables(const snrq_rest_file *file);
int snrq_rest_file_table(const snrq_rest_file *file, const char *name);
/* Number of tensors, i-th in order of name, by name (NULL if there is none). Borrowed. */
int64_t snrq_rest_file_count(const snrq_rest_file *file);
const snrq_tensor *snrq_rest_file_at(const snrq_rest_file *file, int64_t index);
const snrq_tensor *snrq_rest_file_find(const snrq_rest_file *file, const char *name);
/* Reads `bytes` bytes from `begin` of the tensor's row-major data; both must be whole rows of the
 * last dimension (or whole elements of a vector). */
snrq_status snrq_rest_file_read(const snrq_rest_file *file, const snrq_tensor *tensor,
                                uint64_t begin, uint64_t bytes, void *out);

#endif
