/* Reading weights in floating point formats back; see decode.h. Written from the OCP specifications
 * of E2M1, E4M3 and E8M0, and from docs/exporting.md. */
#ifndef SNRQ_EXPORT_DECODE_FLOATS_H
#define SNRQ_EXPORT_DECODE_FLOATS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum snrq_float_kind {
    SNRQ_NO_FLOATS,
    SNRQ_MXFP4,    /* E2M1, E8M0 per 32 inputs */
    SNRQ_NVFP4,    /* E2M1, E4M3 per 16 inputs, divided by an fp32 number */
    SNRQ_FP8_BLOCK /* E4M3, fp32 per 128 x 128 weights */
} snrq_float_kind;

/* The kind that compressed-tensors calls by this name; SNRQ_NO_FLOATS: another one. */
snrq_float_kind snrq_float_kind_named(const char *format);

/* What a kind has of bits per weight, inputs that share a scale, and rows that do. */
int snrq_float_kind_bits(snrq_float_kind kind);
int64_t snrq_float_kind_inputs(snrq_float_kind kind);
int64_t snrq_float_kind_rows(snrq_float_kind kind);

/* E4M3 and E8M0 numbers; NaN for bits that are none. */
float snrq_e4m3_number(uint8_t bits);
float snrq_e8m0_number(uint8_t bits);

/* out [columns] <- a row of weights from its bytes and its scales. False: a byte is no number. */
bool snrq_float_row(snrq_float_kind kind, int64_t columns, const uint8_t *bytes,
                    const float *scales, float *out);

#endif
