/* From hidden states to probabilities; see head.h.
 *
 * KL(reference || model), with logits r and l, largest ones m_r and m_l and sums s_r and s_l of
 * exp(r - m_r) and exp(l - m_l):
 *
 *     sum p_r (log p_r - log p_l) = sum exp(r - m_r) (r - l) / s_r - (m_r + log s_r) + m_l + log
 * s_l
 */
#include "pipeline/evaluate/head.h"

#include <math.h>
#include <stdlib.h>

#include "pipeline/model/exponential.h"

enum { TILE = 1024 }; /* tokens of the vocabulary: logits of a tile stay in the near caches */

/* What is known of a row after some tiles. */
typedef struct row_state {
    float largest;
    double sum;      /* of exp(logit - largest) */
    int64_t top;     /* token of the largest */
    double weighted; /* of the reference: sum of exp(logit - largest) (logit - the model's) */
} row_state;

snrq_status snrq_head_load(const snrq_context *context, const snrq_model *model, snrq_head *out)
{
    const snrq_config *c = &model->config;
    size_t floats = (size_t)(SNRQ_HEAD_ROWS * c->hidden);
    *out = (snrq_head){.config = c};
    SNRQ_TRY(snrq_model_load_head(context, model, &out->table));
    snrq_status status = snrq_model_final_norm(model, &out->norm);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch(floats, sizeof(float), "hidden states", &out->hidden);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch(floats, sizeof(float), "hidden states", &out->normed);
    if (status == SNRQ_OK)
        status = snrq_allocate_scratch((size_t)SNRQ_HEAD_ROWS * TILE, sizeof(float), "logits",
                                       &out->logits);
    return snrq_agree(context, status);
}

void snrq_head_free(snrq_head *h)
{
    snrq_table_free(&h->table);
    free(h->norm);
    free(h->hidden);
    free(h->normed);
    free(h->logits);
    *h = (snrq_head){0};
}

double snrq_head_bytes(const snrq_config *c)
{
    return (double)sizeof(float) * SNRQ_HEAD_ROWS * (double)(2 * c->hidden + TILE);
}

/* Scales logits and caps them, where the model does. */
static void scale_logits(const snrq_config *c, int64_t count, float *logits)
{
    const float scale = (float)c->logit_scale, cap = (float)c->logit_cap;
    if (scale != 1.0f) {
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < count; i++) logits[i] *= scale;
    }
    if (cap > 0.0f) {
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < count; i++) logits[i] = cap * snrq_tanh(logits[i] / cap);
    }
}

/* logits [rows, TILE] of the tile of tokens from `first` on. */
static snrq_status tile_logits(snrq_head *h, int64_t rows, int64_t first, int64_t count)
{
    const snrq_weight *all = &h->table.weight;
    snrq_weight tile = *all;
    tile.rows = count;
    tile.dense += (size_t)(first * all->columns) * snrq_dtype_size(all->dtype);
    SNRQ_TRY(snrq_linear_apply(&tile, 1, h->normed, rows, h->logits, TILE));
    scale_logits(h->config, rows * TILE, h->logits);
    return SNRQ_OK;
}

/* Takes a tile into account. */
static void add_tile(const float *logits, int64_t first, int64_t count, row_state *state)
{
    float tile_largest = logits[0];
    double sum = 0.0;
#pragma omp simd reduction(max : tile_largest)
    for (int64_t i = 0; i < count; i++)
        tile_largest = logits[i] > tile_largest ? logits[i] : tile_largest;
    if (first == 0 || tile_largest > state->largest) {
        double scale = first == 0 ? 0.0 : exp((double)state->largest - (double)tile_largest);
        state->sum *= scale;
        state->weighted *= scale;
        state->largest = tile_largest;
        for (int64_t i = 0; i < count; i++)
            if (logits[i] == tile_largest) {
                state->top = first + i;
                break;
            }
    }
    float largest = state->largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += (double)snrq_exp(logits[i] - largest);
    state->sum += sum;
}

/* Of the reference, once its tile is taken into account. */
static void add_weighted(const float *reference, const float *logits, int64_t count,
                         row_state *state)
{
    float largest = state->largest;
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++)
        sum +=
            (double)snrq_exp(reference[i] - largest) * ((double)reference[i] - (double)logits[i]);
    state->weighted += sum;
}

static double normalizer(const row_state *s)
{
    return (double)s->largest + log(s->sum);
}

/* A pass over the vocabulary: states of the rows, and the logits of the targets as `logprob`. */
static snrq_status pass(snrq_head *h, snrq_head *reference, int64_t rows, snrq_head_target *target,
                        int64_t targets, row_state *state, row_state *of_reference)
{
    int64_t vocabulary = h->config->vocabulary;
    for (int64_t first = 0; first < vocabulary; first += TILE) {
        int64_t count = vocabulary - first < TILE ? vocabulary - first : TILE;
        SNRQ_TRY(tile_logits(h, rows, first, count));
        if (reference != NULL) SNRQ_TRY(tile_logits(reference, rows, first, count));
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            add_tile(h->logits + r * TILE, first, count, &state[r]);
            if (reference == NULL) continue;
            add_tile(reference->logits + r * TILE, first, count, &of_reference[r]);
            add_weighted(reference->logits + r * TILE, h->logits + r * TILE, count,
                         &of_reference[r]);
        }
        for (int64_t t = 0; t < targets; t++)
            if (target[t].id >= first && target[t].id < first + count)
                target[t].logprob = (double)h->logits[target[t].row * TILE + target[t].id - first];
    }
    return SNRQ_OK;
}

static void norm_rows(snrq_head *h, int64_t rows)
{
    snrq_rms_norm(h->hidden, h->norm, h->config->rms_norm_eps, rows, h->config->hidden, h->normed);
}

snrq_status snrq_head_apply(snrq_head *head, snrq_head *reference, int64_t rows,
                            snrq_head_target *target, int64_t targets,
                            snrq_head_comparison *comparison)
{
    row_state *state;
    SNRQ_TRY(snrq_allocate(2 * (size_t)rows, sizeof *state, "sums of rows", &state));
    row_state *of_reference = state + rows;
    norm_rows(head, rows);
    if (reference != NULL) norm_rows(reference, rows);
    snrq_status status = pass(head, reference, rows, target, targets, state, of_reference);
    for (int64_t t = 0; status == SNRQ_OK && t < targets; t++) {
        target[t].logprob -= normalizer(&state[target[t].row]);
        target[t].first = state[target[t].row].top == target[t].id;
    }
    for (int64_t r = 0; status == SNRQ_OK && reference != NULL && r < rows; r++)
        comparison[r] =
            (snrq_head_comparison){.kl = of_reference[r].weighted / of_reference[r].sum -
                                         normalizer(&of_reference[r]) + normalizer(&state[r]),
                                   .same_first = of_reference[r].top == state[r].top};
    free(state);
    return status;
}
