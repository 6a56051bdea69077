/* Evaluation; see evaluate.h. */
#include "pipeline/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/npy.h"
#include "io/standard_streams.h"
#include "mpi/log.h"
#include "pipeline/model/exponential.h"
#include "pipeline/model/findings.h"
#include "pipeline/model/stream.h"
#include "pipeline/windows.h"

/* Positions whose logits are in memory at a time. */
enum { CHUNK_TOKENS = 128 };

/* A model on its way through the evaluation. */
typedef struct subject {
    snrq_model *model;
    snrq_stream stream;
    snrq_rope rope;
    snrq_table head;
    float *final_norm;
    float *normed; /* [CHUNK_TOKENS, hidden] */
    float *logits; /* [CHUNK_TOKENS, vocabulary] */
} subject;

typedef struct evaluation {
    const snrq_context *context;
    const snrq_options *options;
    snrq_windows windows;
    snrq_range mine;
    subject model, reference;
    bool compare;
    double *loss, *kl, *top1; /* [sequences of all ranks] sums per sequence */
    double *logprobs;         /* [sequences, length - 1] or NULL */
    snrq_user_output *out;    /* of rank 0: for logprobs, or NULL */
} evaluation;

static snrq_status start_subject(evaluation *e, subject *s)
{
    snrq_table embedding;
    SNRQ_TRY(snrq_model_load_embedding(e->context, s->model, &embedding));
    snrq_status status =
        snrq_stream_create(e->mine, e->windows.length, s->model->config.hidden, &s->stream);
    if (status == SNRQ_OK) snrq_stream_embed(&s->stream, &embedding.weight, &e->windows);
    if (status == SNRQ_OK)
        status = snrq_rope_create(&s->model->config, e->windows.length, &s->rope);
    status = snrq_agree(e->context, status);
    snrq_table_free(&embedding);
    return status;
}

static snrq_status forward_subject(evaluation *e, subject *s, const char *what)
{
    const snrq_context *c = e->context;
    for (int64_t layer = 0; layer < s->model->config.layers; layer++) {
        snrq_loaded_block block = {0};
        snrq_status status = snrq_model_load_block(c, s->model, layer, &s->rope, &block);
        if (status == SNRQ_OK)
            status = snrq_agree(c, snrq_stream_forward(&s->stream, &block.block));
        snrq_loaded_block_free(&block);
        SNRQ_TRY(status);
        if (!e->options->json)
            snrq_note(c, "%s: block %lld/%lld done", what, (long long)layer + 1,
                      (long long)s->model->config.layers);
    }
    return SNRQ_OK;
}

static snrq_status load_head(evaluation *e, subject *s)
{
    const snrq_config *c = &s->model->config;
    SNRQ_TRY(snrq_model_load_head(e->context, s->model, &s->head));
    snrq_status status = snrq_model_final_norm(s->model, &s->final_norm);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)(CHUNK_TOKENS * c->hidden), sizeof(float),
                               "last activations", &s->normed);
    if (status == SNRQ_OK)
        status = snrq_allocate((size_t)(CHUNK_TOKENS * c->vocabulary), sizeof(float), "logits",
                               &s->logits);
    return snrq_agree(e->context, status);
}

static void free_subject(subject *s)
{
    snrq_table_free(&s->head);
    snrq_stream_free(&s->stream);
    snrq_rope_free(&s->rope);
    free(s->final_norm);
    free(s->normed);
    free(s->logits);
    snrq_model_close(&s->model);
}

/* Logits of `count` positions of local sequence `sequence`, from position `first`. */
static snrq_status compute_logits(subject *s, int64_t sequence, int64_t first, int64_t count)
{
    const snrq_config *c = &s->model->config;
    const float *h = s->stream.h + (sequence * s->stream.tokens + first) * c->hidden;
    snrq_rms_norm(h, s->final_norm, c->rms_norm_eps, count, c->hidden, s->normed);
    return snrq_linear_apply(&s->head.weight, 1, s->normed, count, s->logits, c->vocabulary);
}

/* log sum exp of a row, and where its largest element is. */
static double normalizer(const float *logits, int64_t count, int64_t *top)
{
    double sum = 0.0;
    *top = 0;
    for (int64_t i = 1; i < count; i++)
        if (logits[i] > logits[*top]) *top = i;
    float most = logits[*top];
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += (double)snrq_exp(logits[i] - most);
    return (double)most + log(sum);
}

/* KL(reference || model) of one position, in nats. */
static double divergence(const float *reference, double reference_norm, const float *logits,
                         double norm, int64_t count)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        double p = (double)reference[i] - reference_norm;
        sum += (double)snrq_exp((float)p) * (p - ((double)logits[i] - norm));
    }
    return sum;
}

/* Figures of one scored position. */
typedef struct score {
    double logprob, kl, top1;
} score;

static score score_position(const evaluation *e, int64_t row, int32_t target)
{
    int64_t v = e->model.model->config.vocabulary, top, reference_top;
    const float *logits = e->model.logits + row * v;
    double norm = normalizer(logits, v, &top);
    score s = {.logprob = (double)logits[target] - norm};
    if (e->compare) {
        const float *reference = e->reference.logits + row * v;
        double reference_norm = normalizer(reference, v, &reference_top);
        s.kl = divergence(reference, reference_norm, logits, norm, v);
        s.top1 = top == reference_top;
    }
    return s;
}

static snrq_status score_sequence(evaluation *e, int64_t local)
{
    int64_t length = e->windows.length, sequence = e->mine.begin + local;
    const int32_t *ids = e->windows.ids + sequence * length;
    score scores[CHUNK_TOKENS];
    for (int64_t first = 0; first < length - 1; first += CHUNK_TOKENS) {
        int64_t count = length - 1 - first < CHUNK_TOKENS ? length - 1 - first : CHUNK_TOKENS;
        SNRQ_TRY(compute_logits(&e->model, local, first, count));
        if (e->compare) SNRQ_TRY(compute_logits(&e->reference, local, first, count));
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < count; i++) scores[i] = score_position(e, i, ids[first + i + 1]);
        for (int64_t i = 0; i < count; i++) {
            e->loss[sequence] -= scores[i].logprob;
            e->kl[sequence] += scores[i].kl;
            e->top1[sequence] += scores[i].top1;
            if (e->logprobs != NULL)
                e->logprobs[sequence * (length - 1) + first + i] = scores[i].logprob;
        }
    }
    return SNRQ_OK;
}

static snrq_status allocate_scores(evaluation *e)
{
    size_t sequences = (size_t)e->windows.count;
    SNRQ_TRY(snrq_allocate(sequences, sizeof(double), "losses", &e->loss));
    SNRQ_TRY(snrq_allocate(sequences, sizeof(double), "divergences", &e->kl));
    SNRQ_TRY(snrq_allocate(sequences, sizeof(double), "agreements", &e->top1));
    if (e->options->logprobs == NULL) return SNRQ_OK;
    return snrq_allocate(sequences * (size_t)(e->windows.length - 1), sizeof(double),
                         "log-probabilities", &e->logprobs);
}

static snrq_status score_all(evaluation *e)
{
    int64_t sequences = e->windows.count;
    snrq_status status = allocate_scores(e);
    for (int64_t s = 0; status == SNRQ_OK && s < e->mine.end - e->mine.begin; s++)
        status = score_sequence(e, s);
    SNRQ_TRY(snrq_agree(e->context, status));
    SNRQ_TRY(snrq_collect(e->context, e->loss, sequences));
    SNRQ_TRY(snrq_collect(e->context, e->kl, sequences));
    SNRQ_TRY(snrq_collect(e->context, e->top1, sequences));
    if (e->logprobs == NULL) return SNRQ_OK;
    return snrq_collect(e->context, e->logprobs, sequences * (e->windows.length - 1));
}

/* A loss that is no number means weights that are none. Every rank has all losses. */
static snrq_status check_losses(const evaluation *e)
{
    for (int64_t s = 0; s < e->windows.count; s++)
        if (!isfinite(e->loss[s]))
            return snrq_fail(SNRQ_BAD_DATA,
                             "%s: the loss of window %lld is %g: the model's weights or "
                             "activations are not finite",
                             e->model.model->path, (long long)s, e->loss[s]);
    for (int64_t s = 0; s < e->windows.count && e->compare; s++)
        if (!isfinite(e->kl[s]))
            return snrq_fail(
                SNRQ_BAD_DATA,
                "%s: the divergence from it in window %lld is %g: the reference's weights or "
                "activations are not finite",
                e->reference.model->path, (long long)s, e->kl[s]);
    return SNRQ_OK;
}

/* Rank 0 writes the log-probabilities as float32 [windows, length - 1]. */
static snrq_status write_logprobs(const evaluation *e)
{
    int64_t shape[2] = {e->windows.count, e->windows.length - 1}, count = shape[0] * shape[1];
    float *values = NULL;
    if (e->logprobs == NULL) return SNRQ_OK;
    snrq_status status = SNRQ_OK;
    if (e->context->rank == 0) {
        status = snrq_allocate((size_t)count, sizeof *values, "log-probabilities", &values);
        for (int64_t i = 0; status == SNRQ_OK && i < count; i++) values[i] = (float)e->logprobs[i];
        if (status == SNRQ_OK) status = snrq_npy_write_f32(e->out, values, shape, 2);
        free(values);
    }
    return snrq_agree(e->context, status);
}

static double sum(const double *values, int64_t count)
{
    double total = 0.0;
    for (int64_t i = 0; i < count; i++) total += values[i];
    return total;
}

static snrq_status print_result(const evaluation *e)
{
    int64_t tokens = e->windows.count * (e->windows.length - 1);
    double loss = sum(e->loss, e->windows.count) / (double)tokens;
    double kl = sum(e->kl, e->windows.count) / (double)tokens;
    double agree = sum(e->top1, e->windows.count) / (double)tokens;
    FILE *answers = e->out != NULL ? snrq_user_output_answers(e->out) : stdout;
    if (e->context->rank != 0) return SNRQ_OK;
    if (e->options->json) {
        json_t *result = json_pack("{s:f, s:f, s:I}", "perplexity", exp(loss), "mean_token_loss",
                                   loss, "tokens", (json_int_t)tokens);
        bool good =
            !e->compare || (json_object_set_new(result, "kl", json_real(kl)) == 0 &&
                            json_object_set_new(result, "top1_agreement", json_real(agree)) == 0);
        if (good) return snrq_json_write(answers, result);
        json_decref(result);
        return snrq_fail(SNRQ_INTERNAL, "no memory for the answer");
    }
    fprintf(answers,
            "perplexity       %.6g\nmean token loss  %.6g nats over %lld tokens in %lld windows "
            "of %lld\n",
            exp(loss), loss, (long long)tokens, (long long)e->windows.count,
            (long long)e->windows.length);
    if (e->compare)
        fprintf(answers, "KL to reference  %.6g nats per token\ntop-1 agreement  %.4f\n", kl,
                agree);
    return snrq_print_end(answers);
}

static snrq_status check_pair(const evaluation *e)
{
    const snrq_config *a = &e->model.model->config, *b = &e->reference.model->config;
    if (a->vocabulary == b->vocabulary) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "--reference %s has %lld tokens in its vocabulary, %s has %lld",
                     e->reference.model->path, (long long)b->vocabulary, e->model.model->path,
                     (long long)a->vocabulary);
}

/* Rank 0 tries the file for log-probabilities before anything is computed. */
static snrq_status open_logprobs(evaluation *e)
{
    const snrq_options *o = e->options;
    const char *inputs[SNRQ_MOST_INPUTS];
    snrq_status status = SNRQ_OK;
    if (e->context->rank == 0 && o->logprobs != NULL)
        status =
            snrq_user_output_open(o->logprobs, inputs, snrq_options_inputs(o, inputs), &e->out);
    return snrq_agree(e->context, status);
}

static snrq_status open_model(const evaluation *e, const char *path, snrq_model **out)
{
    const snrq_options *o = e->options;
    SNRQ_TRY(snrq_model_open(e->context, path, out));
    return snrq_model_check(e->context, *out, o->ignore_unused_layers, o->strict);
}

static snrq_status evaluate(evaluation *e)
{
    const snrq_options *o = e->options;
    SNRQ_TRY(open_logprobs(e));
    SNRQ_TRY(open_model(e, o->path, &e->model.model));
    if (e->compare) {
        SNRQ_TRY(open_model(e, o->reference, &e->reference.model));
        SNRQ_TRY(check_pair(e));
    }
    SNRQ_TRY(snrq_command_windows(e->context, o, e->model.model, &e->windows));
    e->mine = snrq_stream_share(e->context, &e->windows);
    SNRQ_TRY(start_subject(e, &e->model));
    if (e->compare) SNRQ_TRY(start_subject(e, &e->reference));
    SNRQ_TRY(forward_subject(e, &e->model, "model"));
    if (e->compare) SNRQ_TRY(forward_subject(e, &e->reference, "reference"));
    SNRQ_TRY(load_head(e, &e->model));
    if (e->compare) SNRQ_TRY(load_head(e, &e->reference));
    SNRQ_TRY(score_all(e));
    SNRQ_TRY(check_losses(e));
    SNRQ_TRY(write_logprobs(e));
    return snrq_agree(e->context, print_result(e));
}

snrq_status snrq_evaluate(const snrq_context *context, const snrq_options *options)
{
    evaluation e = {.context = context, .options = options, .compare = options->reference != NULL};
    snrq_status status = evaluate(&e);
    free_subject(&e.model);
    free_subject(&e.reference);
    snrq_windows_free(&e.windows);
    free(e.loss);
    free(e.kl);
    free(e.top1);
    free(e.logprobs);
    snrq_user_output_close(&e.out);
    return status;
}
