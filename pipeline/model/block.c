/* The transformer block in stages; see block.h. */
#include "pipeline/model/block.h"

#include "pipeline/model/exponential.h"

void snrq_block_begin(const snrq_block *b, int64_t sequences, int64_t tokens, const float *h,
                      float *x)
{
    snrq_rms_norm(h, b->vector[SNRQ_ATTENTION_NORM], b->config->rms_norm_eps, sequences * tokens,
                  b->config->hidden, x);
}

snrq_status snrq_block_apply(const snrq_block *b, snrq_stage stage, int64_t sequences,
                             int64_t tokens, const float *x, float *y)
{
    int first = b->family->first[stage], count = b->family->first[stage + 1] - first;
    return snrq_linear_apply(b->module + first, count, x, sequences * tokens, y,
                             b->family->stage_rows[stage]);
}

/* y [rows, stage_rows] += the biases of the stage's modules. */
static void add_biases(const snrq_block *b, snrq_stage stage, int64_t rows, float *y)
{
    int64_t stride = b->family->stage_rows[stage];
    for (int m = b->family->first[stage]; m < b->family->first[stage + 1]; m++) {
        const float *bias = b->vector[SNRQ_BIAS + m];
        int64_t count = b->module[m].rows;
        if (bias != NULL) {
#pragma omp parallel for schedule(static)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < count; i++) y[r * stride + i] += bias[i];
        }
        y += count;
    }
}

static snrq_status attention(const snrq_block *b, int64_t sequences, int64_t tokens, float *qkv,
                             float *x)
{
    const snrq_attention_settings settings = {.config = b->config,
                                              .rope = b->rope,
                                              .query_norm = b->vector[SNRQ_QUERY_NORM],
                                              .key_norm = b->vector[SNRQ_KEY_NORM],
                                              .window = b->window};
    return snrq_attention(&settings, qkv, sequences, tokens, x);
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

snrq_status snrq_block_continue(const snrq_block *b, snrq_stage stage, int64_t sequences,
                                int64_t tokens, float *y, float *h, float *x)
{
    int64_t rows = sequences * tokens, hidden = b->config->hidden;
    add_biases(b, stage, rows, y);
    switch (stage) {
    case SNRQ_STAGE_QKV:
        return attention(b, sequences, tokens, y, x);
    case SNRQ_STAGE_O:
        add_residual(rows * hidden, y, h);
        snrq_rms_norm(h, b->vector[SNRQ_MLP_NORM], b->config->rms_norm_eps, rows, hidden, x);
        return SNRQ_OK;
    case SNRQ_STAGE_GATE_UP:
        gated_activation(rows, b->config->intermediate, y, x);
        return SNRQ_OK;
    case SNRQ_STAGE_DOWN:
        add_residual(rows * hidden, y, h);
        return SNRQ_OK;
    }
    return snrq_fail(SNRQ_INTERNAL, "block: no stage %d", (int)stage);
}

snrq_status snrq_block_forward(const snrq_block *b, int64_t sequences, int64_t tokens, float *h,
                               float *x, float *y)
{
    snrq_block_begin(b, sequences, tokens, h, x);
    for (int s = 0; s < SNRQ_STAGES; s++) {
        SNRQ_TRY(snrq_block_apply(b, (snrq_stage)s, sequences, tokens, x, y));
        SNRQ_TRY(snrq_block_continue(b, (snrq_stage)s, sequences, tokens, y, h, x));
    }
    return SNRQ_OK;
}
