/* The transformer block in steps; see block.h. */
#include "pipeline/model/block.h"

#include <stdlib.h>

#include "pipeline/model/exponential.h"

static int64_t unit_width(const snrq_family *f, int unit, bool inputs)
{
    return inputs ? f->unit[unit].columns : f->unit[unit].rows;
}

snrq_status snrq_unit_arrays_create(const snrq_family *f, int first, int end, int64_t tokens,
                                    bool inputs, snrq_unit_arrays *out)
{
    int64_t most = 0;
    *out = (snrq_unit_arrays){.inputs = inputs};
    for (int s = first; s < end; s++) {
        int64_t width = 0;
        for (int u = f->step[s].first; u < f->step[s].end; u++) width += unit_width(f, u, inputs);
        most = width > most ? width : most;
    }
    SNRQ_TRY(snrq_allocate((size_t)f->units, sizeof *out->of, "unit arrays", &out->of));
    snrq_status status =
        snrq_allocate_scratch((size_t)(tokens * most), sizeof *out->data,
                              inputs ? "unit inputs" : "module outputs", &out->data);
    if (status == SNRQ_OK)
        snrq_unit_arrays_lay(f, first, tokens, out);
    else
        snrq_unit_arrays_free(out);
    return status;
}

void snrq_unit_arrays_lay(const snrq_family *f, int step, int64_t tokens, snrq_unit_arrays *a)
{
    float *next = a->data;
    for (int u = f->step[step].first; u < f->step[step].end; u++) {
        a->of[u - f->step[step].first] = next;
        next += tokens * unit_width(f, u, a->inputs);
    }
}

void snrq_unit_arrays_free(snrq_unit_arrays *a)
{
    free(a->of);
    free(a->data);
    *a = (snrq_unit_arrays){0};
}

void snrq_block_begin(const snrq_block *b, int64_t rows, const float *h, float *const *x)
{
    snrq_rms_norm(h, b->vector[SNRQ_ATTENTION_NORM], b->config->rms_norm_eps, rows,
                  b->config->hidden, x[0]);
}

snrq_status snrq_block_apply(const snrq_block *b, int unit, int64_t tokens, const float *x,
                             float *y)
{
    const snrq_unit_shape *u = &b->family->unit[unit];
    return snrq_linear_apply(b->module + u->first, u->end - u->first, x, tokens, y, u->rows);
}

/* y [rows, unit rows] += the biases of the unit's modules. */
static void add_biases(const snrq_block *b, int unit, int64_t rows, float *y)
{
    const snrq_unit_shape *u = &b->family->unit[unit];
    for (int m = u->first; m < u->end; m++) {
        const float *bias = b->vector[SNRQ_BIAS + m];
        int64_t count = b->module[m].rows;
        if (bias != NULL) {
#pragma omp parallel for schedule(static)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < count; i++) y[r * u->rows + i] += bias[i];
        }
        y += count;
    }
}

static snrq_status attention(const snrq_block *b, const snrq_layout *layout, float *qkv, float *x)
{
    const snrq_attention_settings settings = {.config = b->config,
                                              .rope = b->rope,
                                              .query_norm = b->vector[SNRQ_QUERY_NORM],
                                              .key_norm = b->vector[SNRQ_KEY_NORM],
                                              .window = b->window};
    return snrq_attention_spans(&settings, qkv, layout, x);
}

static void add_residual(int64_t count, const float *y, float *h)
{
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) h[i] += y[i];
}

/* x = silu(gate) * up, from rows that hold gate and up one after the other. */
static void gated_activation(int64_t rows, int64_t width, const float *y, float *x)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = y + r * 2 * width, *up = gate + width;
        float *out = x + r * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) out[i] = gate[i] / (1.0f + snrq_exp(-gate[i])) * up[i];
    }
}

snrq_status snrq_block_continue(const snrq_block *b, int step, const snrq_layout *layout,
                                float *const *y, float *h, float *const *x)
{
    const snrq_step *s = &b->family->step[step];
    int64_t rows = layout->rows, hidden = b->config->hidden;
    for (int u = s->first; u < s->end; u++) add_biases(b, u, rows, y[u - s->first]);
    switch (s->kind) {
    case SNRQ_STEP_ATTENTION:
        return attention(b, layout, y[0], x[0]);
    case SNRQ_STEP_ATTENTION_OUT:
        add_residual(rows * hidden, y[0], h);
        snrq_rms_norm(h, b->vector[SNRQ_MLP_NORM], b->config->rms_norm_eps, rows, hidden, x[0]);
        return SNRQ_OK;
    case SNRQ_STEP_GATED_ACTIVATION:
        gated_activation(rows, b->config->intermediate, y[0], x[0]);
        return SNRQ_OK;
    case SNRQ_STEP_MLP_OUT:
        add_residual(rows * hidden, y[0], h);
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_INTERNAL, "block: no step of kind %d", (int)s->kind);
}

snrq_status snrq_block_forward(const snrq_block *b, const snrq_layout *layout, float *h,
                               snrq_unit_arrays *x, snrq_unit_arrays *y)
{
    const snrq_family *f = b->family;
    int64_t rows = layout->rows;
    snrq_unit_arrays_lay(f, 0, rows, x);
    snrq_block_begin(b, rows, h, x->of);
    for (int s = 0; s < f->steps; s++) {
        const snrq_step *step = &f->step[s];
        snrq_unit_arrays_lay(f, s, rows, y);
        for (int u = step->first; u < step->end; u++)
            SNRQ_TRY(snrq_block_apply(b, u, rows, x->of[u - step->first], y->of[u - step->first]));
        if (s + 1 < f->steps) snrq_unit_arrays_lay(f, s + 1, rows, x);
        SNRQ_TRY(snrq_block_continue(b, s, layout, y->of, h, x->of));
    }
    return SNRQ_OK;
}
