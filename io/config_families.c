/* The table of architectures; see config_families.h. Source: transformers' configuration classes.
 */
#include "io/config_families.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "io/config_rope.h"
#include "io/json.h"

static const snrq_architecture architectures[] = {
    {.name = "LlamaForCausalLM",
     .model_type = "llama",
     .attention_bias = true,
     .mlp_bias = true,
     .max_positions = 2048,
     .rms_norm_eps = 1e-6},
    {.name = "MistralForCausalLM",
     .model_type = "mistral",
     .windows = SNRQ_WINDOW_EVERYWHERE,
     .window = 4096,
     .kv_heads = 8,
     .max_positions = 131072,
     .rms_norm_eps = 1e-6},
    {.name = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .qkv_bias = true,
     .windows = SNRQ_WINDOW_UPPER,
     .window = 4096,
     .kv_heads = 32,
     .max_positions = 32768,
     .rms_norm_eps = 1e-6},
    {.name = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .head_norms = SNRQ_NORM_OF_EACH_HEAD,
     .attention_bias = true,
     .windows = SNRQ_WINDOW_UPPER,
     .window = 4096,
     .kv_heads = 32,
     .head_dim = 128,
     .max_positions = 32768,
     .rms_norm_eps = 1e-6},
    {.name = "Phi3ForCausalLM",
     .model_type = "phi3",
     .fused = true,
     .partial_rope = true,
     .older_longrope = true,
     .windows = SNRQ_WINDOW_EVERYWHERE,
     .max_positions = 4096,
     .original_positions = 4096,
     .rms_norm_eps = 1e-5},
    {.name = "Olmo2ForCausalLM",
     .model_type = "olmo2",
     .norms = SNRQ_NORMS_AFTER,
     .head_norms = SNRQ_NORM_OF_ALL_HEADS,
     .attention_bias = true,
     .max_positions = 2048,
     .rms_norm_eps = 1e-5},
    {.name = "Gemma2ForCausalLM",
     .model_type = "gemma2",
     .gemma = true,
     .norms = SNRQ_NORMS_AROUND,
     .attention_bias = true,
     .tied = true,
     .attention_cap = 50.0,
     .logit_cap = 30.0,
     .windows = SNRQ_WINDOW_BUT_EVERY_NTH,
     .window = 4096,
     .window_period = 2,
     .kv_heads = 4,
     .head_dim = 256,
     .max_positions = 8192,
     .rms_norm_eps = 1e-6},
    {.name = "Gemma3ForCausalLM",
     .model_type = "gemma3_text",
     .gemma = true,
     .norms = SNRQ_NORMS_AROUND,
     .head_norms = SNRQ_NORM_OF_EACH_HEAD,
     .attention_bias = true,
     .tied = true,
     .attention_cap = -1.0,
     .windows = SNRQ_WINDOW_BUT_EVERY_NTH,
     .window = 4096,
     .window_period = 6,
     .kv_heads = 4,
     .head_dim = 256,
     .max_positions = 131072,
     .rms_norm_eps = 1e-6,
     .theta = 1e6,
     .local_theta = 1e4},
    {.name = "GraniteForCausalLM",
     .model_type = "granite",
     .multipliers = true,
     .attention_bias = true,
     .mlp_bias = true,
     .max_positions = 2048,
     .rms_norm_eps = 1e-6},
    {.name = "SmolLM3ForCausalLM",
     .model_type = "smollm3",
     .turns_in_part = true,
     .attention_bias = true,
     .mlp_bias = true,
     .tied = true,
     .windows = SNRQ_WINDOW_WITHOUT_ROPE,
     .kv_heads = 4,
     .max_positions = 32768,
     .rms_norm_eps = 1e-6,
     .theta = 2e6},
    {.name = "MixtralForCausalLM",
     .model_type = "mixtral",
     .experts = SNRQ_MIXTRAL,
     .windows = SNRQ_WINDOW_EVERYWHERE,
     .kv_heads = 8,
     .max_positions = 131072,
     .rms_norm_eps = 1e-5,
     .theta = 1e6},
    {.name = "Qwen3MoeForCausalLM",
     .model_type = "qwen3_moe",
     .experts = SNRQ_QWEN_EXPERTS,
     .head_norms = SNRQ_NORM_OF_EACH_HEAD,
     .attention_bias = true,
     .windows = SNRQ_WINDOW_IF_USED,
     .window = 4096,
     .kv_heads = 4,
     .max_positions = 32768,
     .rms_norm_eps = 1e-6},
    {.name = "OlmoeForCausalLM",
     .model_type = "olmoe",
     .experts = SNRQ_OLMO_EXPERTS,
     .head_norms = SNRQ_NORM_OF_ALL_HEADS,
     .attention_bias = true,
     .max_positions = 4096,
     .rms_norm_eps = 1e-5},
    {.name = "DeepseekV3ForCausalLM",
     .model_type = "deepseek_v3",
     .experts = SNRQ_DEEPSEEK,
     .attention_bias = true,
     .max_positions = 4096,
     .rms_norm_eps = 1e-6},
};
enum { ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

/* The row of the table whose class, or model type, is `name`; refused with all of them in the
 * message. Older checkpoints spell classes in other case (LLaMAForCausalLM). */
static snrq_status find_architecture(const char *path, bool by_class, const char *name,
                                     const snrq_architecture **out)
{
    char all[512] = "";
    for (size_t i = 0; i < ARCHITECTURES; i++) {
        const char *own = by_class ? architectures[i].name : architectures[i].model_type;
        size_t used = strlen(all);
        *out = &architectures[i];
        if (strcasecmp(name, own) == 0) return SNRQ_OK;
        snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", own);
    }
    return snrq_config_refuse(path, by_class ? "architecture" : "model_type", name, all);
}

snrq_status snrq_config_find_family(const char *path, const json_t *root,
                                    const snrq_architecture **out)
{
    const char *type, *name;
    char shown[SNRQ_SHOWN];
    SNRQ_TRY(snrq_json_string(path, root, "model_type", "", &type));
    json_t *list = json_object_get(root, "architectures");
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"architectures\": expected an array, found %s",
                         path, snrq_json_kind(list));
    if (json_array_size(list) == 0) {
        if (type[0] != '\0') return find_architecture(path, false, type, out);
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: has neither \"architectures\" nor \"model_type\": is this a model's "
                         "config.json?",
                         path);
    }
    name = json_string_value(json_array_get(list, 0));
    if (!snrq_json_is_text(json_array_get(list, 0)))
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"architectures\": expected strings, found %s",
                         path, snrq_json_kind(json_array_get(list, 0)));
    SNRQ_TRY(find_architecture(path, true, name, out));
    if (type[0] != '\0' && strcasecmp(type, (*out)->model_type) != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: model_type \"%s\" does not belong to architecture \"%s\"; expected "
                         "\"%s\"",
                         path, snrq_shown(type, shown), name, (*out)->model_type);
    return SNRQ_OK;
}

int64_t snrq_config_assumed(const json_t *root, const char *key, int64_t by_class,
                            int64_t otherwise)
{
    return by_class > 0 && json_object_get(root, key) == NULL ? by_class : otherwise;
}
