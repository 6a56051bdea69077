/* The model's config.json; see config.h. */
#include "io/config.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "io/config_rope.h"
#include "io/file.h"
#include "io/json.h"

enum { MAX_CONFIG = 16 << 20, MAX_LAYERS = 100000 };

/* Every size fits the int of MPI, BLAS and LAPACK; every matrix has at most 2^59 numbers, so that
 * its bytes and the product with a small factor fit int64_t. */
static const int64_t max_size = INT32_MAX;
static const int64_t max_matrix = INT64_C(1) << 59;

enum window_rule { NO_WINDOW, ALL_LAYERS, UPPER_LAYERS };

/* The supported architectures: what their configuration classes assume where a key is absent, and
 * which switches they have. kv_heads and head_dim 0: as many as heads, hidden_size / heads. */
static const struct architecture {
    const char *name, *model_type;
    bool fused, head_norms, attention_bias, mlp_bias, partial_rope, older_longrope;
    enum window_rule windows;
    int64_t window, kv_heads, head_dim, max_positions, original_positions;
    double rms_norm_eps;
} architectures[] = {
    {.name = "LlamaForCausalLM",
     .model_type = "llama",
     .attention_bias = true,
     .mlp_bias = true,
     .max_positions = 2048,
     .rms_norm_eps = 1e-6},
    {.name = "MistralForCausalLM",
     .model_type = "mistral",
     .windows = ALL_LAYERS,
     .window = 4096,
     .kv_heads = 8,
     .max_positions = 131072,
     .rms_norm_eps = 1e-6},
    {.name = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .head_norms = true,
     .attention_bias = true,
     .windows = UPPER_LAYERS,
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
     .windows = ALL_LAYERS,
     .max_positions = 4096,
     .original_positions = 4096,
     .rms_norm_eps = 1e-5},
};
enum { ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

snrq_status snrq_config_refuse(const char *path, const char *key, const char *found,
                               const char *supported)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s \"%s\" is not supported (supported: %s)", path, key,
                     snrq_shown(found, shown), supported);
}

/* The row of the table whose class, or model type, is `name`; refused with all of them in the
 * message. Older checkpoints spell classes in other case (LLaMAForCausalLM). */
static snrq_status find_architecture(const char *path, bool by_class, const char *name,
                                     const struct architecture **out)
{
    char all[256] = "";
    for (size_t i = 0; i < ARCHITECTURES; i++) {
        const char *own = by_class ? architectures[i].name : architectures[i].model_type;
        size_t used = strlen(all);
        *out = &architectures[i];
        if (strcasecmp(name, own) == 0) return SNRQ_OK;
        snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", own);
    }
    return snrq_config_refuse(path, by_class ? "architecture" : "model_type", name, all);
}

/* The class decides; the model type must agree, and stands in for it where the class is not given.
 */
static snrq_status read_architecture(const char *path, const json_t *root,
                                     const struct architecture **out)
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

/* What the configuration class assumes where the key is absent; a null stands for `otherwise`. */
static int64_t assumed(const json_t *root, const char *key, int64_t by_class, int64_t otherwise)
{
    return by_class > 0 && json_object_get(root, key) == NULL ? by_class : otherwise;
}

static snrq_status read_heads(const char *path, const json_t *root, const struct architecture *a,
                              snrq_config *out)
{
    static const char kv_key[] = "num_key_value_heads", head_key[] = "head_dim";
    int64_t kv_heads = assumed(root, kv_key, a->kv_heads, out->heads), unknown = 0;
    SNRQ_TRY(snrq_json_integer(path, root, kv_key, 1, max_size, &kv_heads, &out->kv_heads));
    if (out->heads % out->kv_heads != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_attention_heads %" PRId64
                         " is not a multiple of num_key_value_heads %" PRId64,
                         path, out->heads, out->kv_heads);
    int64_t head_dim = assumed(root, head_key, a->head_dim, unknown);
    SNRQ_TRY(snrq_json_integer(path, root, head_key, 1, max_size, &head_dim, &out->head_dim));
    if (out->head_dim == unknown && out->hidden % out->heads != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: hidden_size %" PRId64
                         " is not a multiple of num_attention_heads %" PRId64
                         ", and there is no head_dim",
                         path, out->hidden, out->heads);
    if (out->head_dim == unknown) out->head_dim = out->hidden / out->heads;
    return SNRQ_OK;
}

static snrq_status read_sizes(const char *path, const json_t *root, const struct architecture *a,
                              snrq_config *out)
{
    const struct {
        const char *key;
        int64_t *out;
    } required[] = {
        {"vocab_size", &out->vocabulary},
        {"hidden_size", &out->hidden},
        {"intermediate_size", &out->intermediate},
        {"num_attention_heads", &out->heads},
    };
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        SNRQ_TRY(
            snrq_json_integer(path, root, required[i].key, 1, max_size, NULL, required[i].out));
    SNRQ_TRY(snrq_json_integer(path, root, "num_hidden_layers", 1, MAX_LAYERS, NULL, &out->layers));
    SNRQ_TRY(snrq_json_integer(path, root, "max_position_embeddings", 1, max_size,
                               &a->max_positions, &out->max_positions));
    return read_heads(path, root, a, out);
}

static snrq_status check_products(const char *path, const snrq_config *config)
{
    if (config->head_dim % 2 != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: head_dim is %" PRId64 ", expected an even number (RoPE turns pairs)",
                         path, config->head_dim);
    /* heads and kv_heads are at most max_size: their sum is no problem for int64_t. */
    int64_t qkv_heads = config->heads + 2 * config->kv_heads;
    if (qkv_heads > max_size / config->head_dim)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_attention_heads %" PRId64
                         " and twice num_key_value_heads %" PRId64 " times head_dim %" PRId64
                         ": expected at most %" PRId64,
                         path, config->heads, config->kv_heads, config->head_dim, max_size);
    if (config->intermediate > max_size / 2)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: intermediate_size %" PRId64 ": expected at most %" PRId64, path,
                         config->intermediate, max_size / 2);
    const struct {
        const char *name;
        int64_t size;
    } wide[] = {
        {"vocab_size", config->vocabulary},
        {"twice intermediate_size", 2 * config->intermediate},
        {"query, key and value heads times head_dim", qkv_heads * config->head_dim},
        {"max_position_embeddings", config->max_positions},
        {"hidden_size", config->hidden},
    };
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++)
        if (wide[i].size > max_matrix / config->hidden)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s %" PRId64 " times hidden_size %" PRId64
                             ": expected at most 2^59 numbers in a matrix",
                             path, wide[i].name, wide[i].size, config->hidden);
    return SNRQ_OK;
}

/* The kinds of attention by layer, where they are given, must be what the other keys say. */
static snrq_status check_layer_types(const char *path, const json_t *list, const snrq_config *c)
{
    char shown[SNRQ_SHOWN];
    if (json_array_size(list) != (size_t)c->layers)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: key \"layer_types\": expected num_hidden_layers %" PRId64
                         " entries, found %zu",
                         path, c->layers, json_array_size(list));
    for (int64_t i = 0; i < c->layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        const char *expected =
            snrq_config_window(c, i) > 0 ? "sliding_attention" : "full_attention";
        if (type == NULL || strcmp(type, expected) != 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: layer_types[%" PRId64 "] is \"%s\"; supported is \"%s\" there "
                             "(full attention below a sliding window in the upper layers, as the "
                             "other keys have it)",
                             path, i, type != NULL ? snrq_shown(type, shown) : "no string",
                             expected);
    }
    return SNRQ_OK;
}

/* The first layer that a list of layer types says has a window. */
static int64_t first_sliding(const json_t *list, int64_t layers)
{
    for (int64_t i = 0; i < layers; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        if (type != NULL && strcmp(type, "sliding_attention") == 0) return i;
    }
    return layers;
}

/* The sliding window, and which layers have it. */
static snrq_status read_window(const char *path, const json_t *root, const struct architecture *a,
                               snrq_config *c)
{
    const int64_t otherwise = assumed(root, "sliding_window", a->window, 0), usual_layers = 28;
    bool used = a->windows == ALL_LAYERS;
    int64_t window = 0;
    SNRQ_TRY(snrq_json_integer(path, root, "sliding_window", 1, max_size, &otherwise, &window));
    if (a->windows == UPPER_LAYERS) {
        SNRQ_TRY(snrq_json_boolean(path, root, "use_sliding_window", false, &used));
        SNRQ_TRY(snrq_json_integer(path, root, "max_window_layers", 0, MAX_LAYERS, &usual_layers,
                                   &c->first_windowed_layer));
    }
    if (a->windows == NO_WINDOW && window > 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: sliding_window %" PRId64 " is not supported for %s (supported: null)",
                         path, window, a->name);
    c->window = used ? window : 0;
    json_t *list = json_object_get(root, "layer_types");
    if (list == NULL || json_is_null(list)) return SNRQ_OK;
    SNRQ_TRY(snrq_json_array(path, root, "layer_types", &list));
    if (a->windows == UPPER_LAYERS) c->first_windowed_layer = first_sliding(list, c->layers);
    return check_layer_types(path, list, c);
}

int64_t snrq_config_window(const snrq_config *config, int64_t layer)
{
    return layer >= config->first_windowed_layer ? config->window : 0;
}

/* A token id: an integer, the first of a list, or none. -1 is how some writers say none. */
static snrq_status read_token_id(const char *path, const json_t *root, const char *key,
                                 int64_t vocabulary, int64_t *out)
{
    const json_t *value = json_object_get(root, key);
    *out = -1;
    if (value == NULL || json_is_null(value)) return SNRQ_OK;
    if (json_is_array(value)) {
        if (json_array_size(value) == 0) return SNRQ_OK;
        value = json_array_get(value, 0);
    }
    if (!json_is_integer(value))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: key \"%s\": expected an integer, a list of them or null, found %s",
                         path, key, snrq_json_kind(value));
    int64_t id = json_integer_value(value);
    if (id < -1 || id >= vocabulary)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: key \"%s\": expected a token id below vocab_size %" PRId64
                         ", found %" PRId64,
                         path, key, vocabulary, id);
    *out = id;
    return SNRQ_OK;
}

static snrq_status read_dtype(const char *path, const json_t *root, snrq_config *out)
{
    const char *older, *name;
    SNRQ_TRY(snrq_json_string(path, root, "torch_dtype", "", &older));
    SNRQ_TRY(snrq_json_string(path, root, "dtype", older, &name));
    out->dtype_given = name[0] != '\0';
    if (!out->dtype_given || strcmp(name, "bfloat16") == 0)
        out->dtype = SNRQ_BF16;
    else if (strcmp(name, "float16") == 0)
        out->dtype = SNRQ_F16;
    else if (strcmp(name, "float32") == 0)
        out->dtype = SNRQ_F32;
    else
        return snrq_config_refuse(path, "dtype", name, "bfloat16, float16, float32");
    return SNRQ_OK;
}

static snrq_status read_bias(const char *path, const json_t *root, const char *key, bool possible,
                             const struct architecture *a, bool *out)
{
    SNRQ_TRY(snrq_json_boolean(path, root, key, false, out));
    if (*out && !possible)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s true is not supported for %s (supported: false)",
                         path, key, a->name);
    return SNRQ_OK;
}

/* What the forward pass would have to do and does not. */
static snrq_status check_features(const char *path, const json_t *root)
{
    static const char *const experts[] = {"num_local_experts", "num_experts"};
    const int64_t none = 0;
    int64_t count;
    const char *activation;
    for (size_t i = 0; i < sizeof experts / sizeof experts[0]; i++) {
        SNRQ_TRY(snrq_json_integer(path, root, experts[i], 0, max_size, &none, &count));
        if (count > 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s %" PRId64
                             ": mixtures of experts are not supported (supported: "
                             "dense models)",
                             path, experts[i], count);
    }
    const json_t *quantized = json_object_get(root, "quantization_config");
    if (quantized != NULL && !json_is_null(quantized))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: has a quantization_config: quantized checkpoints cannot be read; "
                         "expected the original one in F32, F16 or BF16",
                         path);
    SNRQ_TRY(snrq_json_string(path, root, "hidden_act", "silu", &activation));
    if (strcmp(activation, "silu") != 0)
        return snrq_config_refuse(path, "hidden_act", activation, "silu");
    return SNRQ_OK;
}

static snrq_status read_all(const char *path, const json_t *root, snrq_config *out)
{
    const struct architecture *a = NULL;
    const int64_t none = 0;
    SNRQ_TRY(read_architecture(path, root, &a));
    const snrq_rope_rules rope = {a->name, a->partial_rope, a->older_longrope,
                                  a->original_positions};
    snprintf(out->architecture, sizeof out->architecture, "%s", a->name);
    snprintf(out->model_type, sizeof out->model_type, "%s", a->model_type);
    out->fused = a->fused;
    out->head_norms = a->head_norms;
    SNRQ_TRY(check_features(path, root));
    SNRQ_TRY(read_bias(path, root, "attention_bias", a->attention_bias, a, &out->attention_bias));
    SNRQ_TRY(read_bias(path, root, "mlp_bias", a->mlp_bias, a, &out->mlp_bias));
    SNRQ_TRY(read_sizes(path, root, a, out));
    SNRQ_TRY(check_products(path, out));
    SNRQ_TRY(read_window(path, root, a, out));
    SNRQ_TRY(snrq_config_read_rope(path, root, &rope, out));
    SNRQ_TRY(snrq_json_number(path, root, "rms_norm_eps", 0.0, 1.0, &a->rms_norm_eps,
                              &out->rms_norm_eps));
    SNRQ_TRY(snrq_json_boolean(path, root, "tie_word_embeddings", false, &out->tied_embeddings));
    SNRQ_TRY(read_token_id(path, root, "bos_token_id", out->vocabulary, &out->bos_id));
    SNRQ_TRY(read_token_id(path, root, "eos_token_id", out->vocabulary, &out->eos_id));
    SNRQ_TRY(snrq_json_integer(path, root, "num_nextn_predict_layers", 0, MAX_LAYERS, &none,
                               &out->prediction_layers));
    return read_dtype(path, root, out);
}

snrq_status snrq_config_read(const char *directory, snrq_config *out)
{
    char path[PATH_MAX];
    json_t *root;
    memset(out, 0, sizeof *out);
    SNRQ_TRY(snrq_path_join(directory, "config.json", path, sizeof path));
    SNRQ_TRY(snrq_json_read(path, MAX_CONFIG, &root));
    snrq_status status = read_all(path, root, out);
    json_decref(root);
    return status;
}
