/* Number types of checkpoints, and exact conversion between them and float.
 *
 * Source: IEEE 754 binary16/binary32; bfloat16 is the upper half of binary32. Narrowing rounds to
 * nearest, ties to even.
 */
#ifndef SNRQ_DTYPE_H
#define SNRQ_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

typedef enum snrq_dtype { SNRQ_F32, SNRQ_F16, SNRQ_BF16 } snrq_dtype;

/* Bytes of one number: 4, 2, 2. */
size_t snrq_dtype_size(snrq_dtype type);
/* "F32", "F16", "BF16" (the spelling of safetensors). Borrowed. */
const char *snrq_dtype_name(snrq_dtype type);
/* The type of that name; false if there is none. */
bool snrq_dtype_find(const char *name, snrq_dtype *out);

float snrq_f16_to_float(uint16_t bits);
uint16_t snrq_float_to_f16(float value);
float snrq_bf16_to_float(uint16_t bits);
/* E4M3 (OCP 8-bit floating point): 4 bits of exponent, bias 7, 3 of mantissa; no infinities, NaN is
 * all ones. */
float snrq_e4m3_to_float(uint8_t bits);
uint16_t snrq_float_to_bf16(float value);

/* out[i] = source[i] as float, exactly. `source` need not be aligned. */
void snrq_widen(snrq_dtype type, const void *source, size_t count, float *out);
/* value rounded to what `type` can hold, as float. */
float snrq_round_to(snrq_dtype type, float value);

/* Index of the first of `count` numbers that is NaN or infinite; `count` if all are finite. */
size_t snrq_first_not_finite(snrq_dtype type, const void *source, size_t count);

#endif
