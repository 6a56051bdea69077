/* Writing a small safetensors file from memory, on one process. */
#ifndef SNRQ_SAFETENSORS_WRITER_H
#define SNRQ_SAFETENSORS_WRITER_H

#include <jansson.h>
#include <stdint.h>

#include "io/user_output.h"

typedef struct snrq_tensor_data {
    const char *name, *dtype; /* "codes", "U8" */
    int dimensions;
    int64_t shape[4];
    const void *data; /* row-major, borrowed */
    size_t bytes;
} snrq_tensor_data;

/* Writes tensors [count], in the order given, and __metadata__ {"format": "pt"} as the whole
 * content of `out`. Not collective. The order should go from larger to smaller element types, so
 * that every tensor is aligned. */
snrq_status snrq_safetensors_write(snrq_user_output *out, const snrq_tensor_data *tensors,
                                   int count);

#endif
