/* The transformer block in steps; see block.h. */
#include "pipeline/model/block.h"

#include <stdlib.h>
#include <string.h>

#include "pipeline/model/block_parts.h"
#include "pipeline/model/experts.h"
#include "pipeline/model/exponential.h"

static int64_t unit_width(const snrq_family *f, int unit, bool inputs)
{
    return inputs ? f->unit[unit].columns : f->unit[unit].rows;
}

int64_t snrq_step_width(const snrq_family *f, int step, bool inputs)
{
    int64_t width = 0;
    if (f->step[step].kind == SNRQ_STEP_EXPERTS_ACTIVATION)
        return inputs ? f->unit[f->step[step].first].columns : 0;
    if (f->step[step].kind == SNRQ_STEP_EXPERTS_OUT) return 0;
    for (int u = f->step[step].first; u < f->step[step].end; u++) width += unit_width(f, u, inputs);
    return width;
}

snrq_status snrq_unit_arrays_create(const snrq_family *f, int first, int end, int64_t tokens,
                                    bool inputs, snrq_unit_arrays *out)
{
    int64_t most = 0;
    *out = (snrq_unit_arrays){.inputs = inputs};
    for (int s = first; s < end; s++) {
        int64_t width = snrq_step_width(f, s, inputs);
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
    bool routed = snrq_step_is_routed(f, step);
    for (int u = f->step[step].first; u < f->step[step].end; u++) {
        a->of[u - f->step[step].first] = next;
        if (!routed) next += tokens * unit_width(f, u, a->inputs);
    }
}

void snrq_unit_arrays_free(snrq_unit_arrays *a)
{
    free(a->of);
    free(a->data);
    *a = (snrq_unit_arrays){0};
}

void snrq_block_normalize(const snrq_block *b, snrq_vector norm, int64_t rows, const float *h,
                          float *x)
{
    int64_t hidden = b->config->hidden;
    if (b->vector[norm] != NULL)
        snrq_rms_norm(h, b->vector[norm], b->config->rms_norm_eps, rows, hidden, x);
    else
        memcpy(x, h, (size_t)(rows * hidden) * sizeof *x);
}

void snrq_block_begin(const snrq_block *b, int64_t rows, const float *h, float *const *x)
{
    snrq_block_normalize(b, SNRQ_ATTENTION_NORM, rows, h, x[0]);
}

snrq_status snrq_block_apply(const snrq_block *b, int unit, int64_t tokens, const float *x,
                             float *y)
{
    const snrq_unit_shape *u = &b->family->unit[unit];
    return snrq_linear_apply(b->module + u->first, u->end - u->first, x, tokens, y, u->rows);
}

void snrq_block_add_biases(const snrq_block *b, int unit, int64_t rows, float *y)
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

snrq_attention_settings snrq_block_attention(const snrq_block *b)
{
    return (snrq_attention_settings){.config = b->config,
                                     .rope = b->rope,
                                     .query_norm = b->vector[SNRQ_QUERY_NORM],
                                     .key_norm = b->vector[SNRQ_KEY_NORM],
                                     .window = b->window};
}

static snrq_status attention(const snrq_block *b, const snrq_layout *layout, float *qkv, float *x)
{
    const snrq_attention_settings settings = snrq_block_attention(b);
    return snrq_attention_spans(&settings, qkv, layout, x);
}

void snrq_block_split_latents(const snrq_block *b, int64_t rows, const float *y, float *const *x,
                              float *carried)
{
    const double eps = snrq_latent_norm_eps;
    const snrq_config *c = b->config;
    const snrq_latent_config *l = &c->latent;
    int64_t queries = l->queries > 0 ? l->queries : c->heads * c->head_dim;
    int64_t stride = queries + l->keys + l->turned, width = b->family->carried;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *q = y + r * stride, *kv = q + queries;
        float *to = carried + r * width;
        if (l->queries > 0)
            snrq_rms_norm_row(q, b->vector[SNRQ_QUERY_LATENT_NORM], eps, queries,
                              x[0] + r * queries);
        snrq_rms_norm_row(kv, b->vector[SNRQ_KEY_LATENT_NORM], eps, l->keys,
                          x[l->queries > 0] + r * l->keys);
        memcpy(to, kv + l->keys, (size_t)l->turned * sizeof *to);
        if (l->queries == 0) memcpy(to + l->turned, q, (size_t)queries * sizeof *to);
    }
}

/* Heads of queries, keys and values of a token, one after the other. Of each head, kv has the part
 * of the key that does not turn, and the value; the part that turns is the same for all. */
static void make_heads(const snrq_config *c, const float *q, const float *kv, const float *turned,
                       float *qkv)
{
    const snrq_latent_config *l = &c->latent;
    int64_t queries = c->heads * c->head_dim;
    float *key = qkv + queries, *value = key + queries;
    memcpy(qkv, q, (size_t)queries * sizeof *qkv);
    for (int64_t h = 0; h < c->heads; h++) {
        memcpy(key, kv, (size_t)l->unturned * sizeof *key);
        memcpy(key + l->unturned, turned, (size_t)l->turned * sizeof *key);
        memcpy(value, kv + l->unturned, (size_t)c->value_dim * sizeof *value);
        key += c->head_dim;
        value += c->value_dim;
        kv += l->unturned + c->value_dim;
    }
}

void snrq_block_make_heads(const snrq_block *b, int64_t rows, float *const *y, const float *carried,
                           float *qkv)
{
    const snrq_config *c = b->config;
    const snrq_latent_config *l = &c->latent;
    int64_t queries = c->heads * c->head_dim, width = snrq_attention_width(c);
    int64_t kv = c->heads * (l->unturned + c->value_dim), carries = b->family->carried;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *turned = carried + r * carries;
        make_heads(c, l->queries > 0 ? y[0] + r * queries : turned + l->turned,
                   y[l->queries > 0] + r * kv, turned, qkv + r * width);
    }
}

static snrq_status latent_attention(const snrq_block *b, const snrq_layout *layout, float *const *y,
                                    const float *carried, float *x)
{
    float *qkv = NULL;
    SNRQ_TRY(snrq_allocate_scratch((size_t)(layout->rows * snrq_attention_width(b->config)),
                                   sizeof *qkv, "queries, keys and values", &qkv));
    snrq_block_make_heads(b, layout->rows, y, carried, qkv);
    snrq_status status = attention(b, layout, qkv, x);
    free(qkv);
    return status;
}

void snrq_block_add_residual(const snrq_block *b, snrq_vector norm, int64_t rows, float *y,
                             float *h)
{
    const float scale = (float)b->config->residual_scale;
    int64_t count = rows * b->config->hidden;
    if (b->vector[norm] != NULL)
        snrq_rms_norm(y, b->vector[norm], b->config->rms_norm_eps, rows, b->config->hidden, y);
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) h[i] += scale * y[i];
}

static inline float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + snrq_tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
}

/* Rows of y hold gate and up one after the other. */
void snrq_gated_activation(snrq_activation kind, int64_t rows, int64_t width, const float *y,
                           float *x)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = y + r * 2 * width, *up = gate + width;
        float *out = x + r * width;
        if (kind == SNRQ_SILU) {
#pragma omp simd
            for (int64_t i = 0; i < width; i++)
                out[i] = gate[i] / (1.0f + snrq_exp(-gate[i])) * up[i];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < width; i++) out[i] = gelu_tanh(gate[i]) * up[i];
        }
    }
}

snrq_status snrq_block_continue(const snrq_block *b, int step, const snrq_layout *layout,
                                float *const *y, float *h, float *const *x, float *carried)
{
    const snrq_config *c = b->config;
    const snrq_step *s = &b->family->step[step];
    int64_t rows = layout->rows;
    for (int u = s->first; u < s->end; u++) snrq_block_add_biases(b, u, rows, y[u - s->first]);
    switch (s->kind) {
    case SNRQ_STEP_ATTENTION:
        return attention(b, layout, y[0], x[0]);
    case SNRQ_STEP_LATENTS:
        snrq_block_split_latents(b, rows, y[0], x, carried);
        return SNRQ_OK;
    case SNRQ_STEP_LATENT_ATTENTION:
        return latent_attention(b, layout, y, carried, x[0]);
    case SNRQ_STEP_ATTENTION_OUT:
        snrq_block_add_residual(b, SNRQ_AFTER_ATTENTION_NORM, rows, y[0], h);
        snrq_block_normalize(b, SNRQ_MLP_NORM, rows, h, x[0]);
        return SNRQ_OK;
    case SNRQ_STEP_GATED_ACTIVATION:
        snrq_gated_activation(c->activation, rows, c->intermediate, y[0], x[0]);
        return SNRQ_OK;
    case SNRQ_STEP_MLP_OUT:
        snrq_block_add_residual(b, SNRQ_AFTER_MLP_NORM, rows, y[0], h);
        return SNRQ_OK;
    case SNRQ_STEP_EXPERTS_ACTIVATION:
    case SNRQ_STEP_EXPERTS_OUT:
        break;
    }
    return snrq_fail(SNRQ_INTERNAL, "block: no step of kind %d", (int)s->kind);
}

static snrq_status dense_step(const snrq_block *b, int s, const snrq_layout *layout, float *h,
                              snrq_unit_arrays *x, snrq_unit_arrays *y, float *carried)
{
    const snrq_family *f = b->family;
    const snrq_step *step = &f->step[s];
    snrq_unit_arrays_lay(f, s, layout->rows, y);
    for (int u = step->first; u < step->end; u++)
        SNRQ_TRY(
            snrq_block_apply(b, u, layout->rows, x->of[u - step->first], y->of[u - step->first]));
    if (s + 1 < f->steps) snrq_unit_arrays_lay(f, s + 1, layout->rows, x);
    return snrq_block_continue(b, s, layout, y->of, h, x->of, carried);
}

snrq_status snrq_block_forward(const snrq_block *b, const snrq_layout *layout, float *h,
                               snrq_unit_arrays *x, snrq_unit_arrays *y)
{
    const snrq_family *f = b->family;
    int64_t rows = layout->rows;
    float *carried = NULL;
    SNRQ_TRY(snrq_allocate_scratch((size_t)(rows * f->carried), sizeof *carried,
                                   "parts of keys that turn", &carried));
    snrq_status status = SNRQ_OK;
    snrq_unit_arrays_lay(f, 0, rows, x);
    snrq_block_begin(b, rows, h, x->of);
    for (int s = 0; status == SNRQ_OK && s < f->steps; s++) {
        if (!snrq_step_is_routed(f, s))
            status = dense_step(b, s, layout, h, x, y, carried);
        else if (f->step[s].kind == SNRQ_STEP_EXPERTS_ACTIVATION)
            status = snrq_experts_forward(b, s, rows, x->of[0], h);
    }
    free(carried);
    return status;
}
