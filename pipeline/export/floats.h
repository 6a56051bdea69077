/* Weights of the formats of floating point numbers (E2M1, E4M3) as tensors of safetensors, for the
 * layouts that have them. Symbols: N outputs, K inputs.
 *
 *   mxfp4      weight_packed       U8 [N, K / 2]       E2M1, the first of two in the low bits
 *              weight_scale        U8 [N, K / 32]      E8M0: exponent + 127
 *   nvfp4      weight_packed       U8 [N, K / 2]       the same
 *              weight_scale        F8_E4M3 [N, K / 16]
 *              weight_global_scale F32 [1]             what scales are divided by
 *   fp8_block  weight              F8_E4M3 [N, K]
 *              weight_scale        F32 [ceil(N / 128), ceil(K / 128)]; weight_scale_inv in fp8
 */
#ifndef SNRQ_EXPORT_FLOATS_H
#define SNRQ_EXPORT_FLOATS_H

#include "pipeline/export/checkpoint.h"

/* How such a format is called and described in compressed-tensors. */
typedef struct snrq_float_coding snrq_float_coding;

/* NULL: integers, or a format that no layout has. */
const snrq_float_coding *snrq_float_coding_of(const snrq_weight_format *format);

/* "nvfp4-pack-quantized". Borrowed. */
const char *snrq_float_coding_name(const snrq_float_coding *coding);

/* "weights" of a group of compressed-tensors. New reference. */
json_t *snrq_float_coding_weights(const snrq_float_coding *coding);

/* Parts of a snrq_checkpoint_layout, for modules that have a coding. scale: the name of the tensor
 * of scales. Pieces begin at multiples of 32 rows; a block's scale is written with its first row.
 * SNRQ_BAD_DATA if OUT has scales that the format cannot have. */
snrq_status snrq_floats_add(const snrq_export_job *job, const char *name, const char *scale,
                            int64_t rows, int64_t columns, int *first);
snrq_status snrq_floats_write(const snrq_export_job *job, const snrq_export_module *module,
                              snrq_range range, int first);

#endif
