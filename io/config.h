/* The model's config.json: the numbers of a decoder-only transformer.
 *
 * Source: transformers' LlamaConfig; both spellings of the rope settings (rope_theta +
 * rope_scaling, and rope_parameters). Sizes are bounded and products checked here, so that later
 * code may multiply them.
 */
#ifndef SNRQ_CONFIG_H
#define SNRQ_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "io/dtype.h"

typedef struct snrq_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    char model_type[32];   /* "llama" */
    int64_t vocabulary, hidden, intermediate, layers;
    int64_t heads, kv_heads, head_dim;
    int64_t max_positions;
    double rms_norm_eps, rope_theta;
    bool tied_embeddings;
    int64_t bos_id, eos_id; /* -1: none; the first one of a list */
    snrq_dtype dtype;       /* torch_dtype or dtype; SNRQ_BF16 if absent */
} snrq_config;

/* Reads DIRECTORY/config.json. Not collective. Unknown architectures, activations, rope scalings
 * and biases are refused by name, with what is supported. */
snrq_status snrq_config_read(const char *directory, snrq_config *out);

#endif
