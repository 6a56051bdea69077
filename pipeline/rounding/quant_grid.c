/* Fitting quantization grids; see quant_grid.h. */
#include "pipeline/rounding/quant_grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHRINK_STEPS = 80 }; /* factors 1, 0.99, ... 0.21 */

snrq_status snrq_groups_create(const int32_t *order, int64_t columns, int64_t group_size,
                               bool permuted, snrq_groups *out)
{
    int64_t size = group_size > 0 && group_size < columns ? group_size : columns;
    size_t n = (size_t)columns;
    memset(out, 0, sizeof *out);
    out->columns = columns;
    out->count = (columns + size - 1) / size;
    out->runs = permuted || out->count == 1;
    SNRQ_TRY(snrq_allocate(n, sizeof(int32_t), "group of position", &out->of_position));
    SNRQ_TRY(snrq_allocate(n, sizeof(int32_t), "group index", &out->g_idx));
    SNRQ_TRY(snrq_allocate(n, sizeof(int32_t), "group members", &out->members));
    SNRQ_TRY(snrq_allocate((size_t)out->count + 1, sizeof(int64_t), "group starts", &out->first));
    for (int64_t k = 0; k < columns; k++) {
        out->of_position[k] = (int32_t)((permuted ? k : order[k]) / size);
        out->g_idx[order[k]] = out->of_position[k];
        out->first[out->of_position[k] + 1]++;
    }
    for (int64_t g = 0; g < out->count; g++) out->first[g + 1] += out->first[g];
    /* Each start walks to the end of its group while the members are dealt, and is put back
     * afterwards. */
    for (int64_t k = 0; k < columns; k++)
        out->members[out->first[out->of_position[k]]++] = (int32_t)k;
    for (int64_t g = out->count; g > 0; g--) out->first[g] = out->first[g - 1];
    out->first[0] = 0;
    return SNRQ_OK;
}

void snrq_groups_free(snrq_groups *g)
{
    free(g->of_position);
    free(g->g_idx);
    free(g->members);
    free(g->first);
    memset(g, 0, sizeof *g);
}

/* A group's targets, gathered. */
typedef struct sample {
    const float *x;   /* [count] */
    const double *d2; /* [count] */
    int64_t count;
} sample;

static double grid_error(const snrq_rule *rule, const sample *s, float scale, int zero)
{
    int top = (1 << rule->bits) - 1;
    double sum = 0.0;
    for (int64_t i = 0; i < s->count; i++) {
        int code = snrq_nearest_code(s->x[i], scale, zero, top);
        double e = fabs((double)(s->x[i] - scale * (float)(code - zero)));
        sum += rule->grid == SNRQ_QUANT_GRID_MSE ? pow(e, 2.4) : s->d2[i] * e * e;
    }
    return sum;
}

/* Scale and zero of the range [lo, hi]; a scale that the checkpoint would store as zero becomes
 * one, as for an all-zero group. */
static void grid_of_range(const snrq_rule *rule, float lo, float hi, float *scale, int *zero)
{
    int top = (1 << rule->bits) - 1, middle = 1 << (rule->bits - 1);
    float widest = -lo > hi ? -lo : hi;
    float s = rule->symmetric ? 2.0f * widest / (float)top : (hi - lo) / (float)top;
    s = snrq_round_to(rule->scale_type, s);
    if (s == 0.0f) {
        *scale = 1.0f;
        *zero = rule->symmetric ? middle : 0;
        return;
    }
    *scale = s;
    *zero = rule->symmetric ? middle : snrq_nearest_code(-lo, s, 0, top);
}

snrq_status snrq_quant_grid_fit_group(const snrq_rule *rule, int64_t count, const float *x,
                                      const double *d2, float *scale, uint8_t *zero)
{
    const sample group = {x, d2, count}, *s = &group;
    float lo = 0.0f, hi = 0.0f;
    int z = 0;
    for (int64_t i = 0; i < s->count; i++) {
        lo = s->x[i] < lo ? s->x[i] : lo;
        hi = s->x[i] > hi ? s->x[i] : hi;
    }
    grid_of_range(rule, lo, hi, scale, &z);
    if (!isfinite(*scale))
        return snrq_fail(SNRQ_BAD_DATA,
                         "a group's values reach from %g to %g, too far for %s scales%s",
                         (double)lo, (double)hi, snrq_dtype_name(rule->scale_type),
                         rule->scale_type == SNRQ_F16 ? "; take --scale-type bf16 or f32" : "");
    *zero = (uint8_t)z;
    if (rule->grid == SNRQ_QUANT_GRID_MINMAX || (lo == 0.0f && hi == 0.0f)) return SNRQ_OK;

    double best = grid_error(rule, s, *scale, z);
    for (int step = 1; step < SHRINK_STEPS; step++) {
        float shrink = 1.0f - 0.01f * (float)step, candidate = 0.0f;
        grid_of_range(rule, lo * shrink, hi * shrink, &candidate, &z);
        double error = grid_error(rule, s, candidate, z);
        if (error < best) {
            best = error;
            *scale = candidate;
            *zero = (uint8_t)z;
        }
    }
    return SNRQ_OK;
}

snrq_status snrq_quant_grid_fit(const snrq_rule *rule, const snrq_groups *groups,
                                const float *target, const double *d2, float *scales,
                                uint8_t *zeros)
{
    double *weights = NULL;
    float *values = NULL;
    snrq_status status =
        snrq_allocate((size_t)groups->columns, sizeof *weights, "grid weights", &weights);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)groups->columns, sizeof *values, "grid values", &values);
    for (int64_t g = 0; status == SNRQ_OK && g < groups->count; g++) {
        int64_t count = groups->first[g + 1] - groups->first[g];
        for (int64_t i = 0; i < count; i++) {
            int32_t k = groups->members[groups->first[g] + i];
            values[i] = target[k];
            weights[i] = d2[k];
        }
        status = snrq_quant_grid_fit_group(rule, count, values, weights, &scales[g], &zeros[g]);
    }
    free(weights);
    free(values);
    return status;
}
