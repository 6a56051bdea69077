/* Better scales for given codes: the least-squares step between two roundings.
 *
 * With the codes fixed, a row is Q = sum over groups g of s_g c_g, where c_g has code - zero on the
 * group's columns and 0 elsewhere. Its objective (Q - R) H (Q - R)^T is a quadratic in the few s_g;
 * the minimum solves A s = b with A_gh = c_g H c_h^T and b_g = c_g H R^T. With H = L L^T and t_g =
 * c_g L, u = R L these are A_gh = <t_g, t_h> and b_g = <t_g, u>, summed panel by panel of L.
 */
#ifndef SNRQ_REGRID_H
#define SNRQ_REGRID_H

#include "pipeline/rounding/search.h"

/* scales [rows, groups] <- the best scales for the codes in `rows`, rounded to scale_type; a row
 * keeps its old scales where the system has no positive solution, and a group without nonzero
 * values keeps its own. l: the factor L. Collective; agreed. */
snrq_status snrq_regrid(const snrq_matrix *l, snrq_dtype scale_type, const snrq_rows *rows,
                        float *scales);

#endif
