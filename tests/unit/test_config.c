/* config.json: what is read, what is assumed where a key is absent, and what is refused by name. */
#include "io/config.h"

#include <jansson.h>

#include "tests/unit/test_files.h"

static const char base[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":512,"
    "\"hidden_size\":96,\"intermediate_size\":256,\"num_hidden_layers\":4,"
    "\"num_attention_heads\":6}";

/* Reads the base configuration with `changes` (a JSON object) applied; a key of value {"absent":0}
 * is removed. */
static snrq_status read_changed(const char *changes, snrq_config *out)
{
    const char *key;
    json_t *value, *root = json_loads(base, 0, NULL), *object = json_loads(changes, 0, NULL);
    json_object_foreach(object, key, value)
    {
        if (json_object_get(value, "absent") != NULL)
            json_object_del(root, key);
        else
            json_object_set(root, key, value);
    }
    char *text = json_dumps(root, 0);
    scratch_write_text("config.json", text);
    free(text);
    json_decref(root);
    json_decref(object);
    return snrq_config_read(scratch(), out);
}

static void refused(const char *changes, const char *fragment)
{
    snrq_config config;
    assert_failed(read_changed(changes, &config), SNRQ_BAD_DATA, fragment);
    CU_ASSERT_PTR_NOT_NULL(strstr(snrq_error_message(), "config.json"));
}

#define FAMILY(name, type) "\"architectures\":[\"" name "\"],\"model_type\":\"" type "\""

static void absent_keys_get_their_defaults(void)
{
    snrq_config c;
    if (!assert_ok(read_changed("{}", &c))) return;
    CU_ASSERT_STRING_EQUAL(c.architecture, "LlamaForCausalLM");
    CU_ASSERT_STRING_EQUAL(c.model_type, "llama");
    CU_ASSERT_EQUAL(c.vocabulary, 512);
    CU_ASSERT_EQUAL(c.hidden, 96);
    CU_ASSERT_EQUAL(c.intermediate, 256);
    CU_ASSERT_EQUAL(c.layers, 4);
    CU_ASSERT_EQUAL(c.heads, 6);
    CU_ASSERT_EQUAL(c.kv_heads, 6);
    CU_ASSERT_EQUAL(c.head_dim, 16);
    CU_ASSERT_EQUAL(c.max_positions, 2048);
    CU_ASSERT_EQUAL(c.rms_norm_eps, 1e-6);
    CU_ASSERT_EQUAL(c.rope.theta, 10000.0);
    CU_ASSERT_FALSE(c.tied_embeddings);
    CU_ASSERT_FALSE(c.fused || c.head_norms || c.attention_bias || c.mlp_bias);
    CU_ASSERT_EQUAL(c.window, 0);
    CU_ASSERT_EQUAL(c.rope.type, SNRQ_ROPE_DEFAULT);
    CU_ASSERT_EQUAL(c.rope.dimensions, 16);
    CU_ASSERT_EQUAL(c.rope.attention_factor, 1.0);
    CU_ASSERT_EQUAL(c.bos_id, -1);
    CU_ASSERT_EQUAL(c.eos_id, -1);
    CU_ASSERT_EQUAL(c.dtype, SNRQ_BF16);
}

static void given_keys_are_read(void)
{
    snrq_config c;
    if (!assert_ok(
            read_changed("{\"num_key_value_heads\":2,\"head_dim\":32,\"rope_theta\":500000,"
                         "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,"
                         "\"tie_word_embeddings\":true,\"bos_token_id\":1,\"eos_token_id\":2,"
                         "\"torch_dtype\":\"float16\"}",
                         &c)))
        return;
    CU_ASSERT_EQUAL(c.kv_heads, 2);
    CU_ASSERT_EQUAL(c.head_dim, 32);
    CU_ASSERT_EQUAL(c.rope.theta, 500000.0);
    CU_ASSERT_EQUAL(c.max_positions, 64);
    CU_ASSERT_EQUAL(c.rms_norm_eps, 1e-5);
    CU_ASSERT_TRUE(c.tied_embeddings);
    CU_ASSERT_EQUAL(c.bos_id, 1);
    CU_ASSERT_EQUAL(c.eos_id, 2);
    CU_ASSERT_EQUAL(c.dtype, SNRQ_F16);
}

static void null_counts_as_absent(void)
{
    snrq_config c;
    if (!assert_ok(read_changed("{\"num_key_value_heads\":null,\"head_dim\":null,"
                                "\"rope_scaling\":null,\"bos_token_id\":null,\"torch_dtype\":null,"
                                "\"architectures\":null,\"attention_bias\":null}",
                                &c)))
        return;
    CU_ASSERT_EQUAL(c.kv_heads, 6);
    CU_ASSERT_EQUAL(c.head_dim, 16);
    CU_ASSERT_STRING_EQUAL(c.architecture, "LlamaForCausalLM");
}

static void the_newer_spelling_is_read(void)
{
    snrq_config c;
    if (!assert_ok(
            read_changed("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e6},"
                         "\"dtype\":\"float32\"}",
                         &c)))
        return;
    CU_ASSERT_EQUAL(c.rope.theta, 1e6);
    CU_ASSERT_EQUAL(c.dtype, SNRQ_F32);
}

static void a_list_of_end_tokens_gives_its_first(void)
{
    snrq_config c;
    if (!assert_ok(read_changed("{\"eos_token_id\":[7,8],\"bos_token_id\":[]}", &c))) return;
    CU_ASSERT_EQUAL(c.eos_id, 7);
    CU_ASSERT_EQUAL(c.bos_id, -1);
}

#define MISTRAL "\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\""
#define QWEN3 "\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\""
#define PHI3 "\"architectures\":[\"Phi3ForCausalLM\"],\"model_type\":\"phi3\""
#define HEADS ",\"num_key_value_heads\":2,\"head_dim\":16"

static void another_architecture_is_refused(void)
{
    refused("{\"architectures\":[\"GPT2LMHeadModel\"],\"model_type\":\"gpt2\"}",
            "architecture \"GPT2LMHeadModel\" is not supported (supported: LlamaForCausalLM, "
            "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Phi3ForCausalLM, "
            "Olmo2ForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM, GraniteForCausalLM, "
            "SmolLM3ForCausalLM, MixtralForCausalLM, Qwen3MoeForCausalLM, OlmoeForCausalLM, "
            "DeepseekV3ForCausalLM)");
    refused("{\"architectures\":[\"Qwen2MoeForCausalLM\"]}", "\"Qwen2MoeForCausalLM\"");
    refused("{\"architectures\":{\"absent\":0},\"model_type\":\"gemma\"}",
            "model_type \"gemma\" is not supported (supported: llama, mistral, qwen2, qwen3, phi3, "
            "olmo2, gemma2, gemma3_text, granite, smollm3, mixtral, qwen3_moe, olmoe, "
            "deepseek_v3)");
    refused("{\"model_type\":\"mistral\"}",
            "model_type \"mistral\" does not belong to architecture \"LlamaForCausalLM\"");
    refused("{\"architectures\":{\"absent\":0},\"model_type\":{\"absent\":0}}",
            "neither \"architectures\"");
    refused("{\"architectures\":\"LlamaForCausalLM\"}", "\"architectures\": expected an array");
    refused("{\"architectures\":[3]}", "\"architectures\": expected strings");
}

static void the_model_type_stands_in_for_the_architecture(void)
{
    snrq_config c;
    if (!assert_ok(read_changed("{\"architectures\":[],\"model_type\":\"mistral\"" HEADS "}", &c)))
        return;
    CU_ASSERT_STRING_EQUAL(c.architecture, "MistralForCausalLM");
}

/* transformers: what each configuration class assumes where a key is absent, and where it is null.
 */
static void absent_keys_mean_what_the_architecture_assumes(void)
{
    snrq_config c;
    if (assert_ok(
            read_changed("{" MISTRAL ",\"hidden_size\":256,\"num_attention_heads\":16}", &c))) {
        CU_ASSERT_EQUAL(c.kv_heads, 8);
        CU_ASSERT_EQUAL(c.head_dim, 16);
        CU_ASSERT_EQUAL(c.window, 4096);
        CU_ASSERT_EQUAL(c.max_positions, 131072);
    }
    if (assert_ok(read_changed("{" MISTRAL ",\"num_key_value_heads\":null,"
                               "\"sliding_window\":null}",
                               &c))) {
        CU_ASSERT_EQUAL(c.kv_heads, 6);
        CU_ASSERT_EQUAL(c.window, 0);
    }
    if (assert_ok(read_changed("{" QWEN3 ",\"num_attention_heads\":64}", &c))) {
        CU_ASSERT_EQUAL(c.kv_heads, 32);
        CU_ASSERT_EQUAL(c.head_dim, 128);
        CU_ASSERT_EQUAL(c.window, 0);
        CU_ASSERT_TRUE(c.head_norms);
    }
    if (assert_ok(read_changed("{" PHI3 "}", &c))) {
        CU_ASSERT_EQUAL(c.kv_heads, 6);
        CU_ASSERT_EQUAL(c.window, 0);
        CU_ASSERT_EQUAL(c.rms_norm_eps, 1e-5);
        CU_ASSERT_TRUE(c.fused);
    }
}

static void a_qwen_window_is_for_the_upper_layers(void)
{
    snrq_config c;
    if (assert_ok(
            read_changed("{" QWEN3 HEADS ",\"sliding_window\":8,\"max_window_layers\":3}", &c)))
        CU_ASSERT_EQUAL(snrq_config_window(&c, 3), 0);
    if (assert_ok(read_changed("{" QWEN3 HEADS ",\"use_sliding_window\":true,"
                               "\"sliding_window\":8,\"max_window_layers\":3}",
                               &c))) {
        CU_ASSERT_EQUAL(snrq_config_window(&c, 2), 0);
        CU_ASSERT_EQUAL(snrq_config_window(&c, 3), 8);
    }
    if (assert_ok(read_changed("{" QWEN3 HEADS ",\"use_sliding_window\":true,"
                               "\"sliding_window\":8,\"layer_types\":[\"full_attention\","
                               "\"full_attention\",\"sliding_attention\",\"sliding_attention\"]}",
                               &c))) {
        CU_ASSERT_EQUAL(snrq_config_window(&c, 1), 0);
        CU_ASSERT_EQUAL(snrq_config_window(&c, 2), 8);
    }
}

static void other_patterns_of_layers_are_refused(void)
{
    refused("{" MISTRAL ",\"num_key_value_heads\":null,\"layer_types\":[\"sliding_attention\","
            "\"full_attention\",\"sliding_attention\",\"sliding_attention\"]}",
            "layer_types[1] is \"full_attention\"; supported is \"sliding_attention\" there");
    refused("{" QWEN3 HEADS ",\"layer_types\":[\"full_attention\",\"full_attention\","
            "\"full_attention\",\"sliding_attention\"]}",
            "layer_types[3] is \"sliding_attention\"; supported is \"full_attention\"");
    refused("{\"layer_types\":[\"full_attention\",\"full_attention\",\"chunked_attention\","
            "\"full_attention\"]}",
            "layer_types[2] is \"chunked_attention\"");
    refused("{\"layer_types\":[1,2,3,4]}", "layer_types[0] is \"no string\"");
    refused("{\"layer_types\":[\"full_attention\"]}",
            "expected num_hidden_layers 4 entries, found 1");
    refused("{\"layer_types\":\"full_attention\"}", "\"layer_types\": expected an array");
}

static void windows_that_are_none_are_refused(void)
{
    refused("{\"sliding_window\":4096}",
            "sliding_window 4096 is not supported for LlamaForCausalLM (supported: null)");
    refused("{" MISTRAL HEADS ",\"sliding_window\":0}", "\"sliding_window\": expected an integer");
    refused("{" MISTRAL HEADS ",\"sliding_window\":\"16\"}", "found a string");
    refused("{" QWEN3 HEADS ",\"use_sliding_window\":1}", "\"use_sliding_window\"");
}

static void llama3_scaling_is_read(void)
{
    snrq_config c;
    if (!assert_ok(read_changed("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32.0,"
                                "\"low_freq_factor\":1.0,\"high_freq_factor\":4,"
                                "\"original_max_position_embeddings\":8192}}",
                                &c)))
        return;
    CU_ASSERT_EQUAL(c.rope.type, SNRQ_ROPE_LLAMA3);
    CU_ASSERT_EQUAL(c.rope.factor, 32.0);
    CU_ASSERT_EQUAL(c.rope.low_frequency, 1.0);
    CU_ASSERT_EQUAL(c.rope.high_frequency, 4.0);
    CU_ASSERT_EQUAL(c.rope.original_positions, 8192);
}

#define FACTORS "[1,1.5,2,2.5,3,3.5,4,4.5]"
#define LONGROPE "{\"type\":\"longrope\",\"short_factor\":" FACTORS ",\"long_factor\":" FACTORS "}"

static void longrope_is_read_in_both_spellings(void)
{
    snrq_config c;
    static const char *const changes[] = {
        "{" PHI3 ",\"max_position_embeddings\":4096,\"original_max_position_embeddings\":64,"
        "\"rope_scaling\":" LONGROPE "}",
        "{" PHI3 ",\"max_position_embeddings\":4096,\"rope_parameters\":{\"rope_type\":"
        "\"longrope\",\"rope_theta\":10000.0,\"short_factor\":" FACTORS ",\"long_factor\":" FACTORS
        ",\"original_max_position_embeddings\":64,\"partial_rotary_factor\":1.0}}",
        "{" PHI3 ",\"max_position_embeddings\":4096,\"original_max_position_embeddings\":64,"
        "\"rope_scaling\":{\"type\":\"su\",\"short_factor\":" FACTORS ",\"long_factor\":" FACTORS
        "}}",
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        if (!assert_ok(read_changed(changes[i], &c))) continue;
        CU_ASSERT_EQUAL(c.rope.type, SNRQ_ROPE_LONGROPE);
        CU_ASSERT_EQUAL(c.rope.original_positions, 64);
        CU_ASSERT_EQUAL(c.rope.long_factor[7], 4.5);
        /* 4096 = 64 squared: sqrt(1 + ln 64 / ln 64) */
        CU_ASSERT_DOUBLE_EQUAL(c.rope.attention_factor, 1.4142135623730951, 1e-15);
    }
}

static void a_part_of_a_head_may_turn_in_phi3(void)
{
    snrq_config c;
    if (assert_ok(read_changed("{" PHI3 ",\"partial_rotary_factor\":0.75}", &c)))
        CU_ASSERT_EQUAL(c.rope.dimensions, 12);
    refused("{" PHI3 ",\"partial_rotary_factor\":0.1}",
            "partial_rotary_factor 0.1 of head_dim 16 makes 1 dimensions");
    refused("{\"partial_rotary_factor\":0.5}",
            "partial_rotary_factor 0.5 is not supported for LlamaForCausalLM (supported: 1)");
}

/* What config.json does not say: by the classes of transformers. */
static void families_have_switches_of_their_own(void)
{
    snrq_config c;
    if (assert_ok(read_changed(
            "{" FAMILY("Qwen2ForCausalLM", "qwen2") ",\"num_key_value_heads\":2}", &c)))
        CU_ASSERT_TRUE(c.attention_bias && !c.output_bias && c.window == 0);
    if (assert_ok(read_changed("{" FAMILY("Olmo2ForCausalLM", "olmo2") "}", &c))) {
        CU_ASSERT_EQUAL(c.norms, SNRQ_NORMS_AFTER);
        CU_ASSERT_EQUAL(c.head_norms, SNRQ_NORM_OF_ALL_HEADS);
        CU_ASSERT_EQUAL(c.rms_norm_eps, 1e-5);
    }
    if (assert_ok(
            read_changed("{" FAMILY("Gemma2ForCausalLM",
                                    "gemma2") ",\"num_key_value_heads\":2,\"sliding_window\":8}",
                         &c))) {
        CU_ASSERT_EQUAL(c.attention_cap, 50.0);
        CU_ASSERT_EQUAL(c.logit_cap, 30.0);
        CU_ASSERT_EQUAL(c.attention_scale, 1.0 / 16.0);
        CU_ASSERT_EQUAL(c.head_dim, 256);
        CU_ASSERT_TRUE(c.tied_embeddings && c.norms_less_one);
        CU_ASSERT_EQUAL(snrq_config_window(&c, 0), 8);
        CU_ASSERT_EQUAL(snrq_config_window(&c, 1), 0);
    }
    if (assert_ok(read_changed(
            "{" FAMILY("Gemma3ForCausalLM",
                       "gemma3_text") ",\"num_key_value_heads\":2,\"attn_logit_softcapping\":9,"
                                      "\"sliding_window_pattern\":3}",
            &c))) {
        CU_ASSERT_EQUAL(c.attention_cap, 0.0);
        CU_ASSERT_EQUAL(c.rope.theta, 1e6);
        CU_ASSERT_EQUAL(c.local_rope.theta, 1e4);
        CU_ASSERT_EQUAL(snrq_config_layers_with(&c, SNRQ_LAYER_LOCAL), 3);
        CU_ASSERT_EQUAL(snrq_config_window(&c, 2), 0);
    }
    if (assert_ok(
            read_changed("{" FAMILY("GraniteForCausalLM",
                                    "granite") ",\"logits_scaling\":8,\"residual_multiplier\":0.5}",
                         &c))) {
        CU_ASSERT_EQUAL(c.logit_scale, 0.125);
        CU_ASSERT_EQUAL(c.residual_scale, 0.5);
        CU_ASSERT_EQUAL(c.attention_scale, 1.0);
    }
    if (assert_ok(read_changed(
            "{" FAMILY("SmolLM3ForCausalLM", "smollm3") ",\"num_key_value_heads\":2}", &c))) {
        CU_ASSERT_EQUAL(c.rope.theta, 2e6);
        CU_ASSERT_TRUE(snrq_config_layer(&c, 3, SNRQ_LAYER_NO_ROPE));
        CU_ASSERT_EQUAL(snrq_config_layers_with(&c, SNRQ_LAYER_NO_ROPE), 1);
    }
}

static void experts_are_read(void)
{
    snrq_config c;
    if (assert_ok(read_changed(
            "{" FAMILY("MixtralForCausalLM", "mixtral") ",\"num_key_value_heads\":2}", &c))) {
        CU_ASSERT_EQUAL(c.experts.count, 8);
        CU_ASSERT_EQUAL(c.experts.chosen, 2);
        CU_ASSERT_EQUAL(c.experts.intermediate, 256);
        CU_ASSERT_TRUE(c.experts.normalized && c.experts.mixtral_names);
        CU_ASSERT_EQUAL(c.rope.theta, 1e6);
    }
    if (assert_ok(read_changed(
            "{" FAMILY("Qwen3MoeForCausalLM",
                       "qwen3_moe") ",\"num_key_value_heads\":2,\"num_experts\":16,"
                                    "\"decoder_sparse_step\":2,\"mlp_only_layers\":[3]}",
            &c))) {
        CU_ASSERT_EQUAL(c.experts.intermediate, 768);
        CU_ASSERT_FALSE(c.experts.normalized);
        CU_ASSERT_EQUAL(snrq_config_layers_with(&c, SNRQ_LAYER_EXPERTS), 1);
        CU_ASSERT_TRUE(snrq_config_layer(&c, 1, SNRQ_LAYER_EXPERTS));
    }
    if (assert_ok(read_changed(
            "{" FAMILY("DeepseekV3ForCausalLM",
                       "deepseek_v3") ",\"n_routed_experts\":16,\"n_shared_experts\":2,"
                                      "\"first_k_dense_replace\":1,\"q_lora_rank\":null}",
            &c))) {
        CU_ASSERT_EQUAL(c.experts.shared, 4096);
        CU_ASSERT_EQUAL(snrq_config_layers_with(&c, SNRQ_LAYER_EXPERTS), 3);
        CU_ASSERT_EQUAL(c.latent.queries, 0);
        CU_ASSERT_EQUAL(c.head_dim, 192);
        CU_ASSERT_EQUAL(c.value_dim, 128);
        CU_ASSERT_EQUAL(c.rope.first, 128);
        CU_ASSERT_TRUE(c.rope.pairs);
    }
    refused("{" FAMILY("MixtralForCausalLM", "mixtral") ",\"num_key_value_heads\":2,"
                                                        "\"num_experts_per_tok\":9}",
            "\"num_experts_per_tok\": expected an integer from 1 to 8");
    refused("{" FAMILY("DeepseekV3ForCausalLM", "deepseek_v3") ",\"n_routed_experts\":20}",
            "expected groups of the same size");
    refused("{" FAMILY("DeepseekV3ForCausalLM", "deepseek_v3") ",\"scoring_func\":\"softmax\"}",
            "(supported: sigmoid with noaux_tc)");
    refused("{" FAMILY("Qwen3MoeForCausalLM",
                       "qwen3_moe") ",\"num_key_value_heads\":2,\"num_experts\":2000}",
            "2000 experts: expected at most 1024");
}

static void a_source_in_fp8_is_read(void)
{
    snrq_config c;
    if (assert_ok(read_changed("{\"quantization_config\":{\"quant_method\":\"fp8\","
                               "\"weight_block_size\":[128,64]}}",
                               &c))) {
        CU_ASSERT_EQUAL(c.fp8_rows, 128);
        CU_ASSERT_EQUAL(c.fp8_columns, 64);
    }
    refused("{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[0,64]}}",
            "expected two sizes");
    refused("{\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}}",
            "has a quantization_config");
}

static void yarn_is_read(void)
{
    snrq_config c;
    if (!assert_ok(read_changed("{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
                                "\"original_max_position_embeddings\":512}}",
                                &c)))
        return;
    CU_ASSERT_EQUAL(c.rope.type, SNRQ_ROPE_YARN);
    CU_ASSERT_EQUAL(c.rope.original_positions, 512);
    CU_ASSERT_DOUBLE_EQUAL(c.rope.attention_factor, 1.1386294361119891, 1e-15);
    CU_ASSERT_EQUAL(c.rope.beta_fast, 32.0);
}

static void other_rope_settings_are_refused(void)
{
    refused("{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}}",
            "rope type \"dynamic\" is not supported (supported: default, linear, llama3, "
            "longrope, yarn)");
    refused("{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6}}}",
            "\"full_attention\"");
    refused("{\"rope_scaling\":8}",
            "\"rope_scaling\": expected an object or null, found an integer");
    refused("{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.0},"
            "\"rope_parameters\":{\"rope_type\":\"default\"}}",
            "are both there and differ");
    refused("{\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.0,\"mscale\":1.0}}",
            "rope_scaling: key \"mscale\" is not supported");
}

static void incomplete_rope_settings_are_refused(void)
{
    refused("{\"rope_scaling\":{\"type\":\"linear\"}}", "rope_scaling: key \"factor\" is missing");
    refused("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0}}",
            "rope_scaling: key \"low_freq_factor\" is missing");
    refused("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":4.0,"
            "\"high_freq_factor\":4.0}}",
            "high_freq_factor is 4, expected more than low_freq_factor 4");
    refused("{" PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":" FACTORS "}}",
            "rope_scaling: key \"long_factor\" is missing");
    refused("{" PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,2]}}",
            "\"short_factor\": expected 8 factors");
    refused("{" PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":"
            "[1,1,1,1,1,1,1,0]}}",
            "short_factor[7]: expected a number from 1e-6 to 1e9, found 0");
    refused("{" PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":"
            "[1,1,1,\"1\",1,1,1,1]}}",
            "short_factor[3]: expected a number, found a string");
    refused("{" PHI3 ",\"head_dim\":2048,\"rope_scaling\":{\"type\":\"longrope\"}}",
            "longrope with 1024 factors; expected at most 512");
    refused("{" PHI3 ",\"original_max_position_embeddings\":1,\"rope_scaling\":" LONGROPE "}",
            "\"original_max_position_embeddings\": expected an integer from 2");
}

static void scaling_of_type_default_is_none(void)
{
    snrq_config c;
    assert_ok(read_changed("{\"rope_scaling\":{\"type\":\"default\"}}", &c));
    CU_ASSERT_EQUAL(c.rope.theta, 10000.0);
}

static void biases_are_read_where_the_architecture_has_them(void)
{
    snrq_config c;
    if (assert_ok(read_changed("{\"attention_bias\":true,\"mlp_bias\":true}", &c)))
        CU_ASSERT_TRUE(c.attention_bias && c.mlp_bias);
    if (assert_ok(read_changed("{" QWEN3 HEADS ",\"attention_bias\":true}", &c)))
        CU_ASSERT_TRUE(c.attention_bias && !c.mlp_bias);
    refused("{" QWEN3 HEADS ",\"mlp_bias\":true}",
            "mlp_bias true is not supported for Qwen3ForCausalLM (supported: false)");
    refused("{" MISTRAL HEADS ",\"attention_bias\":true}", "attention_bias true is not supported");
    refused("{" PHI3 ",\"attention_bias\":true}", "attention_bias true is not supported");
    refused("{\"mlp_bias\":1}", "\"mlp_bias\": expected true or false, found an integer");
}

static void what_the_forward_pass_does_not_do_is_refused(void)
{
    refused("{\"hidden_act\":\"gelu\"}",
            "hidden_act \"gelu\" is not supported (supported: silu, gelu_pytorch_tanh)");
    refused("{\"num_local_experts\":8}", "num_local_experts 8: LlamaForCausalLM has no experts");
    refused("{\"num_experts\":128}", "num_experts 128");
    refused("{\"quantization_config\":{\"quant_method\":\"gptq\"}}", "has a quantization_config");
}

static void missing_sizes_are_named(void)
{
    static const char *const keys[] = {"vocab_size", "hidden_size", "intermediate_size",
                                       "num_hidden_layers", "num_attention_heads"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char change[64], fragment[64];
        snprintf(change, sizeof change, "{\"%s\":{\"absent\":0}}", keys[i]);
        snprintf(fragment, sizeof fragment, "key \"%s\" is missing", keys[i]);
        refused(change, fragment);
    }
}

static void sizes_of_a_wrong_type_or_range_are_named(void)
{
    refused("{\"hidden_size\":96.0}", "\"hidden_size\": expected an integer, found a number");
    refused("{\"hidden_size\":\"96\"}", "\"hidden_size\": expected an integer, found a string");
    refused("{\"hidden_size\":0}", "from 1 to 2147483647, found 0");
    refused("{\"vocab_size\":2147483648}", "\"vocab_size\"");
    refused("{\"num_hidden_layers\":-4}", "\"num_hidden_layers\"");
    refused("{\"rms_norm_eps\":\"1e-5\"}", "\"rms_norm_eps\": expected a number, found a string");
    refused("{\"rms_norm_eps\":-1e-5}", "\"rms_norm_eps\"");
    refused("{\"rope_theta\":0}", "\"rope_theta\"");
}

static void heads_that_do_not_divide_are_refused(void)
{
    refused("{\"num_key_value_heads\":4}",
            "num_attention_heads 6 is not a multiple of num_key_value_heads 4");
    refused("{\"hidden_size\":100}", "hidden_size 100 is not a multiple of num_attention_heads 6");
    refused("{\"head_dim\":15}", "head_dim is 15, expected an even number");
}

static void products_that_overflow_are_refused(void)
{
    refused("{\"head_dim\":2147483646}",
            "num_attention_heads 6 and twice num_key_value_heads 6 times head_dim 2147483646");
    refused("{\"intermediate_size\":2147483647}", "intermediate_size 2147483647: expected at most");
    refused("{\"vocab_size\":2147483647,\"hidden_size\":2147483646,\"head_dim\":64}",
            "vocab_size 2147483647 times hidden_size 2147483646");
}

static void token_ids_outside_the_vocabulary_are_refused(void)
{
    refused("{\"bos_token_id\":512}",
            "\"bos_token_id\": expected a token id below vocab_size 512, found 512");
    refused("{\"eos_token_id\":[-2]}", "\"eos_token_id\"");
    refused("{\"eos_token_id\":\"</s>\"}",
            "\"eos_token_id\": expected an integer, a list of them or null");
}

static void an_unknown_dtype_is_refused(void)
{
    refused("{\"torch_dtype\":\"int8\"}", "dtype \"int8\" is not supported");
}

static void a_file_that_is_no_configuration_is_refused(void)
{
    snrq_config config;
    scratch_write_text("config.json", "[]");
    assert_failed(snrq_config_read(scratch(), &config), SNRQ_BAD_DATA,
                  "expected a JSON object, found an array");
    scratch_write_text("config.json", "7");
    assert_failed(snrq_config_read(scratch(), &config), SNRQ_BAD_DATA, "found an integer");
    scratch_write_text("config.json", "{");
    assert_failed(snrq_config_read(scratch(), &config), SNRQ_BAD_DATA, "not valid JSON at line 1");
    remove(scratch_path("config.json"));
    assert_failed(snrq_config_read(scratch(), &config), SNRQ_NO_INPUT, "config.json");
}

/* The base configuration with more text before its last brace. */
static snrq_status read_with(const char *more, snrq_config *out)
{
    char text[1024];
    snprintf(text, sizeof text, "%.*s,%s}", (int)strlen(base) - 1, base, more);
    scratch_write_text("config.json", text);
    return snrq_config_read(scratch(), out);
}

static void what_python_writes_is_read_where_nobody_needs_it(void)
{
    snrq_config config;
    assert_ok(read_with(
        "\"x\":[Infinity,-Infinity,NaN],\"y\":100000000000000000000,\"z\":1,\"z\":2", &config));
    CU_ASSERT_EQUAL(config.hidden, 96);
    assert_ok(read_with("\"rope_theta\":100000000000000000", &config));
    CU_ASSERT_EQUAL(config.rope.theta, 1e17);
}

static void what_python_writes_is_refused_by_name_where_it_is_needed(void)
{
    static const struct {
        const char *more, *message;
    } cases[] = {
        {"\"vocab_size\":512", "\"vocab_size\": expected an integer, found several values"},
        {"\"max_position_embeddings\":Infinity",
         "\"max_position_embeddings\": expected an integer, found Infinity"},
        {"\"max_position_embeddings\":100000000000000000000",
         "\"max_position_embeddings\": expected an integer, found an integer beyond 64 bits"},
        {"\"rms_norm_eps\":NaN", "\"rms_norm_eps\": expected a number, found NaN"},
        {"\"rope_theta\":100000000000000000000", "\"rope_theta\": expected a number from"},
        {"\"torch_dtype\":-Infinity", "\"torch_dtype\": expected a string, found -Infinity"},
        {"\"architectures\":[\"LlamaForCausalLM\"]",
         "\"architectures\": expected an array, found several values"},
        {"\"eos_token_id\":1e999", "\"eos_token_id\": expected an integer"},
        {"\"tie_word_embeddings\":true,\"tie_word_embeddings\":false",
         "\"tie_word_embeddings\": expected true or false, found several values"},
    };
    snrq_config config;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_failed(read_with(cases[i].more, &config), SNRQ_BAD_DATA, cases[i].message);
}

static void classes_may_be_spelled_in_other_case(void)
{
    snrq_config config;
    if (!assert_ok(read_changed("{\"architectures\":[\"LLaMAForCausalLM\"]}", &config))) return;
    CU_ASSERT_STRING_EQUAL(config.architecture, "LlamaForCausalLM");
}

static void it_is_told_whether_there_is_a_dtype(void)
{
    snrq_config config;
    assert_ok(read_changed("{}", &config));
    CU_ASSERT_FALSE(config.dtype_given);
    assert_ok(read_changed("{\"dtype\":\"float16\"}", &config));
    CU_ASSERT_TRUE(config.dtype_given);
}

static void real_configurations_are_read(void)
{
    snrq_config c;
    const char *path = test_data("SNRQ_SHARED", "data/models/stories3M");
    if (path != NULL && assert_ok(snrq_config_read(path, &c))) {
        CU_ASSERT_EQUAL(c.kv_heads, 2);
        CU_ASSERT_EQUAL(c.head_dim, 32);
        CU_ASSERT_TRUE(c.tied_embeddings);
    }
    path = test_data("SNRQ_SHARED", "data/models/fixtures/tiny_llama2");
    if (path != NULL && assert_ok(snrq_config_read(path, &c))) CU_ASSERT_EQUAL(c.dtype, SNRQ_F16);
    path = test_data("SNRQ_SHARED", "data/models/fixtures/strong_llama3");
    if (path != NULL && assert_ok(snrq_config_read(path, &c))) {
        CU_ASSERT_EQUAL(c.rope.original_positions, 128);
        CU_ASSERT_EQUAL(c.eos_id, 511);
    }
    path = test_data("SNRQ_SHARED", "data/models/fixtures/strong_qwen3");
    if (path != NULL && assert_ok(snrq_config_read(path, &c))) {
        CU_ASSERT_EQUAL(c.head_dim, 32);
        CU_ASSERT_EQUAL(c.rope.theta, 1e6);
        CU_ASSERT_EQUAL(c.window, 0);
    }
    path = test_data("SNRQ_SHARED", "data/models/fixtures/tiny_phi3");
    if (path != NULL && assert_ok(snrq_config_read(path, &c))) {
        CU_ASSERT_EQUAL(c.window, 48);
        CU_ASSERT_EQUAL(c.rope.long_factor[15], 20.7294);
    }
}

int main(void)
{
    const snrq_test tests[] = {
        SNRQ_TEST(absent_keys_get_their_defaults),
        SNRQ_TEST(given_keys_are_read),
        SNRQ_TEST(null_counts_as_absent),
        SNRQ_TEST(the_newer_spelling_is_read),
        SNRQ_TEST(a_list_of_end_tokens_gives_its_first),
        SNRQ_TEST(another_architecture_is_refused),
        SNRQ_TEST(the_model_type_stands_in_for_the_architecture),
        SNRQ_TEST(absent_keys_mean_what_the_architecture_assumes),
        SNRQ_TEST(families_have_switches_of_their_own),
        SNRQ_TEST(experts_are_read),
        SNRQ_TEST(a_source_in_fp8_is_read),
        SNRQ_TEST(yarn_is_read),
        SNRQ_TEST(a_qwen_window_is_for_the_upper_layers),
        SNRQ_TEST(other_patterns_of_layers_are_refused),
        SNRQ_TEST(windows_that_are_none_are_refused),
        SNRQ_TEST(llama3_scaling_is_read),
        SNRQ_TEST(longrope_is_read_in_both_spellings),
        SNRQ_TEST(a_part_of_a_head_may_turn_in_phi3),
        SNRQ_TEST(other_rope_settings_are_refused),
        SNRQ_TEST(incomplete_rope_settings_are_refused),
        SNRQ_TEST(scaling_of_type_default_is_none),
        SNRQ_TEST(biases_are_read_where_the_architecture_has_them),
        SNRQ_TEST(what_the_forward_pass_does_not_do_is_refused),
        SNRQ_TEST(missing_sizes_are_named),
        SNRQ_TEST(sizes_of_a_wrong_type_or_range_are_named),
        SNRQ_TEST(heads_that_do_not_divide_are_refused),
        SNRQ_TEST(products_that_overflow_are_refused),
        SNRQ_TEST(token_ids_outside_the_vocabulary_are_refused),
        SNRQ_TEST(an_unknown_dtype_is_refused),
        SNRQ_TEST(a_file_that_is_no_configuration_is_refused),
        SNRQ_TEST(what_python_writes_is_read_where_nobody_needs_it),
        SNRQ_TEST(what_python_writes_is_refused_by_name_where_it_is_needed),
        SNRQ_TEST(classes_may_be_spelled_in_other_case),
        SNRQ_TEST(it_is_told_whether_there_is_a_dtype),
        SNRQ_TEST(real_configurations_are_read),
    };
    int result = snrq_run_tests("config", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
