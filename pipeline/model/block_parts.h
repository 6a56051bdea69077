/* The parts of a block's forward pass (block.h), for what goes back through them. */
#ifndef SNRQ_BLOCK_PARTS_H
#define SNRQ_BLOCK_PARTS_H

#include "pipeline/model/block.h"

/* y [rows, unit rows] += the biases of the unit's modules. */
void snrq_block_add_biases(const snrq_block *block, int unit, int64_t rows, float *y);

/* x [rows, hidden] = RMSNorm(h), or h where the family has no norm there. */
void snrq_block_normalize(const snrq_block *block, snrq_vector norm, int64_t rows, const float *h,
                          float *x);

/* h += y, normalized before, in place, where the family does that, and scaled. */
void snrq_block_add_residual(const snrq_block *block, snrq_vector norm, int64_t rows, float *y,
                             float *h);

snrq_attention_settings snrq_block_attention(const snrq_block *block);

/* The latent vectors of queries (or the queries themselves) and of keys, from rows y that hold both
 * and the part of the keys that turns: normalized, to x; what is left, to carried. */
void snrq_block_split_latents(const snrq_block *block, int64_t rows, const float *y,
                              float *const *x, float *carried);
static const double snrq_latent_norm_eps = 1e-6; /* whatever config.json says */

/* qkv [rows, snrq_attention_width()], as attention takes them, from the outputs y of the units that
 * make heads, and from what was carried. */
void snrq_block_make_heads(const snrq_block *block, int64_t rows, float *const *y,
                           const float *carried, float *qkv);

#endif
