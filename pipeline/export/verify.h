/* Is an exported transformers directory what OUT holds? */
#ifndef SNRQ_EXPORT_VERIFY_H
#define SNRQ_EXPORT_VERIFY_H

#include "pipeline/model/model.h"

/* True if `directory` is an export of that name. Not collective. */
bool snrq_checkpoint_is(const char *directory, const char *format);

/* Compares `directory` with `model`: every weight of every quantized module bit for bit (rounded
 * once, where the export holds dequantized weights of 16 bits), every other tensor byte for byte,
 * config.json and the tokenizer's files, and that there is nothing else. *tensors: how many tensors
 * there are. SNRQ_BAD_DATA names file, tensor, place and both values. Collective; agreed. */
snrq_status snrq_checkpoint_verify(const snrq_context *context, const snrq_model *model,
                                   const char *directory, int64_t *tensors);

#endif
