/* Fuzz target: the bytes are a model's tokenizer.json, tokenizer_config.json,
 * generation_config.json and chat_template.json, with a byte 0xff between two of them (which no
 * UTF-8 has). An accepted tokenizer must make a header that the reader of GGUF files takes. */
#include "io/gguf/check.h"
#include "io/gguf/tokenizer.h"
#include "tests/fuzz/fuzz.h"

enum { VOCABULARY = 64 };

static void write_files(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "generation_config.json", "chat_template.json"};
    for (int i = 0; i < 4; i++) {
        const uint8_t *end = size > 0 ? memchr(data, 0xff, size) : NULL;
        size_t part = end != NULL ? (size_t)(end - data) : size;
        fuzz_file(names[i], part > 0 ? data : (const uint8_t *)"{}", part > 0 ? part : 2);
        data += end != NULL ? part + 1 : part;
        size -= end != NULL ? part + 1 : part;
    }
}

/* The file has as many tokens as the model. */
static void check_header(const snrq_gguf_writer *writer)
{
    unsigned char *header = NULL;
    size_t bytes = 0;
    int64_t tokens = 0;
    snrq_gguf_file *file = NULL;
    FUZZ_CHECK(snrq_gguf_header(writer, &header, &bytes) == SNRQ_OK);
    const char *path = fuzz_file("model.gguf", header, bytes);
    FUZZ_CHECK(snrq_gguf_file_open(path, &file) == SNRQ_OK);
    FUZZ_CHECK(snrq_gguf_file_elements(file, "tokenizer.ggml.tokens", &tokens) == SNRQ_OK);
    FUZZ_CHECK(tokens == VOCABULARY);
    snrq_gguf_file_close(&file);
    free(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const snrq_config config = {.architecture = "LlamaForCausalLM",
                                .model_type = "llama",
                                .vocabulary = VOCABULARY,
                                .bos_id = -1,
                                .eos_id = -1};
    snrq_gguf_writer *writer = NULL;
    snrq_gguf_tokenizer_facts facts;
    write_files(data, size);
    FUZZ_CHECK(snrq_gguf_writer_create(&writer) == SNRQ_OK);
    if (snrq_gguf_put_tokenizer(writer, fuzz_folder(), &config, &facts) == SNRQ_OK)
        check_header(writer);
    snrq_gguf_writer_destroy(&writer);
    return 0;
}
