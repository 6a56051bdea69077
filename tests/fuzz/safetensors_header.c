/* Fuzz target: the bytes are a model.safetensors. The tensors of an accepted one must lie in the
 * file, be of the size of their shape, and be found by their names. */
#include "io/safetensors.h"
#include "tests/fuzz/model_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tensor(const snrq_safetensors *reader, int64_t index, size_t size)
{
    unsigned char first = 0;
    const snrq_tensor *t = snrq_safetensors_at(reader, index);
    uint64_t elements = 1;
    for (int i = 0; i < t->dimensions; i++) elements *= (uint64_t)t->shape[i];
    must(elements * (uint64_t)t->element_bits == 8 * t->bytes, "bytes are those of the shape");
    must(t->offset <= size && t->bytes <= size - t->offset, "a tensor lies in the file");
    must(snrq_safetensors_find(reader, t->name) == t, "a tensor is found by its name");
    if (t->bytes == 0) return;
    must(snrq_safetensors_read(reader, t, t->bytes - 1, 1, &first) == SNRQ_OK, "it can be read");
    must(snrq_safetensors_read(reader, t, t->bytes, 1, &first) != SNRQ_OK, "and not beyond");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    snrq_safetensors *reader = NULL;
    model_file_write("model.safetensors", data, size);
    if (snrq_safetensors_open(model_directory(), &reader) != SNRQ_OK) return 0;
    for (int64_t i = 0; i < snrq_safetensors_count(reader); i++) check_tensor(reader, i, size);
    snrq_safetensors_metadata(reader, "format");
    snrq_safetensors_close(&reader);
    return 0;
}
