/* The transformer block, backward; see block_backward.h. */
#include "pipeline/model/block_backward.h"

#include <stdlib.h>
#include <string.h>

#include "pipeline/model/attention_backward.h"
#include "pipeline/model/block_parts.h"
#include "pipeline/model/experts_backward.h"
#include "pipeline/model/exponential.h"
#include "pipeline/model/stream.h"

/* What the backward pass needs of the forward pass of a batch, and room to work. */
typedef struct tape {
    const snrq_block *block;
    bool wants_inputs; /* of units, on the way back */
    int64_t sequences, tokens, rows;
    int64_t *first;     /* [sequences + 1] */
    snrq_span *span;    /* [sequences] */
    snrq_layout layout; /* of the spans */
    const float *h;     /* the block's input */
    float *latents;     /* [rows, rows of its unit] of [q_a,kv_a], or empty */
    float *qkv, *heads; /* before and after they were normalized and turned */
    float *attended;    /* outputs of o */
    float *middle;      /* h between attention and MLP */
    float *gate_up;
    float *written; /* outputs of down, where there is a norm behind them */
    float *x;       /* inputs of a unit */
    float *seen;    /* inputs of o, where they are wanted */
    float *y;       /* outputs of a unit, or their gradients */
    float *g_x;     /* gradients of inputs */
    float *carried;
} tape;

/* ---- memory ---- */

/* Rows of the units of a step together. */
static int64_t outputs(const snrq_family *f, int step)
{
    return snrq_step_width(f, step, false);
}

/* The most that a token has of inputs, or outputs, of a step that is not routed. */
static int64_t widest(const snrq_config *c, const snrq_family *f, bool inputs)
{
    int64_t most = inputs ? c->hidden : snrq_attention_width(c);
    for (int s = 0; s < f->steps; s++)
        if (snrq_step_width(f, s, inputs) > most) most = snrq_step_width(f, s, inputs);
    return most > c->hidden ? most : c->hidden;
}

/* Numbers of a token in the arrays of the tape, in their order. */
enum { ARRAYS = 12 };
static void widths_of(const snrq_config *c, const snrq_family *f, bool wants_inputs,
                      int64_t width[ARRAYS])
{
    bool latent = f->step[0].kind == SNRQ_STEP_LATENTS, dense = f->experts == 0;
    const int64_t qkv = snrq_attention_width(c);
    const int64_t all[ARRAYS] = {latent ? outputs(f, 0) : 0,
                                 qkv,
                                 qkv,
                                 c->hidden,
                                 c->hidden,
                                 dense ? 2 * c->intermediate : 0,
                                 dense && f->normed_outputs ? c->hidden : 0,
                                 widest(c, f, true),
                                 widest(c, f, false),
                                 widest(c, f, true),
                                 f->carried,
                                 wants_inputs ? c->heads * c->value_dim : 0};
    memcpy(width, all, sizeof all);
}

int64_t snrq_block_backward_bytes(const snrq_config *c, const snrq_family *f, int64_t rows)
{
    int64_t width[ARRAYS], sum = 0;
    widths_of(c, f, false, width);
    for (int i = 0; i < ARRAYS; i++) sum += width[i];
    return sum * rows * (int64_t)sizeof(float);
}

/* Room for so many sequences. */
static snrq_status start_tape(tape *t, int64_t sequences)
{
    float **const array[ARRAYS] = {&t->latents, &t->qkv,     &t->heads,   &t->attended,
                                   &t->middle,  &t->gate_up, &t->written, &t->x,
                                   &t->y,       &t->g_x,     &t->carried, &t->seen};
    int64_t width[ARRAYS];
    size_t rows = (size_t)(sequences * t->tokens);
    widths_of(t->block->config, t->block->family, t->wants_inputs, width);
    SNRQ_TRY(snrq_allocate((size_t)sequences + 1, sizeof *t->first, "sequences", &t->first));
    SNRQ_TRY(snrq_allocate((size_t)sequences, sizeof *t->span, "spans", &t->span));
    for (int64_t s = 0; s <= sequences; s++) t->first[s] = s * t->tokens;
    snrq_spans_fill(sequences, t->tokens, t->span);
    for (int i = 0; i < ARRAYS; i++)
        SNRQ_TRY(snrq_allocate_scratch(rows * (size_t)width[i], sizeof(float),
                                       "activations of a block", array[i]));
    return SNRQ_OK;
}

/* Those that the tape is used for. */
static void set_sequences(tape *t, int64_t sequences)
{
    t->sequences = sequences;
    t->rows = sequences * t->tokens;
    t->layout = (snrq_layout){t->rows, sequences, t->span};
}

static void free_tape(tape *t)
{
    float *const array[ARRAYS] = {t->latents, t->qkv, t->heads, t->attended, t->middle,  t->gate_up,
                                  t->written, t->x,   t->y,     t->g_x,      t->carried, t->seen};
    for (int i = 0; i < ARRAYS; i++) free(array[i]);
    free(t->span);
    free(t->first);
}

static int unit_of(const tape *t, int step, int k)
{
    return t->block->family->step[step].first + k;
}

static int64_t hidden_of(const tape *t)
{
    return t->block->config->hidden;
}

/* ---- forward, once more ---- */

/* Outputs y of a unit with its biases. */
static snrq_status apply(const tape *t, int unit, const float *x, float *y)
{
    SNRQ_TRY(snrq_block_apply(t->block, unit, t->rows, x, y));
    snrq_block_add_biases(t->block, unit, t->rows, y);
    return SNRQ_OK;
}

/* Where the parts of an array of a step's units begin. */
static void lay(const tape *t, int step, bool inputs, float *data, float *out[2])
{
    const snrq_family *f = t->block->family;
    for (int u = f->step[step].first; u < f->step[step].end; u++) {
        out[u - f->step[step].first] = data;
        data += t->rows * (inputs ? f->unit[u].columns : f->unit[u].rows);
    }
}

/* qkv of latent attention: steps 0 and 1. */
static snrq_status replay_latents(tape *t)
{
    float *x[2] = {NULL}, *y[2] = {NULL};
    const snrq_step *heads = &t->block->family->step[1];
    SNRQ_TRY(apply(t, unit_of(t, 0, 0), t->x, t->latents));
    lay(t, 1, true, t->x, x);
    lay(t, 1, false, t->y, y);
    snrq_block_split_latents(t->block, t->rows, t->latents, x, t->carried);
    for (int k = 0; k < heads->end - heads->first; k++)
        SNRQ_TRY(apply(t, heads->first + k, x[k], y[k]));
    snrq_block_make_heads(t->block, t->rows, y, t->carried, t->qkv);
    return SNRQ_OK;
}

/* Up to what attention adds: attended, middle. `out` is the step of o. */
static snrq_status replay_attention(tape *t, int out)
{
    const snrq_attention_settings settings = snrq_block_attention(t->block);
    size_t stream = (size_t)(t->rows * hidden_of(t)) * sizeof(float);
    snrq_block_begin(t->block, t->rows, t->h, &t->x);
    if (out > 1)
        SNRQ_TRY(replay_latents(t));
    else
        SNRQ_TRY(apply(t, unit_of(t, 0, 0), t->x, t->qkv));
    memcpy(t->heads, t->qkv,
           (size_t)(t->rows * snrq_attention_width(t->block->config)) * sizeof(float));
    SNRQ_TRY(snrq_attention_spans(&settings, t->heads, &t->layout, t->x));
    SNRQ_TRY(apply(t, unit_of(t, out, 0), t->x, t->attended));
    if (t->wants_inputs)
        memcpy(t->seen, t->x,
               (size_t)(t->rows * t->block->config->heads * t->block->config->value_dim) *
                   sizeof(float));
    memcpy(t->middle, t->h, stream);
    memcpy(t->y, t->attended, stream);
    snrq_block_add_residual(t->block, SNRQ_AFTER_ATTENTION_NORM, t->rows, t->y, t->middle);
    return SNRQ_OK;
}

/* What gate and up give, and down where a norm follows. `step` is that of gate and up. */
static snrq_status replay_mlp(tape *t, int step)
{
    const snrq_config *c = t->block->config;
    snrq_block_normalize(t->block, SNRQ_MLP_NORM, t->rows, t->middle, t->x);
    SNRQ_TRY(apply(t, unit_of(t, step, 0), t->x, t->gate_up));
    if (!t->block->family->normed_outputs) return SNRQ_OK;
    snrq_gated_activation(c->activation, t->rows, c->intermediate, t->gate_up, t->x);
    return apply(t, unit_of(t, step + 1, 0), t->x, t->written);
}

/* ---- backward ---- */

/* The gradient of the weight of a norm of the residual stream, from that of what came out. */
static snrq_status add_norm(const tape *t, snrq_vector norm, const float *h, const float *g,
                            const snrq_gradient_sums *sums)
{
    const snrq_normed_rows rows = {.count = hidden_of(t),
                                   .heads = 1,
                                   .h_stride = hidden_of(t),
                                   .g_stride = hidden_of(t),
                                   .h = h,
                                   .g = g,
                                   .eps = t->block->config->rms_norm_eps};
    return snrq_gradient_sums_add_norm(sums, norm, &rows, t->sequences, t->first);
}

/* g_y = the gradient of y where h += y, from that of h. */
static snrq_status backward_residual(const tape *t, snrq_vector norm, const float *y,
                                     const float *g, float *g_y, const snrq_gradient_sums *sums)
{
    const snrq_block *b = t->block;
    const float scale = (float)b->config->residual_scale;
    const int64_t count = t->rows * hidden_of(t);
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) g_y[i] = scale * g[i];
    if (b->vector[norm] == NULL) return SNRQ_OK;
    SNRQ_TRY(add_norm(t, norm, y, g_y, sums));
    snrq_rms_norm_backward(y, b->vector[norm], b->config->rms_norm_eps, t->rows, hidden_of(t), g_y,
                           g_y);
    return SNRQ_OK;
}

/* g += the gradient of h where x = RMSNorm(h), from that of x, which is used up. */
static snrq_status backward_normalize(const tape *t, snrq_vector norm, const float *h, float *g_x,
                                      float *g, const snrq_gradient_sums *sums)
{
    const snrq_block *b = t->block;
    const int64_t count = t->rows * hidden_of(t);
    SNRQ_TRY(add_norm(t, norm, h, g_x, sums));
    if (b->vector[norm] != NULL)
        snrq_rms_norm_backward(h, b->vector[norm], b->config->rms_norm_eps, t->rows, hidden_of(t),
                               g_x, g_x);
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) g[i] += g_x[i];
    return SNRQ_OK;
}

/* g_x of a unit that read x, from g_y. */
static snrq_status backward_unit(const tape *t, int unit, const float *x, const float *g_y,
                                 float *g_x, const snrq_gradient_sums *sums)
{
    const snrq_unit_shape *u = &t->block->family->unit[unit];
    SNRQ_TRY(snrq_gradient_sums_add(sums, unit, t->sequences, t->first, x, g_y));
    return snrq_linear_backward(t->block->module + u->first, u->end - u->first, g_y, t->rows,
                                u->rows, g_x);
}

void snrq_gated_backward(snrq_activation kind, int64_t rows, int64_t width, const float *y,
                         const float *g_out, float *g)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *gate = y + r * 2 * width, *up = gate + width, *out = g_out + r * width;
        float *g_gate = g + r * 2 * width, *g_up = g_gate + width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            float x = gate[i], value, slope;
            if (kind == SNRQ_SILU) {
                float part = 1.0f / (1.0f + snrq_exp(-x));
                value = x * part;
                slope = part * (1.0f + x * (1.0f - part));
            } else { /* x / 2 (1 + tanh(a (x + b x^3))) */
                float part = snrq_tanh(0.7978845608f * (x + 0.044715f * x * x * x));
                value = 0.5f * x * (1.0f + part);
                slope = 0.5f * (1.0f + part) + 0.5f * x * (1.0f - part * part) * 0.7978845608f *
                                                   (1.0f + 3.0f * 0.044715f * x * x);
            }
            g_gate[i] = slope * up[i] * out[i];
            g_up[i] = value * out[i];
        }
    }
}

static snrq_status backward_mlp(tape *t, int step, float *g, const snrq_gradient_sums *sums)
{
    const snrq_config *c = t->block->config;
    SNRQ_TRY(backward_residual(t, SNRQ_AFTER_MLP_NORM, t->written, g, t->y, sums));
    if (t->wants_inputs)
        snrq_gated_activation(c->activation, t->rows, c->intermediate, t->gate_up, t->x);
    SNRQ_TRY(backward_unit(t, unit_of(t, step + 1, 0), t->x, t->y, t->g_x, sums));
    snrq_gated_backward(c->activation, t->rows, c->intermediate, t->gate_up, t->g_x, t->y);
    if (t->wants_inputs) snrq_block_normalize(t->block, SNRQ_MLP_NORM, t->rows, t->middle, t->x);
    SNRQ_TRY(backward_unit(t, unit_of(t, step, 0), t->x, t->y, t->g_x, sums));
    return backward_normalize(t, SNRQ_MLP_NORM, t->middle, t->g_x, g, sums);
}

static snrq_status backward_experts(tape *t, int step, float *g, const snrq_gradient_sums *sums)
{
    snrq_block_normalize(t->block, SNRQ_MLP_NORM, t->rows, t->middle, t->x);
    SNRQ_TRY(snrq_experts_backward(t->block, step, t->sequences, t->first, t->x, g, t->g_x, sums));
    return backward_normalize(t, SNRQ_MLP_NORM, t->middle, t->g_x, g, sums);
}

/* The gradients of what a token's heads were made of: g_q (NULL: g_latent begins with it), g_kv,
 * and what turns of the keys, which is the same for all heads. */
static void unmake_heads(const snrq_config *c, const float *g_qkv, float *g_q, float *g_kv,
                         float *g_turned)
{
    const snrq_latent_config *l = &c->latent;
    int64_t queries = c->heads * c->head_dim;
    const float *key = g_qkv + queries, *value = key + queries;
    memcpy(g_q, g_qkv, (size_t)queries * sizeof *g_q);
    memset(g_turned, 0, (size_t)l->turned * sizeof *g_turned);
    for (int64_t h = 0; h < c->heads; h++) {
        memcpy(g_kv, key, (size_t)l->unturned * sizeof *g_kv);
        memcpy(g_kv + l->unturned, value, (size_t)c->value_dim * sizeof *g_kv);
        for (int64_t i = 0; i < l->turned; i++) g_turned[i] += key[l->unturned + i];
        key += c->head_dim;
        value += c->value_dim;
        g_kv += l->unturned + c->value_dim;
    }
}

/* From the gradient of qkv, in t->y, to that of the outputs of [q_a,kv_a], which replaces it. */
static snrq_status backward_latents(tape *t, const snrq_gradient_sums *sums)
{
    const snrq_block *b = t->block;
    const snrq_config *c = b->config;
    const snrq_latent_config *l = &c->latent;
    const snrq_step *step = &b->family->step[1];
    int64_t heads = c->heads * c->head_dim, queries = l->queries > 0 ? l->queries : heads;
    int64_t kv = c->heads * (l->unturned + c->value_dim), width = queries + l->keys + l->turned;
    float *x[2] = {NULL}, *g_x[2] = {NULL}, *g_y[2] = {NULL}, *g_q, *g_kv;
    lay(t, 1, true, t->x, x);
    lay(t, 1, true, t->g_x, g_x);
    if (t->wants_inputs) snrq_block_split_latents(b, t->rows, t->latents, x, t->carried);
    /* t->qkv and t->heads have been used: the gradients of q_b and kv_b take their room. */
    g_q = t->qkv;
    g_kv = t->heads;
    g_y[0] = l->queries > 0 ? g_q : g_kv;
    g_y[1] = g_kv;
    for (int64_t r = 0; r < t->rows; r++)
        unmake_heads(c, t->y + r * snrq_attention_width(c), g_q + r * heads, g_kv + r * kv,
                     t->carried + r * b->family->carried);
    for (int k = 0; k < step->end - step->first; k++)
        SNRQ_TRY(backward_unit(t, step->first + k, x[k], g_y[k], g_x[k], sums));
    snrq_normed_rows normed = {.count = queries,
                               .heads = 1,
                               .h_stride = width,
                               .g_stride = queries,
                               .h = t->latents,
                               .g = g_x[0],
                               .eps = snrq_latent_norm_eps};
    SNRQ_TRY(
        snrq_gradient_sums_add_norm(sums, SNRQ_QUERY_LATENT_NORM, &normed, t->sequences, t->first));
    normed.count = normed.g_stride = l->keys;
    normed.h = t->latents + queries;
    normed.g = g_x[l->queries > 0];
    SNRQ_TRY(
        snrq_gradient_sums_add_norm(sums, SNRQ_KEY_LATENT_NORM, &normed, t->sequences, t->first));
    for (int64_t r = 0; r < t->rows; r++) {
        const float *y = t->latents + r * width;
        float *g = t->y + r * width;
        if (l->queries > 0)
            snrq_rms_norm_backward_row(y, b->vector[SNRQ_QUERY_LATENT_NORM], snrq_latent_norm_eps,
                                       queries, g_x[0] + r * queries, g);
        else
            memcpy(g, g_q + r * heads, (size_t)heads * sizeof *g);
        snrq_rms_norm_backward_row(y + queries, b->vector[SNRQ_KEY_LATENT_NORM],
                                   snrq_latent_norm_eps, l->keys, g_x[l->queries > 0] + r * l->keys,
                                   g + queries);
        memcpy(g + queries + l->keys, t->carried + r * b->family->carried,
               (size_t)l->turned * sizeof *g);
    }
    return SNRQ_OK;
}

static snrq_status backward_attention(tape *t, int out, float *g, const snrq_gradient_sums *sums)
{
    const snrq_attention_settings settings = snrq_block_attention(t->block);
    SNRQ_TRY(backward_residual(t, SNRQ_AFTER_ATTENTION_NORM, t->attended, g, t->y, sums));
    SNRQ_TRY(backward_unit(t, unit_of(t, out, 0), t->seen, t->y, t->g_x, sums));
    SNRQ_TRY(snrq_attention_backward(&settings, t->qkv, t->heads, t->sequences, t->tokens, t->g_x,
                                     t->y, sums));
    if (out > 1) SNRQ_TRY(backward_latents(t, sums));
    if (t->wants_inputs) snrq_block_begin(t->block, t->rows, t->h, &t->x);
    SNRQ_TRY(backward_unit(t, unit_of(t, 0, 0), t->x, t->y, t->g_x, sums));
    return backward_normalize(t, SNRQ_ATTENTION_NORM, t->h, t->g_x, g, sums);
}

/* The sequences of the tape. */
static snrq_status backward_batch(tape *t, float *g, const snrq_gradient_sums *sums)
{
    const snrq_family *f = t->block->family;
    int out = 0;
    while (f->step[out].kind != SNRQ_STEP_ATTENTION_OUT) out++;
    SNRQ_TRY(replay_attention(t, out));
    if (f->experts > 0) {
        SNRQ_TRY(backward_experts(t, out + 1, g, sums));
    } else {
        SNRQ_TRY(replay_mlp(t, out + 1));
        SNRQ_TRY(backward_mlp(t, out + 1, g, sums));
    }
    return backward_attention(t, out, g, sums);
}

snrq_status snrq_block_backward(const snrq_block *block, int64_t sequences, int64_t tokens,
                                const float *h, float *g, const snrq_gradient_sums *sums)
{
    const int64_t batch = snrq_stream_batch(sequences, tokens);
    tape t = {.block = block, .wants_inputs = sums->parameters != NULL, .tokens = tokens};
    snrq_status status = start_tape(&t, batch);
    for (int64_t s = 0; status == SNRQ_OK && s < sequences; s += batch) {
        int64_t at = s * tokens * block->config->hidden;
        set_sequences(&t, sequences - s < batch ? sequences - s : batch);
        t.h = h + at;
        status = backward_batch(&t, g + at, sums);
    }
    free_tape(&t);
    return status;
}
