/* Formats of quantized weights that machines run, beside plain integers with free scales.
 *
 * A format says which levels codes stand for, how many columns share a scale, and which scales and
 * minima can be stored. The value of code c of a group is, in fp32,
 *
 *     scale * (c - zero)            without a minimum; zero is 2^(bits - 1)
 *     scale * c - minimum           with one
 *     scale * level[c]              with a code book, levels in ascending order
 *
 * Formats of floating point numbers (E2M1, E4M3: OCP specifications of 8-bit floats and of
 * microscaling formats, 2023) are code books, too.
 *
 * Scales and minima of a group are what is stored of it and of its super-block, multiplied: the
 * product of a binary16 number and an integer below 2^8 is exact in fp32. snrq_multiples_find()
 * takes it apart again. The number that a tensor's E4M3 scales are multiples of, and the scales
 * that rows share, are powers of 2: so weights are exact in bfloat16, too, and no reader can round
 * them otherwise. Source: ggml's block definitions (io/gguf/layout.h has the bytes), NVFP4 and FP8
 * as docs/exporting.md describes them.
 */
#ifndef SNRQ_WEIGHT_FORMAT_H
#define SNRQ_WEIGHT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/algebra/dtype.h"

enum {
    SNRQ_BOOK = 16,       /* levels of a code book whose levels are looked up, at most */
    SNRQ_E4M3_ZERO = 126, /* code of 0 in the other one: codes count E4M3 from -448 to 448 */
    SNRQ_E4M3_LEVELS = 253
};

/* Numbers that the groups of a super-block can have: a binary16 number of their own, or integers
 * times one that they share. */
typedef struct snrq_stored_numbers {
    bool present;
    bool power;          /* powers of 2, from 2^-127 to 2^127 (E8M0), instead of binary16 */
    bool tensor;         /* E4M3 above 0, times a power of 2 that the whole tensor has */
    bool shared;         /* of the super-block, with an integer in [lowest, highest] per group */
    int lowest, highest; /* 0 and 0 if not shared */
} snrq_stored_numbers;

typedef struct snrq_weight_format {
    const char *name; /* as --format says it */
    int bits;
    const float *levels; /* ascending: [SNRQ_BOOK], beyond `top` padding, or [SNRQ_E4M3_LEVELS];
                            NULL: integers */
    int top;             /* the last code */
    int64_t group;       /* columns that share a scale */
    int64_t super_block; /* columns that share what scales are multiples of; the group if nothing */
    snrq_stored_numbers scale, minimum;
    double weight_bits; /* bits per weight, scales and all */
    const char *narrow; /* the format of rows that are not made of whole super-blocks; NULL: none */
    int64_t shared_rows; /* rows of a module that have the same scales; 0: each has its own */
} snrq_weight_format;

/* In the order of the choices of --format. */
extern const snrq_weight_format snrq_weight_formats[];
enum { SNRQ_WEIGHT_FORMATS = 15 };

/* By name; NULL: there is no such format. */
const snrq_weight_format *snrq_weight_format_find(const char *name);

/* What rows of so many columns get where `format` (NULL: integers) is asked for: itself, or the
 * narrow one; NULL if neither has whole blocks there. */
const snrq_weight_format *snrq_weight_format_for(const snrq_weight_format *format, int64_t columns);

/* Its zero points: 2^(bits - 1), or 0 beside a minimum. */
int snrq_weight_format_zero(const snrq_weight_format *format);

/* Are the zero points 2^(bits - 1)? */
bool snrq_weight_format_symmetric(const snrq_weight_format *format);

/* What scales and minima are kept in: F16, or F32 if they are multiples or powers of 2. */
snrq_dtype snrq_weight_format_scale_type(const snrq_weight_format *format);

/* The super-block's number and the integers of its `count` groups for given values: values[i] =
 * *shared * integers[i] exactly. False if the set has no such numbers. The largest integers that do
 * are taken; for values that are all zero, 0 and 0. */
bool snrq_multiples_find(const snrq_stored_numbers *set, int64_t count, const float *values,
                         float *shared, int *integers);

/* The nearest number that can be stored of a group by itself; may be 0 or infinite. tensor: what
 * the tensor's numbers are multiples of, or 1; of such, what is above 0 keeps within them. */
float snrq_stored_number(const snrq_stored_numbers *set, float tensor, float value);

/* What the scales of a tensor should be multiples of whose largest weight has this magnitude: twice
 * as large scales can be stored. 1 for formats that have no such number. */
float snrq_weight_format_tensor_scale(const snrq_weight_format *format, float largest);

/* The scale that rows share where the largest weight has this magnitude. */
float snrq_weight_format_block_scale(const snrq_weight_format *format, float largest);

/* The bits of a level of a format of floating point numbers: sign, then magnitude. */
static inline uint8_t snrq_float_bits(const snrq_weight_format *format, uint8_t code)
{
    const int zero = format->top / 2;
    return (uint8_t)(code >= zero ? code - zero : 1 << (format->bits - 1) | (zero - code));
}

/* The code of the level nearest to x, the lower one of two. levels [top + 1], ascending. */
static inline int snrq_nearest_level(const float *levels, int top, float x)
{
    int code = 0;
    if (top >= SNRQ_BOOK) {
        for (int step = 128; step > 0; step /= 2) {
            int k = code + step;
            if (k <= top && x > 0.5f * (levels[k - 1] + levels[k])) code = k;
        }
        return code;
    }
    for (int k = 0; k < top; k++) code += x > 0.5f * (levels[k] + levels[k + 1]);
    return code;
}

/* The value of a code. levels: NULL for integers; minimum: 0 where there is none. */
static inline float snrq_code_value(const float *levels, float scale, int zero, float minimum,
                                    int code)
{
    if (levels != NULL) return scale * levels[code];
    return scale * (float)(code - zero) - minimum;
}

#endif
