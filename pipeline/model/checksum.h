/* Checksums of a checkpoint's tensors, so that a model that changes between stop and resume is
 * noticed, wherever it changes.
 *
 * The checksum of a tensor is the XXH3-128 of the XXH3-128s (16 bytes each, in canonical order) of
 * its pieces of 8 MiB, the last of which may be shorter; as 32 hex digits.
 */
#ifndef SNRQ_CHECKSUM_H
#define SNRQ_CHECKSUM_H

#include <jansson.h>

#include "pipeline/model/model.h"

enum { SNRQ_CHECKSUM_PIECE = 8 << 20 };

/* *out <- {name: checksum} of all tensors that the model reads, of a Hugging Face directory. Every
 * rank reads as many bytes as the others; the result is the same on any number of ranks.
 * Collective; agreed. The caller releases *out. */
snrq_status snrq_model_checksums(const snrq_context *context, const snrq_model *model,
                                 json_t **out);

#endif
