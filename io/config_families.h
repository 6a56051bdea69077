/* Internal to the reader of config.json: what the supported architectures are. */
#ifndef SNRQ_CONFIG_FAMILIES_H
#define SNRQ_CONFIG_FAMILIES_H

#include <jansson.h>

#include "io/config.h"

/* Which layers have the sliding window that sliding_window names. */
typedef enum snrq_windowed_layers {
    SNRQ_NO_WINDOW,
    SNRQ_WINDOW_EVERYWHERE,
    SNRQ_WINDOW_IF_USED,       /* everywhere, with use_sliding_window */
    SNRQ_WINDOW_UPPER,         /* from max_window_layers on, with use_sliding_window */
    SNRQ_WINDOW_WITHOUT_ROPE,  /* where heads do not turn, with use_sliding_window */
    SNRQ_WINDOW_BUT_EVERY_NTH, /* all but every sliding_window_pattern-th */
} snrq_windowed_layers;

/* Where the settings of experts are. */
typedef enum snrq_experts_rule {
    SNRQ_DENSE,
    SNRQ_MIXTRAL,
    SNRQ_QWEN_EXPERTS,
    SNRQ_OLMO_EXPERTS,
    SNRQ_DEEPSEEK
} snrq_experts_rule;

/* An architecture: what its configuration class assumes where a key is absent, and which switches
 * it has. 0 stands for: as many as heads (kv_heads), hidden_size / heads (head_dim), 10000 (theta).
 */
typedef struct snrq_architecture {
    const char *name, *model_type;
    bool fused, qkv_bias, attention_bias, mlp_bias, partial_rope, older_longrope, tied;
    bool gemma;           /* its scale of embeddings, its norms and activation */
    bool multipliers;     /* Granite's */
    bool turns_in_part;   /* has layers without rope */
    double attention_cap; /* where the key is absent; < 0: the key is not read */
    double logit_cap;
    snrq_norm_place norms;
    snrq_head_norm head_norms;
    snrq_windowed_layers windows;
    int64_t window, window_period;
    snrq_experts_rule experts;
    int64_t kv_heads, head_dim, max_positions, original_positions;
    double rms_norm_eps, theta, local_theta;
} snrq_architecture;

/* The row of the table that config.json names: the class decides; the model type must agree, and
 * stands in for it where the class is not given. */
snrq_status snrq_config_find_family(const char *path, const json_t *root,
                                    const snrq_architecture **out);

static inline void snrq_config_mark(snrq_config *config, int64_t layer, int flag, bool there)
{
    if (there)
        config->layer[layer] |= (unsigned char)flag;
    else
        config->layer[layer] &= (unsigned char)~flag;
}

/* Windows, turning heads, experts: window, experts and layer of *config. Its sizes are known. */
snrq_status snrq_config_read_layers(const char *path, const json_t *root,
                                    const snrq_architecture *a, snrq_config *config);
snrq_status snrq_config_read_experts(const char *path, const json_t *root,
                                     const snrq_architecture *a, snrq_config *config);

/* What the configuration class assumes where the key is absent; a null stands for `otherwise`. */
int64_t snrq_config_assumed(const json_t *root, const char *key, int64_t by_class,
                            int64_t otherwise);

#endif
