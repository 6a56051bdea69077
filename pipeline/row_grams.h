/* What the outputs of a quantization's modules are worth: a file of `snrq sensitivity`, as the
 * rounding wants it.
 *
 * The file has a Gram matrix for every 64 rows of a module; the rounding has tiles of 64 rows of
 * the modules of a unit, stacked. Where a module does not begin with a tile of its own, a tile of
 * the stack has the parts of the file's tiles that lie in it, and zeros elsewhere.
 */
#ifndef SNRQ_ROW_GRAMS_H
#define SNRQ_ROW_GRAMS_H

#include "io/checkpoint/sensitivity_file.h"
#include "pipeline/model/model.h"
#include "pipeline/rounding/target.h"

typedef struct snrq_row_grams {
    snrq_sensitivity_file *file; /* NULL: none was given; owned */
    char hash[33];               /* of the file */
    int64_t weighted_tokens;     /* the first of its tokens, that have weights (token_weights.h) */
} snrq_row_grams;

/* Opens the file and reads all of it once, each rank a share. SNRQ_USAGE if it is of another model;
 * SNRQ_BAD_DATA if a module is missing or has other rows, or if what is there is no Gram matrix.
 * Collective; agreed. Close with snrq_row_grams_close(), also after a failure. */
snrq_status snrq_row_grams_open(const snrq_context *context, const char *path,
                                const snrq_model *model, snrq_row_grams *out);
void snrq_row_grams_close(snrq_row_grams *grams);

/* Gives a stack G of its rows `mine`: *out [tiles of `mine`][64][64] is allocated and outlives the
 * stack; NULL without a file. share: of the tokens, that reach the unit; an expert's G is known
 * from few. Not collective. */
snrq_status snrq_row_grams_read(const snrq_row_grams *grams, snrq_range mine, double share,
                                snrq_stack *stack, float **out);

#endif
