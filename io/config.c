/* The model's config.json; see config.h. */
#include "io/config.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"

enum { MAX_CONFIG = 16 << 20, MAX_LAYERS = 100000 };

/* Every size fits the int of MPI, BLAS and LAPACK; every matrix has at most 2^59 numbers, so that
 * its bytes and the product with a small factor fit int64_t. */
static const int64_t max_size = INT32_MAX;
static const int64_t max_matrix = INT64_C(1) << 59;

static snrq_status refuse(const char *path, const char *key, const char *found,
                          const char *supported)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s \"%s\" is not supported (supported: %s)", path, key,
                     snrq_shown(found, shown), supported);
}

/* The class decides; the model type must agree, and stands in for it where the class is not given.
 */
static snrq_status read_architecture(const char *path, const json_t *root, snrq_config *out)
{
    const char *type, *architecture = "LlamaForCausalLM";
    SNRQ_TRY(snrq_json_string(path, root, "model_type", "", &type));
    json_t *list = json_object_get(root, "architectures");
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"architectures\": expected an array, found %s",
                         path, snrq_json_kind(list));
    if (json_array_size(list) > 0) {
        architecture = json_string_value(json_array_get(list, 0));
        if (architecture == NULL)
            return snrq_fail(SNRQ_BAD_DATA, "%s: key \"architectures\": expected strings, found %s",
                             path, snrq_json_kind(json_array_get(list, 0)));
    } else if (type[0] == '\0') {
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: has neither \"architectures\" nor \"model_type\": is this a model's "
                         "config.json?",
                         path);
    }
    if (strcmp(architecture, "LlamaForCausalLM") != 0)
        return refuse(path, "architecture", architecture, "LlamaForCausalLM");
    if (type[0] != '\0' && strcmp(type, "llama") != 0)
        return refuse(path, "model_type", type, "llama");
    snprintf(out->architecture, sizeof out->architecture, "%s", architecture);
    snprintf(out->model_type, sizeof out->model_type, "llama");
    return SNRQ_OK;
}

static snrq_status read_sizes(const char *path, const json_t *root, snrq_config *out)
{
    const int64_t default_positions = 2048; /* LlamaConfig's */
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
                               &default_positions, &out->max_positions));
    SNRQ_TRY(snrq_json_integer(path, root, "num_key_value_heads", 1, max_size, &out->heads,
                               &out->kv_heads));
    if (out->heads % out->kv_heads != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_attention_heads %" PRId64
                         " is not a multiple of num_key_value_heads %" PRId64,
                         path, out->heads, out->kv_heads);
    const json_t *given = json_object_get(root, "head_dim");
    if ((given == NULL || json_is_null(given)) && out->hidden % out->heads != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: hidden_size %" PRId64
                         " is not a multiple of num_attention_heads %" PRId64
                         ", and there is no head_dim",
                         path, out->hidden, out->heads);
    const int64_t share = out->hidden / out->heads;
    return snrq_json_integer(path, root, "head_dim", 1, max_size, &share, &out->head_dim);
}

static snrq_status check_products(const char *path, const snrq_config *config)
{
    if (config->head_dim % 2 != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: head_dim is %" PRId64 ", expected an even number (RoPE turns pairs)",
                         path, config->head_dim);
    if (config->heads > max_size / config->head_dim)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_attention_heads %" PRId64 " times head_dim %" PRId64
                         ": expected at most %" PRId64,
                         path, config->heads, config->head_dim, max_size);
    const struct {
        const char *name;
        int64_t size;
    } wide[] = {
        {"vocab_size", config->vocabulary},
        {"intermediate_size", config->intermediate},
        {"num_attention_heads times head_dim", config->heads * config->head_dim},
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

/* One object of RoPE settings: rope_scaling (rope_type or the older spelling type), or
 * rope_parameters, which also holds rope_theta. */
static snrq_status read_rope_object(const char *path, const json_t *root, const char *name,
                                    snrq_config *out)
{
    json_t *object = json_object_get(root, name);
    if (object == NULL || json_is_null(object)) return SNRQ_OK;
    if (!json_is_object(object))
        return snrq_fail(SNRQ_BAD_DATA, "%s: key \"%s\": expected an object or null, found %s",
                         path, name, snrq_json_kind(object));
    char where[PATH_MAX + 64];
    snprintf(where, sizeof where, "%s: %s", path, name);
    const char *older, *type, *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (json_is_object(value))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: separate settings per kind of layer (\"%s\") are not supported",
                             where, key);
    }
    SNRQ_TRY(snrq_json_string(where, object, "type", "default", &older));
    SNRQ_TRY(snrq_json_string(where, object, "rope_type", older, &type));
    if (strcmp(type, "default") != 0) return refuse(path, "rope scaling", type, "none");
    return snrq_json_number(where, object, "rope_theta", 1e-3, 1e18, &out->rope_theta,
                            &out->rope_theta);
}

static snrq_status read_rope(const char *path, const json_t *root, snrq_config *out)
{
    const double theta = 10000.0, whole = 1.0;
    double rotated;
    SNRQ_TRY(snrq_json_number(path, root, "rope_theta", 1e-3, 1e18, &theta, &out->rope_theta));
    SNRQ_TRY(read_rope_object(path, root, "rope_scaling", out));
    SNRQ_TRY(read_rope_object(path, root, "rope_parameters", out));
    SNRQ_TRY(snrq_json_number(path, root, "partial_rotary_factor", 0.0, 1.0, &whole, &rotated));
    if (rotated < 1.0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: partial_rotary_factor %g is not supported (supported: 1)", path,
                         rotated);
    return SNRQ_OK;
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

static snrq_status read_dtype(const char *path, const json_t *root, snrq_dtype *out)
{
    const char *older, *name;
    SNRQ_TRY(snrq_json_string(path, root, "torch_dtype", "bfloat16", &older));
    SNRQ_TRY(snrq_json_string(path, root, "dtype", older, &name));
    if (strcmp(name, "bfloat16") == 0)
        *out = SNRQ_BF16;
    else if (strcmp(name, "float16") == 0)
        *out = SNRQ_F16;
    else if (strcmp(name, "float32") == 0)
        *out = SNRQ_F32;
    else
        return refuse(path, "dtype", name, "bfloat16, float16, float32");
    return SNRQ_OK;
}

/* What the forward pass would have to do and does not. */
static snrq_status check_features(const char *path, const json_t *root)
{
    static const char *const biases[] = {"attention_bias", "mlp_bias"};
    for (size_t i = 0; i < sizeof biases / sizeof biases[0]; i++) {
        bool bias;
        SNRQ_TRY(snrq_json_boolean(path, root, biases[i], false, &bias));
        if (bias) return refuse(path, biases[i], "true", "false");
    }
    const char *activation;
    SNRQ_TRY(snrq_json_string(path, root, "hidden_act", "silu", &activation));
    if (strcmp(activation, "silu") != 0) return refuse(path, "hidden_act", activation, "silu");
    return SNRQ_OK;
}

static snrq_status read_all(const char *path, const json_t *root, snrq_config *out)
{
    const double eps = 1e-6;
    SNRQ_TRY(read_architecture(path, root, out));
    SNRQ_TRY(check_features(path, root));
    SNRQ_TRY(read_sizes(path, root, out));
    SNRQ_TRY(check_products(path, out));
    SNRQ_TRY(read_rope(path, root, out));
    SNRQ_TRY(snrq_json_number(path, root, "rms_norm_eps", 0.0, 1.0, &eps, &out->rms_norm_eps));
    SNRQ_TRY(snrq_json_boolean(path, root, "tie_word_embeddings", false, &out->tied_embeddings));
    SNRQ_TRY(read_token_id(path, root, "bos_token_id", out->vocabulary, &out->bos_id));
    SNRQ_TRY(read_token_id(path, root, "eos_token_id", out->vocabulary, &out->eos_id));
    return read_dtype(path, root, &out->dtype);
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
