/* Fuzz target: the bytes are an exported directory, config.json up to a zero byte, then
 * model.safetensors. Whatever the reader of `verify --export` accepts of a module gives weights
 * that are numbers. */
#include <math.h>

#include "pipeline/export/decode.h"
#include "tests/fuzz/fuzz.h"

enum { ROWS = 2, COLUMNS = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\0', size) : NULL;
    const size_t config = end != NULL ? (size_t)(end - data) : size;
    snrq_export_decoder *decoder = NULL;
    snrq_decoded module = {0};
    float row[COLUMNS];
    fuzz_file("config.json", data, config);
    fuzz_file("model.safetensors", data + config + (end != NULL), size - config - (end != NULL));
    snrq_export_decoder_recognize(fuzz_folder());
    if (snrq_export_decoder_open(fuzz_folder(), &decoder) != SNRQ_OK) return 0;
    if (snrq_decoded_open(decoder, "m", ROWS, COLUMNS, &module) == SNRQ_OK) {
        FUZZ_CHECK(module.tensors > 0 && module.codes_of != NULL);
        for (int r = 0; r < ROWS; r++)
            if (snrq_decoded_row(&module, r, row) == SNRQ_OK && module.floats != NULL)
                for (int c = 0; c < COLUMNS; c++) FUZZ_CHECK(!isnan(row[c]));
    }
    snrq_decoded_close(&module);
    snrq_export_decoder_close(&decoder);
    return 0;
}
