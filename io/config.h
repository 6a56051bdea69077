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
    SNRQ_ROPE_LONGROPE,
    SNRQ_ROPE_YARN
} snrq_rope_type;

enum { SNRQ_MAX_ROPE_FACTORS = 512, SNRQ_MAX_LAYERS = 4096, SNRQ_MAX_EXPERTS = 1024 };

/* Rotary position embedding; what its numbers do is in pipeline/model/rope.c. */
typedef struct snrq_rope_config {
    snrq_rope_type type;
    double theta;
    int64_t first;                        /* dimension of a head that is the first to turn */
    int64_t dimensions;                   /* that turn, from there on; even */
    bool pairs;                           /* neighbours turn together, not the halves */
    int64_t original_positions;           /* llama3, longrope, yarn: the context before its
                                             extension */
    double factor;                        /* linear, llama3, yarn */
    double low_frequency, high_frequency; /* llama3: turns within the original context */
    double beta_fast, beta_slow;          /* yarn: the same, the other way round */
    bool truncate;                        /* yarn: the range between them is of whole dimensions */
    double attention_factor;              /* of cos and sin; 1 but for longrope and yarn */
    double all_dimensions;                /* yarn: mscale_all_dim; 0: not given */
    double short_factor[SNRQ_MAX_ROPE_FACTORS]; /* longrope: [dimensions / 2] */
    double long_factor[SNRQ_MAX_ROPE_FACTORS];
} snrq_rope_config;

/* Where the RMSNorms of a block are: in front of attention and MLP, behind them (OLMo 2), or both
 * (Gemma). */
typedef enum snrq_norm_place {
    SNRQ_NORMS_BEFORE,
    SNRQ_NORMS_AFTER,
    SNRQ_NORMS_AROUND
} snrq_norm_place;

/* Queries and keys go through an RMSNorm before they are turned: each head for itself, or all heads
 * of a token as one vector. */
typedef enum snrq_head_norm {
    SNRQ_NO_HEAD_NORM,
    SNRQ_NORM_OF_EACH_HEAD,
    SNRQ_NORM_OF_ALL_HEADS
} snrq_head_norm;

typedef enum snrq_activation { SNRQ_SILU, SNRQ_GELU_TANH } snrq_activation;

/* What is special about a layer; flags. */
enum {
    SNRQ_LAYER_WINDOW = 1,  /* sees a sliding window only */
    SNRQ_LAYER_NO_ROPE = 2, /* its heads do not turn */
    SNRQ_LAYER_LOCAL = 4,   /* turns by `local_rope` */
    SNRQ_LAYER_EXPERTS = 8  /* its MLP is a mixture of experts */
};

/* A mixture of experts; what its numbers do is in pipeline/model/router.h. */
typedef struct snrq_experts_config {
    int64_t count;         /* of a layer; 0: the model is dense */
    int64_t chosen;        /* of a token */
    int64_t intermediate;  /* width of an expert */
    int64_t shared;        /* width of the expert that sees all tokens; 0: there is none */
    int64_t groups;        /* of experts, of which the best are looked at; 1: all are */
    int64_t chosen_groups; /* of a token */
    bool sigmoid;          /* scores are sigmoids, not a softmax */
    bool biased;           /* a bias per expert decides along, without being a weight */
    bool normalized;       /* the weights of a token are divided by their sum */
    double scale;          /* of the weights */
    bool mixtral_names;    /* block_sparse_moe.experts.N.w1, w3, w2 */
} snrq_experts_config;

/* Latent attention (DeepSeek): queries, keys and values are made from short vectors. */
typedef struct snrq_latent_config {
    int64_t queries;  /* width of the queries' latent vector; 0: they are made at once */
    int64_t keys;     /* width of the latent vector of keys and values; 0: no latent attention */
    int64_t turned;   /* dimensions of a head that turn, one key for all heads */
    int64_t unturned; /* dimensions of a head before these */
} snrq_latent_config;

typedef struct snrq_config {
    char architecture[64]; /* "LlamaForCausalLM" */
    char model_type[32];   /* "llama" */
    int64_t vocabulary, hidden, intermediate, layers;
    int64_t heads, kv_heads;
    int64_t head_dim;  /* of queries and keys */
    int64_t value_dim; /* of values */
    int64_t max_positions;
    double rms_norm_eps;
    bool tied_embeddings;
    bool fused;          /* qkv_proj and gate_up_proj instead of three and two modules */
    bool attention_bias; /* of q, k and v, or of what makes the latent vectors */
    bool output_bias;    /* of o */
    bool mlp_bias;       /* of gate, up and down */
    snrq_norm_place norms;
    snrq_head_norm head_norms;
    bool norms_less_one; /* the weights of norms are stored less 1 */
    snrq_activation activation;
    double embedding_scale; /* h = this times the embedding */
    double residual_scale;  /* of what attention and MLP add to h */
    double attention_scale; /* of query times key */
    double attention_cap;   /* scores s become cap tanh(s / cap); 0: they stay */
    double logit_scale;     /* of the head's outputs, before the cap */
    double logit_cap;       /* as attention_cap, of the logits */
    double qkv_clip;        /* q, k and v are cut off there; 0: they are not */
    int64_t window;         /* keys that a query sees in a layer with a window, itself included; 0:
                               no layer has one */
    snrq_rope_config rope;
    snrq_rope_config local_rope; /* of the layers that turn by another one */
    snrq_latent_config latent;
    snrq_experts_config experts;
    unsigned char layer[SNRQ_MAX_LAYERS]; /* flags of each */
    int64_t bos_id, eos_id;               /* -1: none; the first one of a list */
    /* Layers behind the last one that predict further tokens (DeepSeek's MTP); not part of the
     * model here. */
    int64_t prediction_layers;
    /* torch_dtype or dtype. SNRQ_BF16 if absent; who opens the tensors sets it to their type. */
    snrq_dtype dtype;
    bool dtype_given;
    int64_t fp8_rows, fp8_columns; /* block of an FP8 matrix that shares a scale; 0: no FP8 */
} snrq_config;

/* Reads DIRECTORY/config.json. Not collective. SNRQ_BAD_DATA names the file, the key, what was
 * expected and what was found; SNRQ_NO_INPUT if there is no such file. */
snrq_status snrq_config_read(const char *directory, snrq_config *out);

/* Keys that a query of `layer` sees, itself included; 0: all before it. */
int64_t snrq_config_window(const snrq_config *config, int64_t layer);

static inline bool snrq_config_layer(const snrq_config *config, int64_t layer, int flag)
{
    return (config->layer[layer] & flag) != 0;
}

/* Layers with a flag. */
int64_t snrq_config_layers_with(const snrq_config *config, int flag);

/* "default", "linear", "llama3", "longrope", "yarn". Borrowed. */
const char *snrq_rope_type_name(snrq_rope_type type);

#endif
