/* Writing safetensors; see safetensors_writer.h. Format: docs/format.md of the readers, 8-byte
 * length, JSON, data. */
#include "io/safetensors_writer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The header as text, padded with spaces to a multiple of 8. */
static char *make_header(const snrq_tensor_data *tensors, int count, size_t *bytes)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t at = 0;
    bool good = header != NULL;
    for (int i = 0; i < count; i++) {
        json_t *shape = json_array();
        for (int d = 0; d < tensors[i].dimensions; d++)
            json_array_append_new(shape, json_integer(tensors[i].shape[d]));
        json_t *facts =
            json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensors[i].dtype, "shape", shape,
                      "data_offsets", (json_int_t)at, (json_int_t)(at + tensors[i].bytes));
        good = json_object_set_new(header, tensors[i].name, facts) == 0 && good;
        at += tensors[i].bytes;
    }
    char *text = good ? json_dumps(header, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    char *padded = NULL;
    json_decref(header);
    if (text == NULL) return NULL;
    size_t length = strlen(text);
    *bytes = (length + 7) / 8 * 8;
    padded = malloc(*bytes + 1);
    if (padded != NULL) {
        memset(padded, ' ', *bytes);
        memcpy(padded, text, length);
    }
    free(text);
    return padded;
}

snrq_status snrq_safetensors_write(snrq_user_output *out, const snrq_tensor_data *tensors,
                                   int count)
{
    const char *path = snrq_user_output_path(out);
    size_t header_bytes = 0, total = 8;
    unsigned char *file = NULL;
    char *header = make_header(tensors, count, &header_bytes);
    if (header == NULL) return snrq_fail(SNRQ_INTERNAL, "%s: no memory for the header", path);
    total += header_bytes;
    for (int i = 0; i < count; i++) total += tensors[i].bytes;
    snrq_status status = snrq_allocate(total, 1, "safetensors file", &file);
    if (status == SNRQ_OK) {
        unsigned char *at = file + 8 + header_bytes;
        for (int b = 0; b < 8; b++) file[b] = (unsigned char)(header_bytes >> (8 * b));
        memcpy(file + 8, header, header_bytes);
        for (int i = 0; i < count; i++) {
            memcpy(at, tensors[i].data, tensors[i].bytes);
            at += tensors[i].bytes;
        }
        status = snrq_user_output_write(out, file, total);
    }
    free(file);
    free(header);
    return status;
}
