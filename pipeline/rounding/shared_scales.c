/* Scales that rows share; see shared_scales.h. */
#include "pipeline/rounding/shared_scales.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of each module's blocks of rows, the first one's place among those of all modules. */
static int64_t block_of_row(const snrq_rounding *w, int64_t row)
{
    const int64_t size = w->rule->format->shared_rows;
    int64_t before = 0;
    int m = 0;
    for (; row >= w->stack->first[m + 1]; m++)
        before += (w->stack->first[m + 1] - w->stack->first[m] + size - 1) / size;
    return before + (row - w->stack->first[m]) / size;
}

/* largest [blocks, groups] of this rank's rows. */
static void find_largest(const snrq_rounding *w, double *largest)
{
    const int64_t n = w->rows.columns, groups = w->groups.count;
    for (int64_t row = w->mine.begin; row < w->mine.end; row++) {
        const float *target = w->rows.target + (row - w->mine.begin) * n;
        double *of_block = largest + block_of_row(w, row) * groups;
        for (int64_t k = 0; k < n; k++) {
            double *most = &of_block[w->groups.of_position[k]];
            *most = fmax(*most, fabs((double)target[k]));
        }
    }
}

static snrq_status choose_blocks(snrq_rounding *w)
{
    const snrq_weight_format *f = w->rule->format;
    const int64_t groups = w->groups.count;
    const int64_t count = (block_of_row(w, w->stack->first[w->stack->count] - 1) + 1) * groups;
    double *largest = NULL;
    SNRQ_TRY(snrq_agree(w->context, snrq_allocate((size_t)count, sizeof *largest,
                                                  "largest weights of blocks", &largest)));
    find_largest(w, largest);
    snrq_status status = snrq_max_double(w->context, largest, (int)count);
    for (int64_t row = w->mine.begin; status == SNRQ_OK && row < w->mine.end; row++) {
        float *scales = w->rows.scales + (row - w->mine.begin) * groups;
        const double *of_block = largest + block_of_row(w, row) * groups;
        for (int64_t g = 0; g < groups; g++)
            scales[g] = snrq_weight_format_block_scale(f, (float)of_block[g]);
    }
    free(largest);
    return status;
}

static snrq_status choose_tensor_scale(snrq_rounding *w)
{
    double largest = 0.0;
    const int64_t count = (w->mine.end - w->mine.begin) * w->rows.columns;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)w->rows.target[i]));
    SNRQ_TRY(snrq_max_double(w->context, &largest, 1));
    w->rows.tensor_scale = snrq_weight_format_tensor_scale(w->rule->format, (float)largest);
    return SNRQ_OK;
}

snrq_status snrq_shared_scales_choose(snrq_rounding *w)
{
    const snrq_weight_format *f = w->rule->format;
    if (f == NULL) return SNRQ_OK;
    if (f->shared_rows > 0) return choose_blocks(w);
    return f->scale.tensor ? choose_tensor_scale(w) : SNRQ_OK;
}
