/* What llama.cpp calls the families and their parts, and what it cannot do of them. Source:
 * llama.cpp's convert_hf_to_gguf and its model files. */
#ifndef SNRQ_GGUF_FAMILY_H
#define SNRQ_GGUF_FAMILY_H

#include "io/gguf/layout.h"
#include "io/gguf/writer.h"
#include "pipeline/model/model.h"

/* "llama", "qwen3", "phi3", "deepseek2": the architecture as llama.cpp calls it. Borrowed. */
const char *snrq_gguf_architecture(const snrq_config *config);

/* What llama.cpp's model of this family cannot do: SNRQ_USAGE with the reason. Not
 * collective. */
snrq_status snrq_gguf_check_config(const snrq_config *config);

/* Rows of a head whose two halves take turns in the file, of a module or a bias of this name below
 * the layer; 0: rows stay. */
int64_t snrq_gguf_interleaved(const snrq_config *config, const char *name);

/* The file's name of what the model calls `name` below "model.layers.N.", without .weight or .bias;
 * of a module of an expert, the name of all of them together. */
void snrq_gguf_part_name(const snrq_config *config, const char *name, char out[SNRQ_GGUF_NAME]);

/* Tokens that the file may promise as context. */
int64_t snrq_gguf_context(const snrq_config *config);

/* Sizes, rope, scales and experts. */
void snrq_gguf_put_config(snrq_gguf_writer *writer, const snrq_config *config);

#endif
