/* Fuzz target: the bytes are a model.safetensors. The tensors of an accepted one must lie in the
 * file, be of the size of their shape, and be found by their names; also under the names that
 * models use. */
#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void check_tensor(const snrq_safetensors *reader, int64_t index, size_t size)
{
    unsigned char first = 0;
    const snrq_tensor *t = snrq_safetensors_at(reader, index);
    uint64_t elements = 1;
    for (int i = 0; i < t->dimensions; i++) elements *= (uint64_t)t->shape[i];
    FUZZ_CHECK(elements * (uint64_t)t->element_bits == 8 * t->bytes);
    FUZZ_CHECK(t->offset <= size && t->bytes <= size - t->offset);
    FUZZ_CHECK(snrq_safetensors_find(reader, t->name) == t);
    if (t->bytes == 0) return;
    FUZZ_CHECK(snrq_safetensors_read(reader, t, t->bytes - 1, 1, &first) == SNRQ_OK);
    FUZZ_CHECK(snrq_safetensors_read(reader, t, t->bytes, 1, &first) != SNRQ_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_safetensors *reader = NULL;
    fuzz_file("model.safetensors", data, size);
    if (snrq_safetensors_open(fuzz_folder(), &reader) != SNRQ_OK) return 0;
    for (int64_t i = 0; i < snrq_safetensors_count(reader); i++) check_tensor(reader, i, size);
    snrq_safetensors_metadata(reader, "format");
    if (snrq_safetensors_resolve(reader) == SNRQ_OK)
        for (int64_t i = 0; i < snrq_safetensors_count(reader); i++) check_tensor(reader, i, size);
    snrq_safetensors_close(&reader);
    return 0;
}
