/* Presets; see preset.h. Names of presets and conditions are those of llama.cpp. */
#include "pipeline/options/preset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { Q2_K, Q2_K_S, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M, Q6_K, PRESETS };

/* What most modules are. */
static const char *const usual[PRESETS] = {"q2_k", "q2_k", "q3_k", "q3_k", "q3_k",
                                           "q4_k", "q4_k", "q5_k", "q5_k", "q6_k"};

const snrq_weight_format *snrq_preset_format(int preset)
{
    return snrq_weight_format_find(usual[preset]);
}

/* What the choice depends on. */
typedef struct choice {
    int preset;
    int64_t layer, layers;
    bool shares_keys; /* four query heads or more have one key head */
    bool has_8_experts;
    bool is_70b; /* as llama.cpp tells it: 80 layers, with key heads that are shared */
} choice;

/* The first and last eighth of the layers, and every third one between. */
static bool uses_more_bits(const choice *c)
{
    const int64_t eighth = c->layers / 8;
    return c->layer < eighth || c->layer >= 7 * c->layers / 8 || (c->layer - eighth) % 3 == 2;
}

static const char *type_of_values(const choice *c)
{
    const char *type = usual[c->preset];
    if (c->preset == Q2_K) type = c->shares_keys ? "q4_k" : "q3_k";
    if (c->preset == Q2_K_S && c->shares_keys) type = "q4_k";
    if (c->preset == Q3_K_M) type = c->layer < 2 ? "q5_k" : "q4_k";
    if (c->preset == Q3_K_L) type = "q5_k";
    if (c->preset == Q4_K_S && c->layer < 4) type = "q5_k";
    if ((c->preset == Q4_K_M || c->preset == Q5_K_M) && uses_more_bits(c)) type = "q6_k";
    if (c->is_70b && (strcmp(type, "q3_k") == 0 || strcmp(type, "q4_k") == 0)) type = "q5_k";
    return c->has_8_experts ? "q8_0" : type;
}

static const char *type_of_output(const choice *c)
{
    const bool few_bits = c->preset != Q5_K_S && c->preset != Q5_K_M && c->preset != Q6_K &&
                          c->preset != Q2_K_S && c->preset != Q3_K_L;
    if (c->has_8_experts) return few_bits ? "q5_k" : usual[c->preset];
    if (c->preset == Q2_K) return "q3_k";
    if (c->preset == Q3_K_M) return "q4_k";
    return c->preset == Q3_K_L ? "q5_k" : usual[c->preset];
}

static const char *type_of_down(const choice *c)
{
    const bool early = c->layer < c->layers / 8;
    if (c->preset == Q2_K) return "q3_k";
    if (c->preset == Q2_K_S && early) return "q4_k";
    if (c->preset == Q3_K_M) return c->layer < c->layers / 16 ? "q5_k" : "q4_k";
    if (c->preset == Q3_K_L) return "q5_k";
    if (c->preset == Q4_K_S && early) return "q5_k";
    if ((c->preset == Q4_K_M || c->preset == Q5_K_M) && uses_more_bits(c)) return "q6_k";
    return usual[c->preset];
}

static const char *type_of_fused(const choice *c)
{
    if (c->preset == Q3_K_M || c->preset == Q3_K_L) return "q4_k";
    if (c->preset == Q4_K_M) return "q5_k";
    return c->preset == Q5_K_M ? "q6_k" : usual[c->preset];
}

static const char *type_of_module(const choice *c, const char *name)
{
    const char *last = strrchr(name, '.') + 1;
    if (strcmp(name, "self_attn.v_proj") == 0) return type_of_values(c);
    if (strcmp(name, "self_attn.k_proj") == 0 && c->has_8_experts) return "q8_0";
    if (strcmp(name, "self_attn.o_proj") == 0) return type_of_output(c);
    if (strcmp(name, "self_attn.qkv_proj") == 0) return type_of_fused(c);
    if (strcmp(last, "down_proj") == 0 || strcmp(last, "w2") == 0) return type_of_down(c);
    return usual[c->preset];
}

static int add_rule(json_t *rules, const char *module, const char *format)
{
    return json_array_append_new(rules,
                                 json_pack("{s:s, s:s}", "modules", module, "format", format));
}

/* A rule for a module of a block that has another type than most; the same one for all layers that
 * it fits. `from`: where the rules of modules begin. */
static int add_module(json_t *rules, size_t from, int64_t layer, const char *pattern,
                      const char *format)
{
    char blocks[32];
    for (size_t i = from; i < json_array_size(rules); i++) {
        json_t *rule = json_array_get(rules, i), *list = json_object_get(rule, "blocks");
        const char *text = json_string_value(list), *comma = strrchr(text, ',');
        const long long last = strtoll(comma != NULL ? comma + 1 : text, NULL, 10);
        if (strcmp(json_string_value(json_object_get(rule, "modules")), pattern) != 0 ||
            strcmp(json_string_value(json_object_get(rule, "format")), format) != 0)
            continue;
        if (last == layer) return 0; /* another expert's */
        return json_object_set_new(rule, "blocks", json_sprintf("%s,%lld", text, (long long)layer));
    }
    snprintf(blocks, sizeof blocks, "%lld", (long long)layer);
    return json_array_append_new(rules, json_pack("{s:s, s:s, s:s}", "modules", pattern, "blocks",
                                                  blocks, "format", format));
}

/* "mlp.experts.*.down_proj": all experts' modules of a name. */
static void pattern_of(const char *name, char *out, size_t size)
{
    static const char experts[] = "experts.";
    const char *number = strstr(name, experts);
    if (number != NULL) number += sizeof experts - 1;
    if (number == NULL || *number < '0' || *number > '9')
        snprintf(out, size, "%s", name);
    else
        snprintf(out, size, "%.*s*%s", (int)(number - name), name, strchr(number, '.'));
}

snrq_status snrq_preset_rules(int preset, const snrq_model *m, json_t **rules)
{
    const snrq_config *config = &m->config;
    const bool shares = config->kv_heads < config->heads;
    choice c = {.preset = preset,
                .layers = config->layers,
                .shares_keys = config->heads / config->kv_heads >= 4,
                .has_8_experts = config->experts.count == 8,
                .is_70b = config->layers == 80 && shares};
    char pattern[SNRQ_MODULE_NAME];
    *rules = json_array();
    int failed = *rules == NULL;
    failed |= add_rule(*rules, snrq_table_names[SNRQ_EMBEDDING_TABLE],
                       config->tied_embeddings ? "q6_k" : usual[preset]);
    if (!config->tied_embeddings)
        failed |= add_rule(*rules, snrq_table_names[SNRQ_HEAD_TABLE], "q6_k");
    const size_t from = json_array_size(*rules);
    for (c.layer = 0; c.layer < c.layers; c.layer++) {
        const snrq_family *f = snrq_model_family(m, c.layer);
        for (int i = 0; i < f->modules; i++) {
            const char *type = type_of_module(&c, f->module[i].name);
            if (strcmp(type, usual[preset]) == 0) continue;
            pattern_of(f->module[i].name, pattern, sizeof pattern);
            failed |= add_module(*rules, from, c.layer, pattern, type);
        }
    }
    return failed == 0 ? SNRQ_OK : snrq_fail(SNRQ_INTERNAL, "no memory for the rules of a preset");
}
