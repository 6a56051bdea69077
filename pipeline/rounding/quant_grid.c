/* Fitting quantization grids; see quant_grid.h. */
#include "pipeline/rounding/quant_grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/algebra/lanes.h"

enum {
    SHRINK_STEPS = 80,             /* factors 1, 0.99, ... 0.21 */
    CANDIDATES = 2 * SHRINK_STEPS, /* and all of them once more with a negative scale */
    LIKELY_STEP = 20,              /* where the best one is to be found, about */
    CUT = 16 /* values between two looks at whether the best can still be reached */
};

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

/* The ranges to choose from, and the best so far: the first of those with the least error. */
typedef struct candidates {
    int count;
    float scale[CANDIDATES], zero[CANDIDATES];
    double least;
    int best;
} candidates;

static void offer(candidates *c, int step, double error)
{
    if (error < c->least || (error == c->least && step < c->best)) {
        c->least = error;
        c->best = step;
    }
}

/* sum |x - grid value|^2.4 of one range, or a number above the least so far. */
static double power_error(const sample *s, float scale, float zero, int top, double least)
{
    double sum = 0.0;
    for (int64_t i = 0; i < s->count && sum <= least; i++) {
        int code = snrq_nearest_code(s->x[i], scale, (int)zero, top);
        double e = fabs((double)(s->x[i] - scale * ((float)code - zero)));
        sum += pow(e, 2.4);
    }
    return sum;
}

static void search_powers(const sample *s, int top, candidates *c)
{
    for (int step = 0; step < c->count; step++)
        offer(c, step, power_error(s, c->scale[step], c->zero[step], top, c->least));
}

enum { HALF = SNRQ_LANES / 2 }; /* ranges in one vector of fp64 */

/* Steps of x that snrq_nearest_code() rounds to, to the even one of two: adding this number leaves
 * no bits behind the point. What is too large for that lies outside the grid. */
static inline snrq_lanes nearest_steps(snrq_lanes x)
{
    const snrq_lanes magic = snrq_lanes_all(0x1.8p23f);
    return (x + magic) - magic;
}

/* Adds the weighted squared errors of values [begin, end), one range per lane. Each lane does what
 * snrq_nearest_code() and a sum in the order of the values would do. False if all sums are above
 * `least`. */
static inline bool add_errors(const sample *s, int64_t begin, int64_t end, snrq_lanes scale,
                              snrq_lanes zero, snrq_lanes top, double least,
                              snrq_double_lanes sum[2])
{
    snrq_double_lanes low = sum[0], high = sum[1];
    for (int64_t i = begin; i < end; i++) {
        snrq_lanes x = snrq_lanes_all(s->x[i]);
        snrq_lanes code = nearest_steps(x / scale) + zero;
        code = snrq_lanes_min(snrq_lanes_max(code, (snrq_lanes){0}), top);
        snrq_lanes error = x - scale * (code - zero);
        snrq_double_lanes e = snrq_lanes_widen(error, 0), f = snrq_lanes_widen(error, 1);
        low += s->d2[i] * e * e;
        high += s->d2[i] * f * f;
    }
    sum[0] = low;
    sum[1] = high;
    int within = 0;
    for (int l = 0; l < HALF; l++) within |= (low[l] <= least) | (high[l] <= least);
    return within != 0;
}

/* Looks at SNRQ_LANES ranges, until all are worse than the best so far. */
static void search_squares_at(const sample *s, int top, int step, candidates *c)
{
    snrq_lanes scale = snrq_lanes_load(c->scale + step), zero = snrq_lanes_load(c->zero + step);
    snrq_double_lanes sum[2] = {{0}, {0}};
    for (int64_t i = 0; i < s->count; i += CUT)
        if (!add_errors(s, i, i + CUT < s->count ? i + CUT : s->count, scale, zero,
                        snrq_lanes_all((float)top), c->least, sum))
            return;
    for (int l = 0; l < SNRQ_LANES; l++) offer(c, step + l, sum[l / HALF][l % HALF]);
}

/* The likely ones first: others then end early. */
static void search_squares(const sample *s, int top, int likely, candidates *c)
{
    int first = likely / SNRQ_LANES * SNRQ_LANES;
    search_squares_at(s, top, first, c);
    for (int step = 0; step < c->count; step += SNRQ_LANES)
        if (step != first) search_squares_at(s, top, step, c);
}

/* *step: the likely one, and then the one that was taken. */
static snrq_status fit_group(const snrq_rule *rule, const sample *s, int *step, float *scale,
                             uint8_t *zero)
{
    int top = (1 << rule->bits) - 1, z = 0;
    float lo = 0.0f, hi = 0.0f;
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

    candidates c = {.count = rule->either_sign ? CANDIDATES : SHRINK_STEPS, .least = INFINITY};
    for (int k = 0; k < SHRINK_STEPS; k++) {
        float shrink = 1.0f - 0.01f * (float)k;
        grid_of_range(rule, lo * shrink, hi * shrink, &c.scale[k], &z);
        c.zero[k] = (float)z;
        c.scale[k + SHRINK_STEPS] = -c.scale[k];
        c.zero[k + SHRINK_STEPS] = (float)z;
    }
    if (rule->grid == SNRQ_QUANT_GRID_MSE)
        search_powers(s, top, &c);
    else
        search_squares(s, top, *step, &c);
    *step = c.best;
    *scale = c.scale[c.best];
    *zero = (uint8_t)c.zero[c.best];
    return SNRQ_OK;
}

snrq_status snrq_quant_grid_fit_group(const snrq_rule *rule, int64_t count, const float *x,
                                      const double *d2, float *scale, uint8_t *zero)
{
    const sample group = {x, d2, count};
    int step = LIKELY_STEP;
    return fit_group(rule, &group, &step, scale, zero);
}

snrq_status snrq_quant_grid_fit(const snrq_rule *rule, const snrq_groups *groups,
                                const float *target, const double *d2, float *scales,
                                uint8_t *zeros)
{
    double *weights = NULL;
    float *values = NULL;
    int step = LIKELY_STEP; /* groups of a row are alike */
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
        const sample group = {values, weights, count};
        status = fit_group(rule, &group, &step, &scales[g], &zeros[g]);
    }
    free(weights);
    free(values);
    return status;
}
