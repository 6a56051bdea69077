/* Reading exported weights back, as an engine would.
 *
 * Written from the formats' description (docs/exporting.md) and from what the directory itself
 * says, for verification: it shares no code with the writers. Nothing is believed: types, shapes,
 * groups and sizes are checked. Not collective.
 */
#ifndef SNRQ_EXPORT_DECODE_H
#define SNRQ_EXPORT_DECODE_H

#include <stdbool.h>

#include "io/safetensors.h"
#include "mpi/algebra/dtype.h"
#include "pipeline/export/decode_floats.h"

/* "gptq", "compressed-tensors", "fp8" or "safetensors", as DIRECTORY/config.json says; NULL if
 * there is none or it says something else. */
const char *snrq_export_decoder_recognize(const char *directory);

typedef struct snrq_export_decoder snrq_export_decoder;
snrq_status snrq_export_decoder_open(const char *directory, snrq_export_decoder **out);
void snrq_export_decoder_close(snrq_export_decoder **decoder);
/* The tensors of the directory. Borrowed. */
const snrq_safetensors *snrq_export_decoder_tensors(const snrq_export_decoder *decoder);

/* How a module is stored. */
typedef struct snrq_decoded_settings {
    snrq_float_kind floats;   /* instead of integers; nothing else counts then */
    int64_t bits, group_size; /* group_size 0: one group per row */
    bool symmetric;           /* compressed-tensors: no zeros are stored */
    bool has_g_idx;           /* compressed-tensors: groups are not runs of inputs */
} snrq_decoded_settings;

/* A quantized module, its packed form in memory. */
typedef struct snrq_decoded {
    const snrq_export_decoder *decoder; /* borrowed */
    snrq_decoded_settings settings;
    const snrq_tensor *codes_of; /* the tensor that holds codes or weights, for messages */
    int64_t rows, columns, groups;
    int tensors;        /* how many tensors the module has */
    snrq_dtype type;    /* of scales, or of dequantized weights */
    uint32_t *codes;    /* word w of row r at w * code_step + r * code_row */
    uint32_t *zeros;    /* word w of group g at w * zero_step + g * zero_group; NULL: symmetric */
    float *scales;      /* of row r, group g at r * scale_row + g * scale_group */
    int32_t *g_idx;     /* [columns] */
    float *row_scales;  /* [groups] */
    int *row_zeros;     /* [groups] */
    unsigned char *raw; /* a row as it is stored, if not quantized */
    uint8_t *floats;    /* [rows, columns * bits / 8] of floating point numbers, or NULL; scales are
                           then [ceil(rows / rows that share them), groups] */
    int64_t code_step, code_row, zero_step, zero_group, scale_row, scale_group;
} snrq_decoded;

/* Loads module NAME of a model that has [rows, columns] weights there. */
snrq_status snrq_decoded_open(const snrq_export_decoder *decoder, const char *name, int64_t rows,
                              int64_t columns, snrq_decoded *out);
/* out [columns] <- the weights of a row. */
snrq_status snrq_decoded_row(snrq_decoded *module, int64_t row, float *out);
void snrq_decoded_close(snrq_decoded *module);

#endif
