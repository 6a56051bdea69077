/* The model's config.json: the numbers and switches of a decoder-only transformer.
 *
 * Supported are the architectures of the table in config.c. A key that is absent means what
 * transformers' configuration class of that architecture assumes; whatever asks for something the
 * forward pass does not do is refused by name. Both spellings of the rope settings are read:
 * rope_theta + rope_scaling (transformers 4) and rope_parameters (5). Sizes are bounded and
 * products checked here, so that later code may multiply them.
 */
#ifndef SNRQ_CONFIG_H
#define SNRQ_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/algebra/dtype.h"

typedef enum snrq_rope_type {
    SNRQ_ROPE_DEFAULT,
    SNRQ_ROPE_LINEAR,
    SNRQ_ROPE_LLAMA3,
    SNRQ_ROPE_LONGROPE
} snrq_rope_type;

enum { SNRQ_MAX_ROPE_FACTORS = 512 };

/* Rotary position embedding; what its numbers do is in pipeline/model/rope.c. */
typedef struct snrq_rope_config {
    snrq_rope_type type;
    double theta;
    int64_t dimensions;                   /* the first ones of a head, which turn; even */
    int64_t original_positions;           /* llama3, longrope: the context before its extension */
    double factor;                        /* linear, llama3 */
    double low_frequency, high_frequency; /* llama3: turns within the original context */
    double attention_factor;              /* of cos and sin; 1 but for longrope */
    double short_factor[SNRQ_MAX_ROPE_FACTORS]; /* longrope: [dimensions / 2] */
    double long_factor[SNRQ_MAX_ROPE_FACTORS];
} snrq_rope_config;

typedef struct snrq_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    char model_type[32];   /* "llama" */
    int64_t vocabulary, hidden, intermediate, layers;
    int64_t heads, kv_heads, head_dim;
    int64_t max_positions;
    double rms_norm_eps;
    bool tied_embeddings;
    bool fused;          /* qkv_proj and gate_up_proj instead of three and two modules */
    bool head_norms;     /* each query and key head goes through an RMSNorm before it is turned */
    bool attention_bias; /* of q, k, v and o */
    bool mlp_bias;       /* of gate, up and down */
    int64_t window;      /* keys that a query sees, itself included; 0: all before it */
    int64_t first_windowed_layer; /* the layers below it see everything */
    snrq_rope_config rope;
    int64_t bos_id, eos_id; /* -1: none; the first one of a list */
    /* Layers behind the last one that predict further tokens (DeepSeek's MTP); not part of the
     * model here. */
    int64_t prediction_layers;
    /* torch_dtype or dtype. SNRQ_BF16 if absent; who opens the tensors sets it to their type. */
    snrq_dtype dtype;
    bool dtype_given;
} snrq_config;

/* Reads DIRECTORY/config.json. Not collective. SNRQ_BAD_DATA names the file, the key, what was
 * expected and what was found; SNRQ_NO_INPUT if there is no such file. */
snrq_status snrq_config_read(const char *directory, snrq_config *out);

/* Keys that a query of `layer` sees, itself included; 0: all before it. */
int64_t snrq_config_window(const snrq_config *config, int64_t layer);

/* "default", "linear", "llama3", "longrope". Borrowed. */
const char *snrq_rope_type_name(snrq_rope_type type);

#endif
