/* How much a token counts in H, D and C of a unit: by how much the loss depends on what the unit's
 * modules put out for it.
 *
 * A file of `snrq sensitivity` has q = g' g of every token of its windows and every module, where g
 * is the gradient of the loss with respect to the module's outputs. With e, the mean over the
 * unit's modules of q / mean(q), a token's weight is
 *
 *     v = min( sqrt(e) / mean(sqrt(e)), 20 ),   w = v / mean(v)
 *
 * of which the mean is 1. Labels are drawn once, so that q is a sample of one: its root is between
 * what it says and no weight at all. Other windows than the file's count 1; tokens that stand alone
 * as much as the first ones of its windows do in the mean. First tokens and those count at least 1.
 *
 * Source: the Fisher information of a module's weights is the mean of (g g') (x) (x x'); of
 * factors G and H, H is the better the more it is weighted by what the tokens' gradients are
 * (GuidedQuant, arXiv 2505.07004; docs/method.md, "Row feedback").
 */
#ifndef SNRQ_TOKEN_WEIGHTS_H
#define SNRQ_TOKEN_WEIGHTS_H

#include "io/tokenizer/windows.h"
#include "pipeline/row_grams.h"

/* From now on tokens of the windows that the file and the run begin with have weights, if there are
 * any. Nothing without a file. Not collective. */
snrq_status snrq_token_weights_match(const snrq_windows *windows, snrq_row_grams *grams);

/* *out [tokens of `mine`]: roots of the weights of the tokens of windows `mine`, allocated; NULL if
 * none have weights, or those of an expert are asked for. Not collective. */
snrq_status snrq_token_weights_read(const snrq_row_grams *grams, const snrq_family *family,
                                    int64_t layer, int unit, const snrq_windows *windows,
                                    snrq_range mine, float **out);

#endif
