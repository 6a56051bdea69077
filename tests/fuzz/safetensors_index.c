/* Fuzz target: the bytes are a model.safetensors.index.json beside two shards, a.safetensors with
 * the tensors "a" and "b", b.safetensors with "c". An accepted index leads to these and no others.
 */
#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void write_shard(const char *name, const char *header, const char *content)
{
    unsigned char file[256] = {0};
    size_t length = strlen(header), bytes = strlen(content);
    file[0] = (unsigned char)length; /* below 256 */
    memcpy(file + 8, header, length);
    memcpy(file + 8 + length, content, bytes);
    fuzz_file(name, file, 8 + length + bytes);
}

static void write_shards(void)
{
    static bool written;
    if (written) return;
    written = true;
    write_shard("a.safetensors",
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
                "aab");
    write_shard("b.safetensors", "{\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                "c");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_safetensors *reader = NULL;
    char content = '\0';
    write_shards();
    fuzz_file("model.safetensors.index.json", data, size);
    if (snrq_safetensors_open(fuzz_folder(), &reader) != SNRQ_OK) return 0;
    FUZZ_CHECK(snrq_safetensors_count(reader) > 0);
    for (int64_t i = 0; i < snrq_safetensors_count(reader); i++) {
        const snrq_tensor *t = snrq_safetensors_at(reader, i);
        FUZZ_CHECK(strlen(t->name) == 1 && strchr("abc", t->name[0]) != NULL);
        FUZZ_CHECK(snrq_safetensors_read(reader, t, 0, 1, &content) == SNRQ_OK);
        FUZZ_CHECK(content == t->name[0]);
    }
    FUZZ_CHECK(snrq_safetensors_missing(reader, "a") == NULL ||
               snrq_safetensors_find(reader, "a") == NULL);
    FUZZ_CHECK(snrq_safetensors_resolve(reader) == SNRQ_OK);
    snrq_safetensors_close(&reader);
    return 0;
}
