/* The model's config.json; see config.h. */
#include "io/config.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/config_families.h"
#include "io/config_rope.h"
#include "io/file.h"
#include "io/json.h"

enum { MAX_CONFIG = 16 << 20 };

/* Every size fits the int of MPI, BLAS and LAPACK; every matrix has at most 2^59 numbers, so that
 * its bytes and the product with a small factor fit int64_t. */
static const int64_t max_size = INT32_MAX;
static const int64_t max_matrix = INT64_C(1) << 59;

snrq_status snrq_config_refuse(const char *path, const char *key, const char *found,
                               const char *supported)
{
    char shown[SNRQ_SHOWN];
    return snrq_fail(SNRQ_BAD_DATA, "%s: %s \"%s\" is not supported (supported: %s)", path, key,
                     snrq_shown(found, shown), supported);
}

static snrq_status read_heads(const char *path, const json_t *root, const snrq_architecture *a,
                              snrq_config *out)
{
    static const char kv_key[] = "num_key_value_heads", head_key[] = "head_dim";
    int64_t kv_heads = snrq_config_assumed(root, kv_key, a->kv_heads, out->heads), unknown = 0;
    SNRQ_TRY(snrq_json_integer(path, root, kv_key, 1, max_size, &kv_heads, &out->kv_heads));
    if (out->heads % out->kv_heads != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_attention_heads %" PRId64
                         " is not a multiple of num_key_value_heads %" PRId64,
                         path, out->heads, out->kv_heads);
    int64_t head_dim = snrq_config_assumed(root, head_key, a->head_dim, unknown);
    SNRQ_TRY(snrq_json_integer(path, root, head_key, 1, max_size, &head_dim, &out->head_dim));
    if (out->head_dim == unknown && out->hidden % out->heads != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: hidden_size %" PRId64
                         " is not a multiple of num_attention_heads %" PRId64
                         ", and there is no head_dim",
                         path, out->hidden, out->heads);
    if (out->head_dim == unknown) out->head_dim = out->hidden / out->heads;
    out->value_dim = out->head_dim;
    return SNRQ_OK;
}

/* Heads of latent attention: each has its own key and value, made from one short vector. */
static snrq_status read_latent_heads(const char *path, const json_t *root, snrq_config *c)
{
    const int64_t queries = 1536, keys = 512, turned = 64, unturned = 128, values = 128, none = 0;
    snrq_latent_config *l = &c->latent;
    SNRQ_TRY(snrq_json_integer(path, root, "q_lora_rank", 1, max_size,
                               json_object_get(root, "q_lora_rank") == NULL ? &queries : &none,
                               &l->queries));
    SNRQ_TRY(snrq_json_integer(path, root, "kv_lora_rank", 1, max_size / 2, &keys, &l->keys));
    SNRQ_TRY(
        snrq_json_integer(path, root, "qk_rope_head_dim", 2, max_size / 4, &turned, &l->turned));
    SNRQ_TRY(snrq_json_integer(path, root, "qk_nope_head_dim", 1, max_size / 4, &unturned,
                               &l->unturned));
    SNRQ_TRY(snrq_json_integer(path, root, "v_head_dim", 1, max_size / 4, &values, &c->value_dim));
    SNRQ_TRY(snrq_json_boolean(path, root, "rope_interleave", true, &c->rope.pairs));
    c->kv_heads = c->heads;
    c->head_dim = l->turned + l->unturned;
    if (l->turned % 2 != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: qk_rope_head_dim is %" PRId64
                         ", expected an even number (RoPE turns pairs)",
                         path, l->turned);
    return SNRQ_OK;
}

static snrq_status read_sizes(const char *path, const json_t *root, const snrq_architecture *a,
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
    SNRQ_TRY(
        snrq_json_integer(path, root, "num_hidden_layers", 1, SNRQ_MAX_LAYERS, NULL, &out->layers));
    SNRQ_TRY(snrq_json_integer(path, root, "max_position_embeddings", 1, max_size,
                               &a->max_positions, &out->max_positions));
    return a->experts == SNRQ_DEEPSEEK ? read_latent_heads(path, root, out)
                                       : read_heads(path, root, a, out);
}

static snrq_status check_products(const char *path, const snrq_config *config)
{
    int64_t wider = config->head_dim > config->value_dim ? config->head_dim : config->value_dim;
    if (config->head_dim % 2 != 0 && config->latent.keys == 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: head_dim is %" PRId64 ", expected an even number (RoPE turns pairs)",
                         path, config->head_dim);
    /* heads and kv_heads are at most max_size: their sum is no problem for int64_t. */
    int64_t qkv_heads = config->heads + 2 * config->kv_heads;
    if (qkv_heads > max_size / wider)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_attention_heads %" PRId64
                         " and twice num_key_value_heads %" PRId64 " times head_dim %" PRId64
                         ": expected at most %" PRId64,
                         path, config->heads, config->kv_heads, wider, max_size);
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
        {"query, key and value heads times head_dim", qkv_heads * wider},
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
                             const snrq_architecture *a, bool *out)
{
    SNRQ_TRY(snrq_json_boolean(path, root, key, false, out));
    if (*out && !possible)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %s true is not supported for %s (supported: false)",
                         path, key, a->name);
    return SNRQ_OK;
}

static snrq_status read_biases(const char *path, const json_t *root, const snrq_architecture *a,
                               snrq_config *c)
{
    SNRQ_TRY(read_bias(path, root, "attention_bias", a->attention_bias, a, &c->output_bias));
    SNRQ_TRY(read_bias(path, root, "mlp_bias", a->mlp_bias, a, &c->mlp_bias));
    c->attention_bias = c->output_bias || a->qkv_bias;
    return SNRQ_OK;
}

static snrq_status read_activation(const char *path, const json_t *root, const snrq_architecture *a,
                                   snrq_config *c)
{
    static const char tanh_name[] = "gelu_pytorch_tanh";
    const char *name, *key = a->gemma ? "hidden_activation" : "hidden_act";
    SNRQ_TRY(snrq_json_string(path, root, key, a->gemma ? tanh_name : "silu", &name));
    if (strcmp(name, "silu") == 0)
        c->activation = SNRQ_SILU;
    else if (strcmp(name, tanh_name) == 0)
        c->activation = SNRQ_GELU_TANH;
    else
        return snrq_config_refuse(path, key, name, "silu, gelu_pytorch_tanh");
    return SNRQ_OK;
}

/* A soft cap; none where the value is null. */
static snrq_status read_cap(const char *path, const json_t *root, const char *key, double by_class,
                            double *out)
{
    const double none = 0.0, usual = json_object_get(root, key) == NULL ? by_class : none;
    return snrq_json_number(path, root, key, 1e-3, 1e9, &usual, out);
}

static snrq_status read_gemma(const char *path, const json_t *root, const snrq_architecture *a,
                              snrq_config *c)
{
    const double usual = 256.0;
    double scalar;
    c->embedding_scale = sqrt((double)c->hidden);
    SNRQ_TRY(snrq_json_number(path, root, "query_pre_attn_scalar", 1e-6, 1e9, &usual, &scalar));
    c->attention_scale = 1.0 / sqrt(scalar);
    if (a->attention_cap >= 0.0)
        SNRQ_TRY(
            read_cap(path, root, "attn_logit_softcapping", a->attention_cap, &c->attention_cap));
    return read_cap(path, root, "final_logit_softcapping", a->logit_cap, &c->logit_cap);
}

static snrq_status read_multipliers(const char *path, const json_t *root, snrq_config *c)
{
    const double one = 1.0;
    const struct {
        const char *key;
        double *out;
    } rows[] = {{"embedding_multiplier", &c->embedding_scale},
                {"residual_multiplier", &c->residual_scale},
                {"attention_multiplier", &c->attention_scale},
                {"logits_scaling", &c->logit_scale}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        SNRQ_TRY(snrq_json_number(path, root, rows[i].key, 1e-9, 1e9, &one, rows[i].out));
    c->logit_scale = 1.0 / c->logit_scale;
    return SNRQ_OK;
}

/* What numbers are multiplied by, and where they end. */
static snrq_status read_scales(const char *path, const json_t *root, const snrq_architecture *a,
                               snrq_config *c)
{
    const double none = 0.0;
    c->embedding_scale = c->residual_scale = c->logit_scale = 1.0;
    c->attention_scale = 1.0 / sqrt((double)c->head_dim);
    if (a->gemma) return read_gemma(path, root, a, c);
    if (a->multipliers) return read_multipliers(path, root, c);
    if (a->experts == SNRQ_OLMO_EXPERTS)
        return snrq_json_number(path, root, "clip_qkv", 1e-6, 1e9, &none, &c->qkv_clip);
    /* DeepSeek squares the factor that yarn has for all dimensions. */
    if (a->experts == SNRQ_DEEPSEEK && c->rope.all_dimensions > 0.0 && c->rope.factor > 1.0) {
        double stretch = 0.1 * c->rope.all_dimensions * log(c->rope.factor) + 1.0;
        c->attention_scale *= stretch * stretch;
    }
    return SNRQ_OK;
}

/* Two sizes. */
static snrq_status read_fp8(const char *path, const json_t *object, snrq_config *c)
{
    json_t *size = NULL;
    SNRQ_TRY(snrq_json_array(path, object, "weight_block_size", &size));
    c->fp8_rows = json_integer_value(json_array_get(size, 0));
    c->fp8_columns = json_integer_value(json_array_get(size, 1));
    if (json_array_size(size) == 2 && c->fp8_rows > 0 && c->fp8_rows <= max_size &&
        c->fp8_columns > 0 && c->fp8_columns <= max_size)
        return SNRQ_OK;
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: quantization_config: weight_block_size: expected two sizes, as in "
                     "[128, 128]",
                     path);
}

/* Matrices in FP8, a scale for each block; other quantized checkpoints cannot be read. */
static snrq_status read_quantization(const char *path, const json_t *root, snrq_config *c)
{
    const json_t *object = json_object_get(root, "quantization_config");
    if (object == NULL || json_is_null(object)) return SNRQ_OK;
    const char *method = json_string_value(json_object_get(object, "quant_method"));
    const char *format = json_string_value(json_object_get(object, "fmt"));
    if (method != NULL && strcmp(method, "fp8") == 0 &&
        (format == NULL || strcmp(format, "e4m3") == 0))
        return read_fp8(path, object, c);
    return snrq_fail(SNRQ_BAD_DATA,
                     "%s: has a quantization_config: quantized checkpoints cannot be read; "
                     "expected the original one in F32, F16 or BF16, or one in FP8 (e4m3) with a "
                     "scale for each block",
                     path);
}

static snrq_status read_all(const char *path, const json_t *root, snrq_config *out)
{
    const snrq_architecture *a = NULL;
    const int64_t none = 0;
    bool both_ways = false;
    SNRQ_TRY(snrq_config_find_family(path, root, &a));
    snprintf(out->architecture, sizeof out->architecture, "%s", a->name);
    snprintf(out->model_type, sizeof out->model_type, "%s", a->model_type);
    out->fused = a->fused;
    out->norms = a->norms;
    out->head_norms = a->head_norms;
    out->norms_less_one = a->gemma;
    SNRQ_TRY(read_quantization(path, root, out));
    SNRQ_TRY(read_activation(path, root, a, out));
    SNRQ_TRY(read_biases(path, root, a, out));
    SNRQ_TRY(read_sizes(path, root, a, out));
    SNRQ_TRY(check_products(path, out));
    SNRQ_TRY(snrq_config_read_experts(path, root, a, out));
    SNRQ_TRY(snrq_config_read_layers(path, root, a, out));
    SNRQ_TRY(snrq_config_read_rope(path, root, a, out));
    SNRQ_TRY(read_scales(path, root, a, out));
    SNRQ_TRY(snrq_json_boolean(path, root, "use_bidirectional_attention", false, &both_ways));
    if (both_ways) return snrq_config_refuse(path, "use_bidirectional_attention", "true", "false");
    SNRQ_TRY(snrq_json_number(path, root, "rms_norm_eps", 0.0, 1.0, &a->rms_norm_eps,
                              &out->rms_norm_eps));
    SNRQ_TRY(snrq_json_boolean(path, root, "tie_word_embeddings", a->tied, &out->tied_embeddings));
    SNRQ_TRY(read_token_id(path, root, "bos_token_id", out->vocabulary, &out->bos_id));
    SNRQ_TRY(read_token_id(path, root, "eos_token_id", out->vocabulary, &out->eos_id));
    SNRQ_TRY(snrq_json_integer(path, root, "num_nextn_predict_layers", 0, SNRQ_MAX_LAYERS, &none,
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
