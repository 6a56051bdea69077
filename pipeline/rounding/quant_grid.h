/* Quantization grids: scale and zero point per row and group, fitted before any rounding.
 *
 * Symbols: R [rows, n] the rounding target in decision order; d2 [n] = L_jj^2, the weight of column
 * j in the objective; a group is a set of decision positions that share a scale. Value of code c: s
 * * (c - z). Source: docs/method.md, "Before rounding"; the shrink search of `mse` is GPTQ's (arXiv
 * 2210.17323).
 */
#ifndef SNRQ_QUANT_GRID_H
#define SNRQ_QUANT_GRID_H

#include "mpi/status.h"
#include "pipeline/rounding/rule.h"

/* Which decision positions belong to which group. */
typedef struct snrq_groups {
    int64_t columns, count;
    bool runs;            /* every group is a run of decision positions */
    int32_t *of_position; /* [columns] group of decision position k; owned */
    int32_t *g_idx;       /* [columns] group of original column j; owned */
    int32_t *members;     /* [columns] decision positions, group by group; owned */
    int64_t *first;       /* [count + 1] where a group's members start; owned */
} snrq_groups;

/* Groups of `group_size` (0: all) neighbouring columns: in decision order if permuted, else in
 * original order. order[k] is the original column at decision position k. The last group may be
 * shorter. Not collective. */
snrq_status snrq_groups_create(const int32_t *order, int64_t columns, int64_t group_size,
                               bool permuted, snrq_groups *out);
void snrq_groups_free(snrq_groups *groups);

/* Fits one group of `count` values x with column weights d2. Of the rule, bits,
 * symmetric, grid and scale_type count. SNRQ_BAD_DATA if the scale is not finite in scale_type. */
snrq_status snrq_quant_grid_fit_group(const snrq_rule *rule, int64_t count, const float *x,
                                      const double *d2, float *scale, uint8_t *zero);

/* Fits scales [groups] and zeros [groups] of one row. SNRQ_BAD_DATA if a scale is not finite in
 * scale_type. */
snrq_status snrq_quant_grid_fit(const snrq_rule *rule, const snrq_groups *groups,
                                const float *target, const double *d2, float *scales,
                                uint8_t *zeros);

/* Code of the grid value nearest to x, ties to the even code: clamp(round_half_even(x / s) + z, 0,
 * top). */
static inline int snrq_nearest_code(float x, float scale, int zero, int top)
{
    float steps = __builtin_nearbyintf(x / scale);
    float code = steps + (float)zero;
    return code <= 0.0f ? 0 : code >= (float)top ? top : (int)code;
}

#endif
