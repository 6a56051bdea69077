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

/* One row of outputs of the head becomes its gradient. Returns -log p of the label. */
static double draw(const snrq_config *c, double uniform, float *z)
{
    const float scale = (float)c->logit_scale, cap = (float)c->logit_cap;
    int64_t label = -1, count = c->vocabulary;
    double loss = 0.0;
    float largest = -INFINITY;
    double sum = 0.0, cumulative = 0.0;
    for (int64_t i = 0; i < count; i++) {
        z[i] = cap > 0.0f ? cap * snrq_tanh(scale * z[i] / cap) : scale * z[i];
        largest = z[i] > largest ? z[i] : largest;
    }
    for (int64_t i = 0; i < count; i++) sum += (double)snrq_exp(z[i] - largest);
    const float part = (float)(1.0 / sum);
    for (int64_t i = 0; i < count; i++) {
        float e = snrq_exp(z[i] - largest), capped = cap > 0.0f ? z[i] / cap : 0.0f, g = part * e;
        cumulative += (double)e;
        if (label < 0 && (cumulative > uniform * sum || i + 1 == count)) {
            label = i;
            loss = log(sum) - (double)(z[i] - largest);
            g -= 1.0f;
        }
        z[i] = scale * (1.0f - capped * capped) * g;
    }
    return loss;
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
