/* Families as llama.cpp has them; see gguf_family.h. */
#include "pipeline/export/gguf_family.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* `windows`: it masks what is outside of a window. `halves`: it turns neighbours, so that the rows
 * of query and key heads, whose halves turn together, must take turns in the file. */
static const struct family_row {
    const char *model_type, *architecture;
    bool windows, halves, biases;
} rows[] = {
    {"llama", "llama", false, true, true},
    {"mistral", "llama", false, true, true},
    {"mixtral", "llama", false, true, false},
    {"granite", "granite", false, true, true},
    {"smollm3", "smollm3", false, true, false},
    {"qwen2", "qwen2", false, false, true},
    {"qwen3", "qwen3", false, false, false},
    {"qwen3_moe", "qwen3moe", false, false, false},
    {"phi3", "phi3", false, false, false},
    {"olmo2", "olmo2", false, false, false},
    {"olmoe", "olmoe", false, false, false},
    {"gemma2", "gemma2", true, false, false},
    {"gemma3_text", "gemma3", true, false, false},
    {"deepseek_v3", "deepseek2", false, false, false},
};
enum { FAMILIES = sizeof rows / sizeof rows[0] };

static const struct family_row *row_of(const snrq_config *c)
{
    const struct family_row *row = rows;
    while (row < rows + FAMILIES - 1 && strcmp(row->model_type, c->model_type) != 0) row++;
    return row;
}

const char *snrq_gguf_architecture(const snrq_config *c)
{
    return row_of(c)->architecture;
}

static bool is(const snrq_config *c, const char *architecture)
{
    return strcmp(row_of(c)->architecture, architecture) == 0;
}

/* ---- what it cannot do ---- */

static snrq_status refuse(const snrq_config *c, const char *what)
{
    return snrq_fail(SNRQ_USAGE, "llama.cpp's %s %s; the model can be exported to safetensors",
                     snrq_gguf_architecture(c), what);
}

static snrq_status check_rope(const snrq_config *c)
{
    const snrq_rope_config *r = &c->rope;
    const double usual = r->factor > 0.0 ? 0.1 * log(r->factor) + 1.0 : 1.0;
    char text[128];
    bool known = r->type == SNRQ_ROPE_DEFAULT || r->type == SNRQ_ROPE_LINEAR ||
                 (r->type == SNRQ_ROPE_LONGROPE && is(c, "phi3")) ||
                 (r->type == SNRQ_ROPE_LLAMA3 && is(c, "llama")) ||
                 (r->type == SNRQ_ROPE_YARN && r->truncate);
    snprintf(text, sizeof text, "does not read rope factors of type %s",
             snrq_rope_type_name(r->type));
    if (!known) return refuse(c, text);
    if (r->type == SNRQ_ROPE_YARN && is(c, "deepseek2") &&
        (r->attention_factor != 1.0 || r->all_dimensions <= 0.0))
        return refuse(c, "knows yarn only with mscale and mscale_all_dim alike");
    if (r->type == SNRQ_ROPE_YARN && !is(c, "deepseek2") &&
        fabs(r->attention_factor - usual) > 1e-9)
        return refuse(c, "knows yarn only with the usual attention_factor");
    if (c->latent.keys > 0 && !r->pairs) return refuse(c, "turns neighbours, not halves, of heads");
    return SNRQ_OK;
}

/* Every N-th layer lacks the flag, or has it. */
static bool has_pattern(const snrq_config *c, int flag, int64_t period, bool nth)
{
    for (int64_t i = 0; i < c->layers; i++)
        if (snrq_config_layer(c, i, flag) != (((i + 1) % period == 0) == nth)) return false;
    return true;
}

static snrq_status check_gemma(const snrq_config *c)
{
    const bool second = is(c, "gemma2");
    /* Its largest models are told by their layers. */
    const bool largest = c->layers == (second ? 46 : 62);
    const double width = largest ? (double)(c->hidden / c->heads) : (double)c->head_dim;
    if (fabs(c->attention_scale * sqrt(width) - 1.0) > 1e-9)
        return refuse(c, "scales scores by the width of a head, not by query_pre_attn_scalar");
    if (second && (c->attention_cap <= 0.0 || c->logit_cap <= 0.0))
        return refuse(c, "always caps scores and logits");
    if (!second && c->logit_cap > 0.0) return refuse(c, "does not cap logits");
    if (!second && c->local_rope.theta != 10000.0)
        return refuse(c, "turns layers with a window by base 10000 only");
    if (c->window == 0 || !has_pattern(c, SNRQ_LAYER_WINDOW, second ? 2 : 6, false))
        return refuse(c, second ? "has a window in every other layer, the first one among them"
                                : "has a window in all but every sixth layer");
    return SNRQ_OK;
}

static snrq_status check_experts(const snrq_config *c)
{
    const snrq_experts_config *e = &c->experts;
    const int64_t dense = c->layers - snrq_config_layers_with(c, SNRQ_LAYER_EXPERTS);
    if (e->count == 0) return SNRQ_OK;
    if (is(c, "qwen3moe") && !e->normalized)
        return refuse(c, "divides the weights of a token's experts by their sum");
    if (is(c, "olmoe") && e->normalized)
        return refuse(c, "does not divide the weights of a token's experts by their sum");
    if (is(c, "olmoe") && c->kv_heads != c->heads)
        return refuse(c, "has a key head for every query head");
    if (dense > 0 && !is(c, "deepseek2")) return refuse(c, "has experts in all layers");
    if (is(c, "deepseek2") && c->latent.queries == 0)
        return refuse(c, "wants a latent vector of queries (q_lora_rank)");
    if (is(c, "deepseek2") && e->shared == 0) return refuse(c, "wants an expert for all tokens");
    return SNRQ_OK;
}

snrq_status snrq_gguf_check_config(const snrq_config *c)
{
    if ((c->attention_bias || c->output_bias || c->mlp_bias) &&
        (!row_of(c)->biases || (c->output_bias && is(c, "qwen2"))))
        return refuse(c, "has no biases, and this model has");
    SNRQ_TRY(check_rope(c));
    SNRQ_TRY(check_experts(c));
    if (c->qkv_clip > 0.0) return refuse(c, "does not cut off queries, keys and values");
    if ((c->activation == SNRQ_GELU_TANH) != c->norms_less_one)
        return refuse(c, "has another activation");
    if (is(c, "smollm3") && !has_pattern(c, SNRQ_LAYER_NO_ROPE, 4, true))
        return refuse(c, "leaves every fourth layer without rope");
    if (c->norms_less_one) return check_gemma(c);
    return SNRQ_OK;
}

/* ---- names ---- */

int64_t snrq_gguf_interleaved(const snrq_config *c, const char *name)
{
    bool heads =
        strncmp(name, "self_attn.q_proj", 16) == 0 || strncmp(name, "self_attn.k_proj", 16) == 0;
    return heads && row_of(c)->halves ? c->head_dim : 0;
}

/* Names below "model.layers.N." and "blk.N.". */
static const char *const names[][2] = {
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.q_a_layernorm", "attn_q_a_norm"},
    {"self_attn.kv_a_layernorm", "attn_kv_a_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.qkv_proj", "attn_qkv"},
    {"self_attn.q_a_proj", "attn_q_a"},
    {"self_attn.q_b_proj", "attn_q_b"},
    {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    {"self_attn.kv_b_proj", "attn_kv_b"},
    {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.gate_up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
    {"mlp.shared_experts.down_proj", "ffn_down_shexp"},
    {"mlp.gate", "ffn_gate_inp"},
    {"block_sparse_moe.gate", "ffn_gate_inp"},
};

/* Where there are norms of what attention and MLP make. */
static const char *const after_names[][2] = {
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
};

static const char *find(const char *const table[][2], size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i][0], name) == 0) return table[i][1];
    return NULL;
}

void snrq_gguf_part_name(const snrq_config *c, const char *name, char out[SNRQ_GGUF_NAME])
{
    const char *found = NULL, *expert = strstr(name, "experts.");
    if (c->norms != SNRQ_NORMS_BEFORE)
        found = find(after_names, sizeof after_names / sizeof *after_names, name);
    if (found == NULL) found = find(names, sizeof names / sizeof *names, name);
    if (found == NULL && expert != NULL) {
        const char *part = strrchr(name, '.') + 1;
        found = part[0] == 'g' || strcmp(part, "w1") == 0   ? "ffn_gate_exps"
                : part[0] == 'd' || strcmp(part, "w2") == 0 ? "ffn_down_exps"
                                                            : "ffn_up_exps";
    }
    snprintf(out, SNRQ_GGUF_NAME, "%s", found != NULL ? found : name);
}

/* ---- metadata ---- */

/* Within a window all positions are seen, which is what llama.cpp computes where it knows no
 * windows: the file promises no longer context than that. */
int64_t snrq_gguf_context(const snrq_config *c)
{
    bool windows = !row_of(c)->windows && snrq_config_layers_with(c, SNRQ_LAYER_WINDOW) > 0;
    return windows && c->window < c->max_positions ? c->window : c->max_positions;
}

static void put_number(snrq_gguf_writer *w, const snrq_config *c, const char *key, double value)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", snrq_gguf_architecture(c), key);
    snrq_gguf_put_f32(w, full, value);
}

static void put_count(snrq_gguf_writer *w, const snrq_config *c, const char *key, int64_t value)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", snrq_gguf_architecture(c), key);
    snrq_gguf_put_u32(w, full, value);
}

static void put_scaling(snrq_gguf_writer *w, const snrq_config *c, const char *type)
{
    char key[96];
    snprintf(key, sizeof key, "%s.rope.scaling.type", snrq_gguf_architecture(c));
    snrq_gguf_put_string(w, key, type);
    put_number(w, c, "rope.scaling.factor", c->rope.factor);
}

static void put_rope(snrq_gguf_writer *w, const snrq_config *c)
{
    const snrq_rope_config *r = &c->rope;
    put_number(w, c, "rope.freq_base", r->theta);
    put_count(w, c, "rope.dimension_count", r->dimensions);
    if (r->type == SNRQ_ROPE_LINEAR) put_scaling(w, c, "linear");
    if (r->type == SNRQ_ROPE_LONGROPE) {
        put_count(w, c, "rope.scaling.original_context_length", r->original_positions);
        put_number(w, c, "rope.scaling.attn_factor", r->attention_factor);
    }
    if (r->type != SNRQ_ROPE_YARN) return;
    put_scaling(w, c, "yarn");
    put_count(w, c, "rope.scaling.original_context_length", r->original_positions);
    put_number(w, c, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_number(w, c, "rope.scaling.yarn_beta_slow", r->beta_slow);
    if (is(c, "deepseek2"))
        put_number(w, c, "rope.scaling.yarn_log_multiplier", 0.1 * r->all_dimensions);
}

static void put_experts(snrq_gguf_writer *w, const snrq_config *c)
{
    const snrq_experts_config *e = &c->experts;
    enum { SIGMOID = 2 };
    char key[96];
    if (e->count == 0) return;
    put_count(w, c, "expert_count", e->count);
    put_count(w, c, "expert_used_count", e->chosen);
    if (is(c, "qwen3moe")) put_count(w, c, "expert_feed_forward_length", e->intermediate);
    if (!is(c, "deepseek2")) return;
    put_count(w, c, "expert_feed_forward_length", e->intermediate);
    put_count(w, c, "expert_shared_count", e->shared / e->intermediate);
    put_number(w, c, "expert_weights_scale", e->scale);
    snprintf(key, sizeof key, "%s.expert_weights_norm", snrq_gguf_architecture(c));
    snrq_gguf_put_bool(w, key, e->normalized);
    put_count(w, c, "expert_gating_func", SIGMOID);
    put_count(w, c, "expert_group_count", e->groups);
    put_count(w, c, "expert_group_used_count", e->chosen_groups);
    put_count(w, c, "leading_dense_block_count",
              c->layers - snrq_config_layers_with(c, SNRQ_LAYER_EXPERTS));
    put_count(w, c, "attention.q_lora_rank", c->latent.queries);
    put_count(w, c, "attention.kv_lora_rank", c->latent.keys);
}

static void put_scales(snrq_gguf_writer *w, const snrq_config *c)
{
    if (is(c, "granite")) {
        put_number(w, c, "attention.scale", c->attention_scale);
        put_number(w, c, "embedding_scale", c->embedding_scale);
        put_number(w, c, "residual_scale", c->residual_scale);
        put_number(w, c, "logit_scale", 1.0 / c->logit_scale);
    }
    if (c->attention_cap > 0.0) put_number(w, c, "attn_logit_softcapping", c->attention_cap);
    if (c->logit_cap > 0.0) put_number(w, c, "final_logit_softcapping", c->logit_cap);
    if (is(c, "phi3") || row_of(c)->windows) put_count(w, c, "attention.sliding_window", c->window);
}

void snrq_gguf_put_config(snrq_gguf_writer *w, const snrq_config *c)
{
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {
        {"context_length", snrq_gguf_context(c)},
        {"embedding_length", c->hidden},
        {"block_count", c->layers},
        {"feed_forward_length", c->intermediate},
        {"attention.head_count", c->heads},
        {"attention.head_count_kv", c->kv_heads},
        {"attention.key_length", c->head_dim},
        {"attention.value_length", c->value_dim},
        {"vocab_size", c->vocabulary},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        put_count(w, c, sizes[i].key, sizes[i].value);
    put_number(w, c, "attention.layer_norm_rms_epsilon", c->rms_norm_eps);
    put_scales(w, c);
    put_rope(w, c);
    put_experts(w, c);
}
