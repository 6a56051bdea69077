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
    CU_ASSERT_EQUAL(c.rope_theta, 10000.0);
    CU_ASSERT_FALSE(c.tied_embeddings);
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
    CU_ASSERT_EQUAL(c.rope_theta, 500000.0);
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
    CU_ASSERT_EQUAL(c.rope_theta, 1e6);
    CU_ASSERT_EQUAL(c.dtype, SNRQ_F32);
}

static void a_list_of_end_tokens_gives_its_first(void)
{
    snrq_config c;
    if (!assert_ok(read_changed("{\"eos_token_id\":[7,8],\"bos_token_id\":[]}", &c))) return;
    CU_ASSERT_EQUAL(c.eos_id, 7);
    CU_ASSERT_EQUAL(c.bos_id, -1);
}

static void another_architecture_is_refused(void)
{
    refused("{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\"}",
            "architecture \"MistralForCausalLM\" is not supported (supported: LlamaForCausalLM)");
    refused("{\"architectures\":{\"absent\":0},\"model_type\":\"qwen3\"}", "model_type \"qwen3\"");
    refused("{\"model_type\":\"mistral\"}", "model_type \"mistral\"");
    refused("{\"architectures\":{\"absent\":0},\"model_type\":{\"absent\":0}}",
            "neither \"architectures\"");
    refused("{\"architectures\":\"LlamaForCausalLM\"}", "\"architectures\": expected an array");
    refused("{\"architectures\":[3]}", "\"architectures\": expected strings");
}

static void rope_scaling_is_refused(void)
{
    refused("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0}}",
            "rope scaling \"llama3\" is not supported (supported: none)");
    refused("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}", "rope scaling \"linear\"");
    refused("{\"rope_parameters\":{\"rope_type\":\"yarn\"}}", "rope scaling \"yarn\"");
    refused("{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6}}}",
            "\"full_attention\"");
    refused("{\"rope_scaling\":8}",
            "\"rope_scaling\": expected an object or null, found an integer");
    refused("{\"partial_rotary_factor\":0.5}", "partial_rotary_factor 0.5");
}

static void scaling_of_type_default_is_none(void)
{
    snrq_config c;
    assert_ok(read_changed("{\"rope_scaling\":{\"type\":\"default\"}}", &c));
    CU_ASSERT_EQUAL(c.rope_theta, 10000.0);
}

static void biases_and_other_activations_are_refused(void)
{
    refused("{\"attention_bias\":true}", "attention_bias \"true\" is not supported");
    refused("{\"mlp_bias\":true}", "mlp_bias \"true\" is not supported");
    refused("{\"mlp_bias\":1}", "\"mlp_bias\": expected true or false, found an integer");
    refused("{\"hidden_act\":\"gelu\"}", "hidden_act \"gelu\" is not supported (supported: silu)");
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
    refused("{\"head_dim\":2147483646}", "num_attention_heads 6 times head_dim 2147483646");
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
    scratch_write_text("config.json", "{\"a\":1,\"a\":2}");
    assert_failed(snrq_config_read(scratch(), &config), SNRQ_BAD_DATA, "duplicate");
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

static void real_configurations_are_read_or_refused_by_name(void)
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
    if (path != NULL)
        assert_failed(snrq_config_read(path, &c), SNRQ_BAD_DATA, "rope scaling \"llama3\"");
    path = test_data("SNRQ_SHARED", "data/models/fixtures/tiny_phi3");
    if (path != NULL)
        assert_failed(snrq_config_read(path, &c), SNRQ_BAD_DATA, "\"Phi3ForCausalLM\"");
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
        SNRQ_TEST(rope_scaling_is_refused),
        SNRQ_TEST(scaling_of_type_default_is_none),
        SNRQ_TEST(biases_and_other_activations_are_refused),
        SNRQ_TEST(missing_sizes_are_named),
        SNRQ_TEST(sizes_of_a_wrong_type_or_range_are_named),
        SNRQ_TEST(heads_that_do_not_divide_are_refused),
        SNRQ_TEST(products_that_overflow_are_refused),
        SNRQ_TEST(token_ids_outside_the_vocabulary_are_refused),
        SNRQ_TEST(an_unknown_dtype_is_refused),
        SNRQ_TEST(a_file_that_is_no_configuration_is_refused),
        SNRQ_TEST(real_configurations_are_read_or_refused_by_name),
    };
    int result = snrq_run_tests("config", tests, sizeof tests / sizeof tests[0], 1);
    scratch_remove();
    return result;
}
