/* Formats of quantized weights that machines run, beside plain integers with free scales.
 *
 * A format says which levels codes stand for, how many columns share a scale, and which scales and
 * minima can be stored. The value of code c of a group is, in fp32,
 *
 *     scale * (c - zero)            without a minimum; zero is 2^(bits - 1)
 *     scale * c - minimum           with one
 *     scale * level[c]              with a code book, levels in ascending order
 *
 * Scales and minima of a group are what is stored of it and of its super-block, multiplied: the
 * product of a binary16 number and an integer below 2^8 is exact in fp32. snrq_multiples_find()
 * takes it apart again. Source: ggml's block definitions (io/gguf/layout.h has the bytes).
 */
#ifndef SNRQ_WEIGHT_FORMAT_H
#define SNRQ_WEIGHT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/algebra/dtype.h"

enum { SNRQ_BOOK = 16 }; /* levels of a code book, at most */

/* Numbers that the groups of a super-block can have: a binary16 number of their own, or integers
 * times one that they share. */
typedef struct snrq_stored_numbers {
    bool present;
    bool power;          /* powers of 2, from 2^-127 to 2^127 (E8M0), instead of binary16 */
    bool shared;         /* of the super-block, with an integer in [lowest, highest] per group */
    int lowest, highest; /* 0 and 0 if not shared */
} snrq_stored_numbers;

typedef struct snrq_weight_format {
    const char *name; /* as --format says it */
    int bits;
    const float *levels; /* [SNRQ_BOOK] ascending, beyond `top` padding; NULL: integers */
    int top;             /* the last code */
    int64_t group;       /* columns that share a scale */
    int64_t super_block; /* columns that share what scales are multiples of; the group if nothing */
    snrq_stored_numbers scale, minimum;
    double weight_bits; /* bits per weight, scales and all */
    const char *narrow; /* the format of rows that are not made of whole super-blocks; NULL: none */
} snrq_weight_format;

/* In the order of the choices of --format. */
extern const snrq_weight_format snrq_weight_formats[];
enum { SNRQ_WEIGHT_FORMATS = 13 };

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

/* The nearest number that can be stored of a group by itself; may be 0 or infinite. */
float snrq_stored_number(const snrq_stored_numbers *set, float value);

/* The code of the level nearest to x, the lower one of two. levels [top + 1], ascending. */
static inline int snrq_nearest_level(const float *levels, int top, float x)
{
    int code = 0;
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
