/* Rounding to nearest; see nearest.h. */
#include "pipeline/rounding/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/rounding/format_grid.h"

/* What is the same for all rows. */
typedef struct shared {
    const snrq_rule *rule;
    snrq_groups groups;
    double *alike; /* [columns] weights of columns: 1 */
} shared;

static void free_shared(shared *s, int32_t *order)
{
    snrq_groups_free(&s->groups);
    free(s->alike);
    free(order);
}

static snrq_status make_shared(const snrq_rule *rule, int64_t columns, int32_t **order, shared *s)
{
    *s = (shared){.rule = rule};
    SNRQ_TRY(snrq_allocate((size_t)columns, sizeof **order, "order of columns", order));
    SNRQ_TRY(snrq_allocate((size_t)columns, sizeof *s->alike, "column weights", &s->alike));
    for (int64_t k = 0; k < columns; k++) {
        (*order)[k] = (int32_t)k;
        s->alike[k] = 1.0;
    }
    return snrq_groups_create(*order, columns, rule->group_size, false, &s->groups);
}

static snrq_status fit(const shared *s, const float *row, float *scales, uint8_t *zeros,
                       float *minima)
{
    const snrq_weight_format *f = s->rule->format;
    memset(minima, 0, (size_t)s->groups.count * sizeof *minima);
    if (f == NULL) return snrq_quant_grid_fit(s->rule, &s->groups, row, s->alike, scales, zeros);
    memset(zeros, snrq_weight_format_zero(f), (size_t)s->groups.count);
    return snrq_format_grid_fit(s->rule, &s->groups, row, s->alike, 1.0f, scales, minima);
}

static uint8_t nearest(const snrq_rule *rule, float x, float scale, int zero, float minimum)
{
    const snrq_weight_format *f = rule->format;
    const int top = f != NULL ? f->top : (1 << rule->bits) - 1;
    if (f != NULL && f->levels != NULL)
        return (uint8_t)snrq_nearest_level(f->levels, top, x / scale);
    return (uint8_t)snrq_nearest_code(x + minimum, scale, zero, top);
}

snrq_status snrq_round_to_nearest(const snrq_rule *rule, int64_t first, int64_t rows,
                                  int64_t columns, const float *weights, uint8_t *codes,
                                  float *scales, uint8_t *zeros, float *minima, int32_t *g_idx)
{
    shared s;
    int32_t *order = NULL;
    int64_t bad = rows;
    char message[512] = "";
    snrq_status status = make_shared(rule, columns, &order, &s), worst = SNRQ_OK;
    const int64_t groups = s.groups.count;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < (status == SNRQ_OK ? rows : 0); r++) {
        const float *row = weights + r * columns;
        const int64_t at = r * groups;
        snrq_status fitted = fit(&s, row, scales + at, zeros + at, minima + at);
        if (fitted != SNRQ_OK) {
#pragma omp critical
            if (r < bad) { /* the same message for any number of threads */
                bad = r;
                worst = fitted;
                snprintf(message, sizeof message, "row %lld: %s", (long long)(first + r),
                         snrq_error_message());
            }
            continue;
        }
        for (int64_t k = 0; k < columns; k++) {
            const int64_t g = at + s.groups.g_idx[k];
            codes[r * columns + k] = nearest(rule, row[k], scales[g], zeros[g], minima[g]);
        }
    }
    if (status == SNRQ_OK) memcpy(g_idx, s.groups.g_idx, (size_t)columns * sizeof *g_idx);
    free_shared(&s, order);
    SNRQ_TRY(status);
    return worst == SNRQ_OK ? SNRQ_OK : snrq_fail(worst, "%s", message);
}
