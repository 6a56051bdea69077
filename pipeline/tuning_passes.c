/* Sequences through a model that is tuned; see tuning_passes.h. */
#include "pipeline/tuning_passes.h"

#include <stdlib.h>
#include <string.h>

#include "pipeline/model/block_backward.h"
#include "pipeline/phase.h"
#include "pipeline/sensitivity_cost.h"

static const int64_t bytes_of_inputs = (int64_t)1 << 30;

snrq_range snrq_passes_fitted(const snrq_windows *w)
{
    return (snrq_range){0, w->count - w->held_out - w->first_tokens};
}

snrq_range snrq_passes_held_out(const snrq_windows *w)
{
    return (snrq_range){w->count - w->held_out, w->count};
}

int64_t snrq_passes_at_a_time(const snrq_model *m, int64_t own, int64_t length)
{
    return snrq_sensitivity_at_a_time(m, own, length, bytes_of_inputs);
}

static snrq_range share_of(const snrq_context *c, snrq_range all)
{
    snrq_range mine = snrq_share(all.end - all.begin, 1, c->size, c->rank);
    return (snrq_range){all.begin + mine.begin, all.begin + mine.end};
}

static int64_t length_of(snrq_range range)
{
    return range.end - range.begin;
}

/* Numbers of the residual stream of a sequence. */
static int64_t sequence_floats(const snrq_passes *p)
{
    return p->windows->length * p->model->config.hidden;
}

static float *inputs_of(const snrq_passes *p, int64_t layer)
{
    return p->inputs + layer * p->at_a_time * sequence_floats(p);
}

/* The full-precision model's last hidden states of a sequence. */
static float *full_of(const snrq_passes *p, int64_t sequence)
{
    int64_t at = sequence >= p->held_out.begin ? length_of(p->fitted) + sequence - p->held_out.begin
                                               : sequence - p->fitted.begin;
    return p->full + at * sequence_floats(p);
}

static void embed(const snrq_passes *p, int64_t sequence, float *h)
{
    const int64_t tokens = p->windows->length, hidden = p->model->config.hidden;
    const int32_t *ids = p->windows->ids + sequence * tokens;
    for (int64_t i = 0; i < tokens; i++)
        snrq_embed_token(&p->embedding.weight, p->model->config.embedding_scale, ids[i],
                         h + i * hidden);
}

/* ---- before ---- */

static snrq_status allocate_all(snrq_passes *p)
{
    int64_t own = length_of(p->fitted) + length_of(p->held_out);
    p->at_a_time = snrq_passes_at_a_time(p->model, own, p->windows->length);
    size_t inputs = (size_t)((p->model->config.layers + 1) * p->at_a_time * sequence_floats(p));
    SNRQ_TRY(snrq_allocate_scratch((size_t)(own * sequence_floats(p)), sizeof *p->full,
                                   "hidden states", &p->full));
    SNRQ_TRY(snrq_model_final_norm(p->model, &p->full_norm));
    return snrq_allocate_scratch(inputs, sizeof *p->inputs, "inputs of blocks", &p->inputs);
}

static snrq_status run_full_model(snrq_passes *p, const snrq_ropes *ropes)
{
    int64_t own = length_of(p->fitted) + length_of(p->held_out);
    for (int64_t s = p->fitted.begin; s < p->fitted.end; s++) embed(p, s, full_of(p, s));
    for (int64_t s = p->held_out.begin; s < p->held_out.end; s++) embed(p, s, full_of(p, s));
    for (int64_t l = 0; l < p->model->config.layers; l++) {
        snrq_loaded_block block = {0};
        SNRQ_TRY(snrq_watch_check(p->context, p->watch));
        snrq_watch_enter(p->watch, SNRQ_PHASE_TUNE);
        snrq_status status = snrq_model_load_block(p->context, p->model, l, ropes, &block);
        if (status == SNRQ_OK)
            status = snrq_agree(
                p->context, snrq_sequences_forward(&block.block, own, p->windows->length, p->full));
        snrq_loaded_block_free(&block);
        SNRQ_TRY(status);
    }
    return SNRQ_OK;
}

snrq_status snrq_passes_create(const snrq_context *c, const snrq_model *model,
                               const snrq_windows *windows, const snrq_watch *watch,
                               const snrq_ropes *ropes, snrq_passes *out)
{
    *out = (snrq_passes){.context = c,
                         .model = model,
                         .windows = windows,
                         .watch = watch,
                         .fitted = share_of(c, snrq_passes_fitted(windows)),
                         .held_out = share_of(c, snrq_passes_held_out(windows))};
    SNRQ_TRY(snrq_agree(c, allocate_all(out)));
    SNRQ_TRY(snrq_model_load_embedding(c, model, &out->embedding));
    return run_full_model(out, ropes);
}

void snrq_passes_free(snrq_passes *p)
{
    snrq_table_free(&p->embedding);
    free(p->full);
    free(p->full_norm);
    free(p->inputs);
    *p = (snrq_passes){0};
}

/* ---- passes ---- */

/* Through all blocks; inputs of each are kept if they are needed again. Returns what comes out. */
static snrq_status forward(const snrq_passes *p, const snrq_tuned_model *t, int64_t count,
                           bool keeps, float **out)
{
    *out = inputs_of(p, 0);
    for (int64_t l = 0; l < t->blocks; l++) {
        float *next = keeps ? inputs_of(p, l + 1) : *out;
        if (keeps) memcpy(next, *out, (size_t)(count * sequence_floats(p)) * sizeof *next);
        *out = next;
        snrq_watch_enter(p->watch, SNRQ_PHASE_TUNE);
        SNRQ_TRY(snrq_sequences_forward(&t->block[l].block, count, p->windows->length, *out));
    }
    return SNRQ_OK;
}

static snrq_status backward(const snrq_passes *p, snrq_tuned_model *t, int64_t count, float *g)
{
    for (int64_t l = t->blocks - 1; l >= 0; l--) {
        const snrq_gradient_sums sums = {.parameters = &t->gradient[l]};
        snrq_watch_enter(p->watch, SNRQ_PHASE_TUNE);
        snrq_status status = snrq_block_backward(&t->block[l].block, count, p->windows->length,
                                                 inputs_of(p, l), g, &sums);
        if (status == SNRQ_BAD_DATA)
            return snrq_fail(status, "%s: model.layers.%lld.%s", p->model->path, (long long)l,
                             snrq_error_message());
        SNRQ_TRY(status);
    }
    return SNRQ_OK;
}

/* At most at_a_time sequences. */
static snrq_status run_some(const snrq_passes *p, snrq_tuned_model *t, const int64_t *list,
                            int64_t count, bool learns, double *kl)
{
    const int64_t tokens = p->windows->length;
    float *h;
    for (int64_t i = 0; i < count; i++) embed(p, list[i], inputs_of(p, 0) + i * sequence_floats(p));
    SNRQ_TRY(forward(p, t, count, learns, &h));
    for (int64_t i = 0; i < count; i++) {
        const float *full = full_of(p, list[i]);
        snrq_watch_enter(p->watch, SNRQ_PHASE_TUNE);
        float *own = h + i * sequence_floats(p);
        double *to = &kl[list[i]];
        if (learns)
            SNRQ_TRY(
                snrq_kl_gradient(&t->head, p->full_norm, tokens, full, own, to, t->norm_gradient));
        else
            SNRQ_TRY(snrq_kl(&t->head, p->full_norm, tokens, full, own, to));
    }
    return learns ? backward(p, t, count, h) : SNRQ_OK;
}

snrq_status snrq_passes_run(const snrq_passes *p, snrq_tuned_model *t, const int64_t *list,
                            int64_t count, bool learns, double *kl)
{
    for (int64_t at = 0; at < count; at += p->at_a_time) {
        int64_t left = count - at;
        SNRQ_TRY(run_some(p, t, list + at, left < p->at_a_time ? left : p->at_a_time, learns, kl));
    }
    return SNRQ_OK;
}
