/* Rows of weights as GGUF blocks: grids of codes exactly, floats exactly or rounded
 * (io/gguf/layout.h). */
#ifndef SNRQ_GGUF_BLOCKS_H
#define SNRQ_GGUF_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>

#include "io/gguf/layout.h"
#include "mpi/algebra/weight_format.h"
#include "mpi/status.h"

/* "Q4_0", ... Borrowed. */
const char *snrq_gguf_type_name(snrq_gguf_type type);
/* Weights of a GGUF block: 1, 32 or 256; a row is made of whole ones. */
int64_t snrq_gguf_block_weights(snrq_gguf_type type);
/* Bytes of a row of `columns` weights, a multiple of the above. */
size_t snrq_gguf_row_bytes(snrq_gguf_type type, int64_t columns);

/* A grid as quantization leaves it: weight = scale * (code - zero). */
typedef struct snrq_gguf_grid {
    int bits;
    bool symmetric;  /* every zero is 2^(bits - 1) */
    int64_t columns; /* of a row */
    int64_t group;   /* neighbours that share a scale and a zero; the last group may be short */
} snrq_gguf_grid;

/* The smallest type that holds every row of such a grid exactly, if the scales are binary16.
 * False if there is none. */
bool snrq_gguf_type_for(const snrq_gguf_grid *grid, snrq_gguf_type *out);

/* The type of a format's name. SNRQ_USAGE if GGUF has none. */
snrq_status snrq_gguf_type_of(const snrq_weight_format *format, snrq_gguf_type *out);

/* Encodes one row of a format that is a type of GGUF: codes [columns], scales and minima [columns /
 * group]; out [snrq_gguf_row_bytes(type, columns)]. SNRQ_INTERNAL if the numbers of a block are not
 * what the type can hold. Not collective. */
snrq_status snrq_gguf_encode_format(const snrq_weight_format *format, int64_t columns,
                                    const uint8_t *codes, const float *scales, const float *minima,
                                    void *out);

/* Encodes one row: codes [columns], scales and zeros [ceil(columns / group)]; out
 * [snrq_gguf_row_bytes(type, columns)]. `type` must be what snrq_gguf_type_for gave.
 * SNRQ_INTERNAL if a scale is not binary16 or a code lies outside of the type. Not
 * collective. */
snrq_status snrq_gguf_encode_codes(snrq_gguf_type type, const snrq_gguf_grid *grid,
                                   const uint8_t *codes, const float *scales, const uint8_t *zeros,
                                   void *out);

/* Encodes `columns` floats as F32, F16, BF16 (nearest, ties to even) or Q8_0 (the smallest
 * binary16 step that reaches the largest weight of a GGUF block, nearest multiple of it).
 * SNRQ_BAD_DATA if a number lies beyond the range of the type or is not finite. */
snrq_status snrq_gguf_encode_floats(snrq_gguf_type type, const float *values, int64_t columns,
                                    void *out);

#endif
