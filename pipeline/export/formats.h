/* The formats with the shape of a transformers directory, for the table in export.c.
 *
 * gptq: docs/exporting.md, "GPTQ"; tensors as GPTQModel and AutoGPTQ define them. Zeros are stored
 * minus one by version 1 ("gptq", written for symmetric codes) and as they are by version 2
 * ("gptq_v2", asymmetric ones). Packed along inputs, so a module is written by one rank.
 *
 * compressed-tensors: "pack-quantized". Packed along inputs row by row, zeros along rows. Formats
 * of floating point numbers (floats.h): "mxfp4-pack-quantized", "nvfp4-pack-quantized" and
 * "float-quantized", or "mixed-precision" of these.
 *
 * fp8: E4M3 with a scale per block of 128 x 128, as DeepSeek-V3 is published.
 *
 * safetensors: dequantized weights, in the model's type (rounded once) or F32 (exact).
 */
#ifndef SNRQ_EXPORT_FORMATS_H
#define SNRQ_EXPORT_FORMATS_H

#include "pipeline/export/checkpoint.h"

extern const snrq_checkpoint_layout snrq_gptq_layout;
extern const snrq_checkpoint_layout snrq_compressed_layout;
extern const snrq_checkpoint_layout snrq_dense_layout;
extern const snrq_checkpoint_layout snrq_fp8_layout;

/* See snrq_export_format.possible. */
snrq_status snrq_gptq_possible(const snrq_model *model, char *why, size_t size);
snrq_status snrq_compressed_possible(const snrq_model *model, char *why, size_t size);
snrq_status snrq_dense_possible(const snrq_model *model, char *why, size_t size);
snrq_status snrq_fp8_possible(const snrq_model *model, char *why, size_t size);

/* See snrq_export_format.fits. */
void snrq_gptq_fits(const snrq_model *model, const snrq_export_facts *facts, char *why,
                    size_t size);
void snrq_compressed_fits(const snrq_model *model, const snrq_export_facts *facts, char *why,
                          size_t size);
void snrq_fp8_fits(const snrq_model *model, const snrq_export_facts *facts, char *why, size_t size);

#endif
