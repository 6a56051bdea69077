/* Sums of g g' over tokens, where g is the gradient of a module's outputs, in tiles: of the Gram of
 * the outputs only the blocks of SNRQ_GRADIENT_ROWS rows on the diagonal. And g' g of every token,
 * but of experts, which are sent only some.
 *
 * A sequence's tile is an fp32 product, summed in a fixed order, hence the same bits on any rank.
 * It is added in fixed point (fixed.h): what is left of a square that is
 * larger than 2e-22 does not depend on the order of the sequences, or on who has which.
 */
#ifndef SNRQ_GRADIENT_GRAM_H
#define SNRQ_GRADIENT_GRAM_H

#include "mpi/collective.h"
#include "pipeline/model/family.h"
#include "pipeline/model/fixed.h"

enum { SNRQ_GRADIENT_ROWS = 64, SNRQ_GRADIENT_TILE = 64 * 64 };

/* The sums of a block. */
typedef struct snrq_gradient_gram {
    const snrq_family *family; /* borrowed */
    int64_t *first;            /* [modules + 1] a module's first tile; owned */
    snrq_fixed *sum;           /* [first[modules], 64, 64] on and below the diagonal; owned */
    int64_t tokens;            /* that can be added */
    int64_t *added;            /* [units] tokens so far; owned */
    float *squares;            /* [modules, tokens] g' g, in the order of adding; owned */
} snrq_gradient_gram;

/* All sums are 0; for so many tokens of this rank. Not collective. Free it after a failure, too. */
snrq_status snrq_gradient_gram_create(const snrq_family *family, int64_t tokens,
                                      snrq_gradient_gram *out);
void snrq_gradient_gram_free(snrq_gradient_gram *gram);

/* Adds the sequences of a batch: g [first[sequences], unit rows] of a unit, sequence s in rows
 * [first[s], first[s + 1]). Batches come in the order of their sequences. SNRQ_BAD_DATA names the
 * module if a sum is not finite or larger than 1e12. Not collective. */
snrq_status snrq_gradient_gram_add(snrq_gradient_gram *gram, int unit, int64_t sequences,
                                   const int64_t *first, const float *g);

/* This rank's share of the tiles of module m. Not collective. */
snrq_range snrq_gradient_gram_share(const snrq_context *context, const snrq_gradient_gram *gram,
                                    int module);

/* Sums over all ranks: `total` [tiles of this rank's shares, module by module] += the sums of all
 * ranks, which become 0. Collective; agreed. */
snrq_status snrq_gradient_gram_collect(const snrq_context *context, snrq_gradient_gram *gram,
                                       snrq_fixed *total);

/* out [tiles, 64, 64] = sums / tokens. */
void snrq_gradient_means(const snrq_fixed *sum, int64_t tiles, int64_t tokens, float *out);

#endif
