/* Better scales for given codes: the least-squares step between two roundings.
 *
 * With the codes fixed, a row is Q = sum over groups g of s_g t_g, where t_g has code - zero on the
 * group's columns and 0 elsewhere. Its objective (Q - R) H (Q - R)^T is a quadratic in the few s_g.
 * From the scales of now, the step to its minimum solves A d = b with A_gh = t_g H t_h^T and b_g =
 * t_g G^T, G = (R - Q) H of refine.h.
 *
 * Work: Z_h = H t_h^T, panel by panel of H, is a product of small integers with H; A_gh is then the
 * sum of t_g Z_h over the columns of g. A is symmetric, so only columns of groups g >= h are
 * needed: m n^2 / 2 multiply-adds for m rows, and m n per group. A is summed in fp32: an element is
 * a sum over the columns of two groups, off by a few 1e-7 of sqrt(A_gg A_hh). What this does to the
 * step is relative to the step, not to the scales, since the step is all that is solved for. b and
 * the solution are in fp64.
 */
#ifndef SNRQ_REGRID_H
#define SNRQ_REGRID_H

#include "pipeline/rounding/format_grid.h"
#include "pipeline/rounding/refine.h"

/* The rows of a rank are worked on in so many parts, so that their systems take no more memory than
 * their G. A function of n and the number of groups, since all ranks take part in each. */
static inline int64_t snrq_regrid_parts(int64_t columns, int64_t groups)
{
    return (groups * (groups + 1) / 2 + columns - 1) / columns;
}

/* What the step is taken in. */
typedef enum snrq_regrid_kind {
    SNRQ_REGRID_SCALES,
    SNRQ_REGRID_MINIMA /* the same with t_g = -1 on the group's columns, and minima for scales */
} snrq_regrid_kind;

/* numbers [rows, groups] <- the best scales, or minima, for the codes in `rows`, rounded to what
 * the rule's scale_type or format can store; a row keeps its old scales where the system has no
 * solution with scales of the same signs, or minima that can be stored, and a group without nonzero
 * values keeps its own. What becomes of a row does not depend on the others. h: the damped Gram;
 * gradient: of the rows, by snrq_refine(). Collective; agreed. */
snrq_status snrq_regrid(const snrq_matrix *h, const snrq_rule *rule, snrq_regrid_kind kind,
                        const snrq_rows *rows, const snrq_gradient *gradient, float *numbers);

#endif
