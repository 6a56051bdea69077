/* What rows of a module have in common, of formats where that is so: chosen from the targets of all
 * rows before the search, which works row by row and leaves it as it is.
 *
 * fp8_block: blocks of 128 x 128 weights of a module have one scale, the smallest power of 2 by
 * which the largest target is at most 448. E4M3 has the same relative precision over 15 binades, so
 * a finer scale would gain next to nothing.
 *
 * nvfp4: the scales of groups are E4M3 times one number. All modules of a unit have the same one,
 * since engines that fuse q, k and v, or gate and up, want that.
 */
#ifndef SNRQ_SHARED_SCALES_H
#define SNRQ_SHARED_SCALES_H

#include "pipeline/rounding/rounding.h"

/* Fills in tensor_scale, or all scales and zeros, of the rows, whose targets are known; other
 * formats are left alone. Collective; agreed. */
snrq_status snrq_shared_scales_choose(snrq_rounding *rounding);

#endif
