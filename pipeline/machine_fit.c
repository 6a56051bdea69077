/* Trials of fits of scales: what a search for those of super-blocks takes is many times what one
 * for integers takes. See machine.h.
 */
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "mpi/timers.h"
#include "pipeline/machine.h"
#include "pipeline/rounding/format_grid.h"

enum { ROWS = 128, COLUMNS = 512, RUNS = 2, USUAL_BITS = 4, USUAL_GROUP = 128 };

/* Rows to fit. */
typedef struct sample {
    snrq_groups groups;
    float *target; /* [COLUMNS] of each row the same, times what the row is */
    double *d2;    /* [COLUMNS] */
    float *scales; /* [threads, groups] */
    float *minima;
    uint8_t *zeros;
} sample;

/* Magnitudes as weights have them: most are small. */
static void fill(float *target, double *d2)
{
    uint64_t z = 1;
    for (int k = 0; k < COLUMNS; k++) {
        float sum = 0.0f;
        for (int i = 0; i < 4; i++) {
            z = z * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(int32_t)(z >> 32) * 0x1p-31f;
        }
        target[k] = 0.02f * sum;
        d2[k] = 0.1 + (double)(z >> 40) * 0x1p-24;
    }
}

static snrq_status sample_create(const snrq_rule *rule, sample *s)
{
    int32_t order[COLUMNS];
    const size_t threads = (size_t)omp_get_max_threads();
    for (int k = 0; k < COLUMNS; k++) order[k] = k;
    *s = (sample){.target = NULL};
    SNRQ_TRY(snrq_groups_create(order, COLUMNS, rule->group_size, false, &s->groups));
    const size_t groups = threads * (size_t)s->groups.count;
    SNRQ_TRY(snrq_allocate(COLUMNS, sizeof *s->target, "weights", &s->target));
    SNRQ_TRY(snrq_allocate(COLUMNS, sizeof *s->d2, "column weights", &s->d2));
    SNRQ_TRY(snrq_allocate(groups, sizeof *s->scales, "scales", &s->scales));
    SNRQ_TRY(snrq_allocate(groups, sizeof *s->minima, "minima", &s->minima));
    SNRQ_TRY(snrq_allocate(groups, sizeof *s->zeros, "zeros", &s->zeros));
    fill(s->target, s->d2);
    return SNRQ_OK;
}

static void sample_free(sample *s)
{
    snrq_groups_free(&s->groups);
    free(s->target);
    free(s->d2);
    free(s->scales);
    free(s->minima);
    free(s->zeros);
}

/* A row of this thread. */
static void fit_row(const snrq_rule *rule, const sample *s)
{
    const int64_t at = omp_get_thread_num() * s->groups.count;
    if (rule->format != NULL)
        (void)snrq_format_grid_fit(rule, &s->groups, s->target, s->d2, 0x1p-12f, s->scales + at,
                                   s->minima + at);
    else
        (void)snrq_quant_grid_fit(rule, &s->groups, s->target, s->d2, s->scales + at,
                                  s->zeros + at);
}

/* The faster of two runs. */
static snrq_status time_fit(const snrq_rule *rule, double *seconds)
{
    sample s;
    double best = INFINITY;
    snrq_status status = sample_create(rule, &s);
    for (int run = 0; status == SNRQ_OK && run < RUNS; run++) {
        const double started = snrq_now();
#pragma omp parallel for schedule(dynamic, 1)
        for (int r = 0; r < ROWS; r++) fit_row(rule, &s);
        best = fmin(best, snrq_now() - started);
    }
    sample_free(&s);
    *seconds = best / ((double)ROWS * COLUMNS);
    return status;
}

snrq_status snrq_machine_time_fits(const snrq_rule *rule, unsigned formats, double *integers,
                                   double *fits)
{
    snrq_rule one = *rule;
    one.format = NULL;
    one.bits = USUAL_BITS;
    one.group_size = USUAL_GROUP;
    one.symmetric = true;
    one.scale_type = SNRQ_F16;
    SNRQ_TRY(time_fit(&one, integers));
    for (int f = 0; f < SNRQ_WEIGHT_FORMATS; f++) {
        fits[f] = 0.0;
        if ((formats >> f & 1u) == 0 || snrq_weight_formats[f].shared_rows > 0) continue;
        snrq_rule_set_format(&one, &snrq_weight_formats[f]);
        SNRQ_TRY(time_fit(&one, &fits[f]));
    }
    return SNRQ_OK;
}
