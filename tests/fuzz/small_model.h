/* A model of two blocks for targets whose input is about one: its configuration, and as much of a
 * file of tensors as it takes to be opened. */
#ifndef SMALL_MODEL_H
#define SMALL_MODEL_H

#include "pipeline/model/model.h"
#include "pipeline/options/options.h"
#include "tests/fuzz/fuzz.h"

/* 128 and 256 columns: of the latter, 256 weights of a K-quant are a multiple. */
static inline snrq_model *fuzz_small_model(void)
{
    static const char config[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":128,"
        "\"intermediate_size\":256,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
        "\"num_key_value_heads\":1,\"vocab_size\":64,\"max_position_embeddings\":64,"
        "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"torch_dtype\":\"float32\"}";
    static const char header[] = "{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[1],"
                                 "\"data_offsets\":[0,4]}}";
    unsigned char tensors[8 + sizeof header - 1 + 4] = {sizeof header - 1}; /* below 256 */
    snrq_model *model = NULL;
    memcpy(tensors + 8, header, sizeof header - 1);
    fuzz_file("config.json", config, sizeof config - 1);
    fuzz_file("model.safetensors", tensors, sizeof tensors);
    FUZZ_CHECK(snrq_model_look(fuzz_folder(), &model) == SNRQ_OK);
    return model;
}

/* Options of quantize: those that every run needs, and `more` [count]. */
static inline void fuzz_quantize_options(const char *const *more, int count, snrq_options *out)
{
    enum { MOST = 16 };
    const char *argv[MOST] = {"snrq", "quantize",     "M", "--calibration", "T", "-o",
                              "OUT",  "--group-size", "64"};
    int argc = 9;
    char *text = NULL;
    FUZZ_CHECK(argc + count <= MOST);
    for (int i = 0; i < count; i++) argv[argc++] = more[i];
    if (snrq_options_parse(argc, (char **)(uintptr_t)argv, out, &text) != SNRQ_OK)
        fprintf(stderr, "%s\n", snrq_error_message());
    FUZZ_CHECK(out->output != NULL && text == NULL);
}

#endif
