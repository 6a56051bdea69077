/* For what reads a model tensor by tensor: reading named tensors of either kind of directory. */
#ifndef SNRQ_MODEL_TENSORS_H
#define SNRQ_MODEL_TENSORS_H

#include "pipeline/model/model.h"

/* Tensors outside the blocks. */
extern const char snrq_embedding_name[], snrq_final_norm_name[], snrq_head_name[];

/* "model.layers.3.mlp.down_proj.weight" of a module. */
void snrq_weight_name(const snrq_model *model, int64_t layer, int module, char *out, size_t size);

/* The tensor, or NULL. Borrowed. */
const snrq_tensor *snrq_model_tensor(const snrq_model *model, const char *name);

/* The tensor with its shape checked: [rows, columns], or [rows] if columns is 0, and a float type.
 */
snrq_status snrq_model_expect(const snrq_model *model, const char *name, int64_t rows,
                              int64_t columns, const snrq_tensor **tensor, snrq_dtype *dtype);

snrq_status snrq_model_read(const snrq_model *model, const snrq_tensor *tensor, uint64_t begin,
                            uint64_t bytes, void *out);

/* The same of a module's weight, which may also be of type F8_E4M3 with scales per block beside it.
 */
snrq_status snrq_model_expect_weight(const snrq_model *model, const char *name, int64_t rows,
                                     int64_t columns, const snrq_tensor **tensor);
bool snrq_model_is_fp8(const snrq_tensor *tensor);
/* Bytes of a module's weight once it is loaded: FP8 becomes F32. */
size_t snrq_model_weight_bytes(const snrq_tensor *tensor);

/* Reads a vector, or a matrix of `columns`, of `count` numbers as fp32. SNRQ_BAD_DATA if a number
 * is not finite. */
snrq_status snrq_model_read_vector(const snrq_model *model, const char *name, int64_t count,
                                   int64_t columns, float *out);

/* Reads this rank's share of a matrix to `base` in node memory; the caller agrees and syncs. */
snrq_status snrq_model_load_dense(const snrq_context *context, const snrq_model *model,
                                  const char *name, int64_t rows, int64_t columns,
                                  unsigned char *base, snrq_weight *out);

#endif
