/* DIR/model.gguf, the file of llama.cpp: from an OUT directory without loss, or from a
 * Hugging Face directory as floats. */
#ifndef SNRQ_EXPORT_GGUF_H
#define SNRQ_EXPORT_GGUF_H

#include "io/gguf/check.h"
#include "pipeline/export/settings.h"
#include "pipeline/export/source.h"
#include "pipeline/model/model.h"

/* See snrq_export_format.possible. Reads every block file's description. Not collective. */
snrq_status snrq_export_gguf_possible(const snrq_model *model, char *why, size_t size);

/* See snrq_export_format.fits. */
void snrq_export_gguf_fits(const snrq_model *model, const snrq_export_facts *facts, char *why,
                           size_t size);
/* See snrq_export_format.check_side_files and note_side_files. */
snrq_status snrq_export_gguf_check_side_files(const snrq_model *model);
void snrq_export_gguf_note_side_files(const snrq_model *model);

/* Writes DIRECTORY/model.gguf, every rank its own rows, in bounded memory.
 * settings->embedding_type says what embeddings and head become (of a Hugging Face directory:
 * all matrices); norms and biases are F32. Nothing is left under the final name on failure.
 * Collective; agreed. */
snrq_status snrq_export_gguf(const snrq_context *context, const snrq_export_settings *settings,
                             const snrq_model *model, const char *directory);

/* Reads DIRECTORY/model.gguf with code of its own and compares every weight with the model;
 * embeddings and head may be rounded to the type they have there, which rank 0 notes. Then every
 * byte of the file is compared with the one that an export would write now, and the directory must
 * hold nothing else. SNRQ_BAD_DATA names the first difference. *tensors: how many were compared.
 * Collective; agreed. */
snrq_status snrq_export_gguf_verify(const snrq_context *context, const snrq_model *model,
                                    const char *directory, int64_t *tensors);

/* The second part of it: `file` is `path`, opened. Collective; agreed. */
snrq_status snrq_export_gguf_compare_bytes(const snrq_context *context, const snrq_model *model,
                                           const snrq_gguf_file *file, const char *path);

/* Is there a DIRECTORY/model.gguf? Not collective. */
bool snrq_export_gguf_is(const char *directory);

#endif
