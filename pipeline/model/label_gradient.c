/* Drawn labels and their gradient; see label_gradient.h. */
#include "pipeline/model/label_gradient.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/model/exponential.h"
#include "pipeline/model/philox.h"

enum { MOST_ROWS = 1024, LEAST_ROWS = 96 };
static const int64_t bytes_of_logits = (int64_t)128 << 20;

static int64_t rows_of(const snrq_config *c)
{
    int64_t rows = bytes_of_logits / (c->vocabulary * (int64_t)sizeof(float));
    return rows < LEAST_ROWS ? LEAST_ROWS : rows > MOST_ROWS ? MOST_ROWS : rows;
}

double snrq_label_head_bytes(const snrq_config *c)
{
    return (double)sizeof(float) * (double)rows_of(c) * (double)(c->hidden + c->vocabulary);
}

snrq_status snrq_label_head_load(const snrq_context *context, const snrq_model *model,
                                 snrq_label_head *out)
{
    const snrq_config *c = &model->config;
    *out = (snrq_label_head){.config = c, .rows = rows_of(c)};
    SNRQ_TRY(snrq_model_load_head(context, model, &out->table));
    snrq_status status = snrq_model_final_norm(model, &out->norm);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)(out->rows * c->hidden), sizeof(float),
                                       "hidden states", &out->normed);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)(out->rows * c->vocabulary), sizeof(float), "logits",
                                       &out->logits);
    return snrq_agree(context, status);
}

void snrq_label_head_free(snrq_label_head *h)
{
    snrq_table_free(&h->table);
    free(h->norm);
    free(h->normed);
    free(h->logits);
    *h = (snrq_label_head){0};
}

/* Outputs of the head become logits; *largest of them, and the sum of exp(logit - largest). */
static double make_logits(const snrq_config *c, float *z, float *largest)
{
    const float scale = (float)c->logit_scale, cap = (float)c->logit_cap;
    double sum = 0.0;
    *largest = -INFINITY;
    for (int64_t i = 0; i < c->vocabulary; i++) {
        z[i] = cap > 0.0f ? cap * snrq_tanh(scale * z[i] / cap) : scale * z[i];
        *largest = z[i] > *largest ? z[i] : *largest;
    }
    for (int64_t i = 0; i < c->vocabulary; i++) sum += (double)snrq_exp(z[i] - *largest);
    return sum;
}

/* What the gradient of a logit is multiplied by to be that of the head's output. */
static float slope_of(const snrq_config *c, float logit)
{
    const float cap = (float)c->logit_cap, capped = cap > 0.0f ? logit / cap : 0.0f;
    return (float)c->logit_scale * (1.0f - capped * capped);
}

/* One row of outputs of the head becomes its gradient. Returns -log p of the label. */
static double draw(const snrq_config *c, double uniform, float *z)
{
    float largest;
    int64_t label = -1;
    double loss = 0.0, cumulative = 0.0, sum = make_logits(c, z, &largest);
    const float part = (float)(1.0 / sum);
    for (int64_t i = 0; i < c->vocabulary; i++) {
        float e = snrq_exp(z[i] - largest), g = part * e;
        cumulative += (double)e;
        if (label < 0 && (cumulative > uniform * sum || i + 1 == c->vocabulary)) {
            label = i;
            loss = log(sum) - (double)(z[i] - largest);
            g -= 1.0f;
        }
        z[i] = slope_of(c, z[i]) * g;
    }
    return loss;
}

/* One row of outputs of the head becomes the gradient of KL, which is returned; full: those of the
 * full-precision model. */
static double compare(const snrq_config *c, float *full, float *z)
{
    float full_largest, largest;
    double full_sum = make_logits(c, full, &full_largest), sum = make_logits(c, z, &largest);
    double kl = 0.0, apart = log(sum) + (double)largest - log(full_sum) - (double)full_largest;
    const float full_part = (float)(1.0 / full_sum), part = (float)(1.0 / sum);
    for (int64_t i = 0; i < c->vocabulary; i++) {
        float q = full_part * snrq_exp(full[i] - full_largest);
        float p = part * snrq_exp(z[i] - largest);
        kl += (double)q * ((double)full[i] - (double)z[i] + apart);
        z[i] = slope_of(c, z[i]) * (p - q);
    }
    return kl;
}

/* Positions [at, at + rows) of a sequence. */
static snrq_status gradient_of_rows(snrq_label_head *head, uint64_t seed, int64_t sequence,
                                    int64_t at, int64_t rows, float *h, double *loss)
{
    const snrq_config *c = head->config;
    double losses[MOST_ROWS];
    snrq_rms_norm(h, head->norm, c->rms_norm_eps, rows, c->hidden, head->normed);
    SNRQ_TRY(
        snrq_linear_apply(&head->table.weight, 1, head->normed, rows, head->logits, c->vocabulary));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        double uniform = snrq_philox_uniform(seed, (uint64_t)sequence, (uint64_t)(at + r));
        losses[r] = draw(c, uniform, head->logits + r * c->vocabulary);
    }
    for (int64_t r = 0; r < rows; r++) *loss += losses[r];
    SNRQ_TRY(snrq_linear_backward(&head->table.weight, 1, head->logits, rows, c->vocabulary,
                                  head->normed));
    snrq_rms_norm_backward(h, head->norm, c->rms_norm_eps, rows, c->hidden, head->normed, h);
    return SNRQ_OK;
}

snrq_status snrq_label_gradient(snrq_label_head *head, uint64_t seed, int64_t sequence,
                                int64_t tokens, float *h, double *loss)
{
    *loss = 0.0;
    for (int64_t at = 0; at < tokens; at += head->rows) {
        int64_t rows = tokens - at < head->rows ? tokens - at : head->rows;
        SNRQ_TRY(
            gradient_of_rows(head, seed, sequence, at, rows, h + at * head->config->hidden, loss));
    }
    return SNRQ_OK;
}

/* Room of snrq_kl_gradient() beside the head. */
typedef struct kl_room {
    float *outputs;  /* [rows, vocabulary] of the full-precision model */
    float *g_normed; /* [tokens, hidden] the gradient of what the norm gives; NULL: not wanted */
} kl_room;

/* `rows` positions. */
static snrq_status compare_rows(snrq_label_head *head, const float *full_norm, int64_t rows,
                                const float *full, const float *h, const kl_room *room, double *kl)
{
    const snrq_config *c = head->config;
    const snrq_weight *weight = &head->table.weight;
    double each[MOST_ROWS];
    snrq_rms_norm(full, full_norm, c->rms_norm_eps, rows, c->hidden, head->normed);
    SNRQ_TRY(snrq_linear_apply(weight, 1, head->normed, rows, room->outputs, c->vocabulary));
    snrq_rms_norm(h, head->norm, c->rms_norm_eps, rows, c->hidden, head->normed);
    SNRQ_TRY(snrq_linear_apply(weight, 1, head->normed, rows, head->logits, c->vocabulary));
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        each[r] = compare(c, room->outputs + r * c->vocabulary, head->logits + r * c->vocabulary);
    for (int64_t r = 0; r < rows; r++) *kl += each[r];
    if (room->g_normed == NULL) return SNRQ_OK;
    return snrq_linear_backward(weight, 1, head->logits, rows, c->vocabulary, room->g_normed);
}

/* All positions of a sequence, some at a time. */
static snrq_status compare_sequence(snrq_label_head *head, const float *full_norm, int64_t tokens,
                                    const float *full, const float *h, kl_room room, double *kl)
{
    const int64_t hidden = head->config->hidden;
    *kl = 0.0;
    for (int64_t at = 0; at < tokens; at += head->rows) {
        int64_t rows = tokens - at < head->rows ? tokens - at : head->rows;
        SNRQ_TRY(
            compare_rows(head, full_norm, rows, full + at * hidden, h + at * hidden, &room, kl));
        if (room.g_normed != NULL) room.g_normed += rows * hidden;
    }
    return SNRQ_OK;
}

snrq_status snrq_kl(snrq_label_head *head, const float *full_norm, int64_t tokens,
                    const float *full, const float *h, double *kl)
{
    kl_room room = {0};
    SNRQ_TRY(snrq_allocate_scratch((size_t)(head->rows * head->config->vocabulary), sizeof(float),
                                   "logits", &room.outputs));
    snrq_status status = compare_sequence(head, full_norm, tokens, full, h, room, kl);
    free(room.outputs);
    return status;
}

snrq_status snrq_kl_gradient(snrq_label_head *head, const float *full_norm, int64_t tokens,
                             const float *full, float *h, double *kl, snrq_fixed *norm)
{
    const snrq_config *c = head->config;
    const int64_t whole[] = {0, tokens};
    kl_room room = {0};
    snrq_status status = snrq_allocate_scratch((size_t)(head->rows * c->vocabulary), sizeof(float),
                                               "logits", &room.outputs);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)(tokens * c->hidden), sizeof(float), "gradients",
                                       &room.g_normed);
    if (status == SNRQ_OK) status = compare_sequence(head, full_norm, tokens, full, h, room, kl);
    const snrq_normed_rows rows = {.count = c->hidden,
                                   .heads = 1,
                                   .h_stride = c->hidden,
                                   .g_stride = c->hidden,
                                   .h = h,
                                   .g = room.g_normed,
                                   .eps = c->rms_norm_eps};
    if (status == SNRQ_OK) status = snrq_norm_gradient_add(&rows, 1, whole, "the last norm", norm);
    if (status == SNRQ_OK)
        snrq_rms_norm_backward(h, head->norm, c->rms_norm_eps, tokens, c->hidden, room.g_normed, h);
    free(room.outputs);
    free(room.g_normed);
    return status;
}
