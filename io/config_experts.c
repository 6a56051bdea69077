/* Mixtures of experts; see config_families.h. */
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "io/config_families.h"
#include "io/json.h"

static snrq_status read_one(const char *path, const json_t *root, const char *key, int64_t least,
                            int64_t most, int64_t otherwise, int64_t *out)
{
    return snrq_json_integer(path, root, key, least, most, &otherwise, out);
}

/* Layers of Qwen3-MoE that have no experts. */
static snrq_status read_qwen_layers(const char *path, const json_t *root, snrq_config *c)
{
    static const char key[] = "mlp_only_layers";
    int64_t step = 1;
    json_t *list = json_object_get(root, key);
    SNRQ_TRY(read_one(path, root, "decoder_sparse_step", 1, INT32_MAX, 1, &step));
    for (int64_t i = 0; i < c->layers; i++)
        snrq_config_mark(c, i, SNRQ_LAYER_EXPERTS, c->experts.count > 0 && (i + 1) % step == 0);
    if (list == NULL || json_is_null(list)) return SNRQ_OK;
    SNRQ_TRY(snrq_json_array(path, root, key, &list));
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *layer = json_array_get(list, k);
        if (!json_is_integer(layer))
            return snrq_fail(SNRQ_BAD_DATA, "%s: %s[%zu]: expected an integer, found %s", path, key,
                             k, snrq_json_kind(layer));
        int64_t i = json_integer_value(layer);
        if (i >= 0 && i < c->layers) snrq_config_mark(c, i, SNRQ_LAYER_EXPERTS, false);
    }
    return SNRQ_OK;
}

static snrq_status read_deepseek(const char *path, const json_t *root, snrq_config *c)
{
    snrq_experts_config *e = &c->experts;
    int64_t dense = 0, shared = 0, frequency = 1;
    const char *scoring, *method;
    const double scale = 2.5;
    SNRQ_TRY(read_one(path, root, "n_routed_experts", 1, INT32_MAX, 256, &e->count));
    SNRQ_TRY(read_one(path, root, "num_experts_per_tok", 1, e->count, 8, &e->chosen));
    SNRQ_TRY(
        read_one(path, root, "moe_intermediate_size", 1, INT32_MAX / 2, 2048, &e->intermediate));
    SNRQ_TRY(read_one(path, root, "n_shared_experts", 0, 1024, 1, &shared));
    SNRQ_TRY(read_one(path, root, "n_group", 1, e->count, 8, &e->groups));
    SNRQ_TRY(read_one(path, root, "topk_group", 1, e->groups, 4, &e->chosen_groups));
    SNRQ_TRY(read_one(path, root, "first_k_dense_replace", 0, INT32_MAX, 3, &dense));
    SNRQ_TRY(read_one(path, root, "moe_layer_freq", 1, 1, 1, &frequency));
    SNRQ_TRY(snrq_json_number(path, root, "routed_scaling_factor", 1e-6, 1e6, &scale, &e->scale));
    SNRQ_TRY(snrq_json_boolean(path, root, "norm_topk_prob", true, &e->normalized));
    SNRQ_TRY(snrq_json_string(path, root, "scoring_func", "sigmoid", &scoring));
    SNRQ_TRY(snrq_json_string(path, root, "topk_method", "noaux_tc", &method));
    if (strcmp(scoring, "sigmoid") != 0 || strcmp(method, "noaux_tc") != 0)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: scoring_func \"%s\" with topk_method \"%s\" is not supported "
                         "(supported: sigmoid with noaux_tc)",
                         path, scoring, method);
    if (e->count % e->groups != 0 || e->count / e->groups < 2 ||
        e->chosen > e->chosen_groups * (e->count / e->groups))
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_experts_per_tok %" PRId64 " of n_routed_experts %" PRId64
                         " in topk_group %" PRId64 " of n_group %" PRId64
                         ": expected groups of the same size, 2 at least, that hold so many",
                         path, e->chosen, e->count, e->chosen_groups, e->groups);
    if (shared > INT32_MAX / 2 / e->intermediate)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: n_shared_experts %" PRId64 " times moe_intermediate_size %" PRId64
                         ": expected at most %d",
                         path, shared, e->intermediate, INT32_MAX / 2);
    e->shared = shared * e->intermediate;
    e->sigmoid = e->biased = true;
    for (int64_t i = 0; i < c->layers; i++) snrq_config_mark(c, i, SNRQ_LAYER_EXPERTS, i >= dense);
    return SNRQ_OK;
}

/* Mixtral and OLMoE have experts everywhere, Qwen3-MoE where it says so. */
static snrq_status read_softmax(const char *path, const json_t *root, const snrq_architecture *a,
                                snrq_config *c)
{
    snrq_experts_config *e = &c->experts;
    const bool mixtral = a->experts == SNRQ_MIXTRAL, qwen = a->experts == SNRQ_QWEN_EXPERTS;
    const int64_t usual = mixtral ? 8 : qwen ? 128 : 64;
    int64_t count = 0;
    /* Writers do not agree on the name. */
    SNRQ_TRY(read_one(path, root, "num_local_experts", 1, INT32_MAX, usual, &count));
    SNRQ_TRY(read_one(path, root, "num_experts", 1, INT32_MAX, count, &e->count));
    if (mixtral) e->count = count;
    SNRQ_TRY(read_one(path, root, "num_experts_per_tok", 1, e->count, mixtral ? 2 : 8, &e->chosen));
    e->intermediate = c->intermediate;
    if (qwen)
        SNRQ_TRY(
            read_one(path, root, "moe_intermediate_size", 1, INT32_MAX / 2, 768, &e->intermediate));
    e->normalized = mixtral;
    if (!mixtral) SNRQ_TRY(snrq_json_boolean(path, root, "norm_topk_prob", false, &e->normalized));
    e->groups = e->chosen_groups = 1;
    e->scale = 1.0;
    e->mixtral_names = mixtral;
    if (qwen) return read_qwen_layers(path, root, c);
    for (int64_t i = 0; i < c->layers; i++) snrq_config_mark(c, i, SNRQ_LAYER_EXPERTS, true);
    return SNRQ_OK;
}

/* A model of an architecture without experts must not say that it has some. */
static snrq_status refuse_experts(const char *path, const json_t *root, const snrq_architecture *a)
{
    static const char *const keys[] = {"num_local_experts", "num_experts", "n_routed_experts"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int64_t count = 0;
        SNRQ_TRY(read_one(path, root, keys[i], 0, INT32_MAX, 0, &count));
        if (count > 0)
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: %s %" PRId64 ": %s has no experts (those that have: "
                             "MixtralForCausalLM, Qwen3MoeForCausalLM, OlmoeForCausalLM, "
                             "DeepseekV3ForCausalLM)",
                             path, keys[i], count, a->name);
    }
    return SNRQ_OK;
}

snrq_status snrq_config_read_experts(const char *path, const json_t *root,
                                     const snrq_architecture *a, snrq_config *c)
{
    if (a->experts == SNRQ_DENSE) return refuse_experts(path, root, a);
    SNRQ_TRY(a->experts == SNRQ_DEEPSEEK ? read_deepseek(path, root, c)
                                         : read_softmax(path, root, a, c));
    if (c->experts.chosen > c->experts.count)
        return snrq_fail(SNRQ_BAD_DATA,
                         "%s: num_experts_per_tok %" PRId64 ": expected at most %" PRId64
                         ", the number of experts",
                         path, c->experts.chosen, c->experts.count);
    if (c->experts.count > SNRQ_MAX_EXPERTS)
        return snrq_fail(SNRQ_BAD_DATA, "%s: %" PRId64 " experts: expected at most %d", path,
                         c->experts.count, (int)SNRQ_MAX_EXPERTS);
    return SNRQ_OK;
}
