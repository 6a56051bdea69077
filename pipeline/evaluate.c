/* Evaluation; see evaluate.h. */
#include "pipeline/evaluate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/reader.h"
#include "io/json.h"
#include "io/npy.h"
#include "io/standard_streams.h"
#include "io/user_output.h"
#include "mpi/collective.h"
#include "mpi/log.h"
#include "pipeline/evaluate/perplexity.h"
#include "pipeline/evaluate/score.h"
#include "pipeline/evaluate/task_run.h"
#include "pipeline/model/findings.h"
#include "pipeline/options/text_options.h"

/* What is asked for, and what came of it. */
typedef struct evaluation {
    const snrq_context *context;
    const snrq_options *options;
    snrq_model *model, *reference; /* owned; reference NULL: nothing to compare with */
    int perplexities;
    snrq_perplexity_order order[SNRQ_MOST_PROTOCOLS];
    snrq_perplexity perplexity[SNRQ_MOST_PROTOCOLS];
    int tasks;
    snrq_task_run task[SNRQ_MOST_TASKS];
    int64_t questions;      /* of all ranks */
    snrq_passages passages; /* of this rank */
    snrq_answers answers;
    double *logprobs;                             /* [windows, length - 1] or NULL */
    snrq_user_output *logprobs_out, *samples_out; /* of rank 0, or NULL */
} evaluation;

/* ---- what is asked ---- */

static snrq_status parse_names(evaluation *e)
{
    const snrq_options *o = e->options;
    const snrq_window_order windows = snrq_evaluation_windows(o);
    const snrq_task *tasks[SNRQ_MOST_TASKS];
    if (o->tasks != NULL) SNRQ_TRY(snrq_tasks_parse(o->tasks, tasks, &e->tasks));
    for (int i = 0; i < e->tasks; i++) e->task[i].task = tasks[i];
    if (o->text != NULL || o->token_file != NULL)
        SNRQ_TRY(snrq_protocols_parse(o->protocol, &windows, e->order, &e->perplexities));
    if (o->logprobs == NULL || (e->perplexities == 1 && e->tasks == 0)) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE,
                     "--logprobs belongs to one protocol alone, found %d protocols and %d tasks",
                     e->perplexities, e->tasks);
}

/* Rank 0 tries the files before anything is computed. */
static snrq_status open_outputs(evaluation *e)
{
    const snrq_options *o = e->options;
    const char *inputs[SNRQ_MOST_INPUTS];
    int count = snrq_options_inputs(o, inputs);
    snrq_status status = SNRQ_OK;
    if (e->context->rank == 0 && o->logprobs != NULL)
        status = snrq_user_output_open(o->logprobs, inputs, count, &e->logprobs_out);
    if (e->context->rank == 0 && status == SNRQ_OK && o->samples != NULL)
        status = snrq_user_output_open(o->samples, inputs, count, &e->samples_out);
    return snrq_agree(e->context, status);
}

static snrq_status open_model(const evaluation *e, const char *path, snrq_model **out)
{
    const snrq_options *o = e->options;
    SNRQ_TRY(snrq_model_open(e->context, path, out));
    return snrq_model_check(e->context, *out, o->ignore_unused_layers, o->strict);
}

static snrq_status open_models(evaluation *e)
{
    SNRQ_TRY(open_model(e, e->options->path, &e->model));
    if (e->options->reference == NULL) return SNRQ_OK;
    SNRQ_TRY(open_model(e, e->options->reference, &e->reference));
    const snrq_config *a = &e->model->config, *b = &e->reference->config;
    if (a->vocabulary == b->vocabulary) return SNRQ_OK;
    return snrq_fail(SNRQ_USAGE, "--reference %s has %lld tokens in its vocabulary, %s has %lld",
                     e->reference->path, (long long)b->vocabulary, e->model->path,
                     (long long)a->vocabulary);
}

/* The windows of this rank become passages: one span and one question each. */
static snrq_status add_windows(evaluation *e, const snrq_windows *w)
{
    snrq_range mine = snrq_share(w->count, 1, e->context->size, e->context->rank);
    for (int64_t i = mine.begin; i < mine.end; i++) {
        const int32_t *ids = w->ids + i * w->length;
        SNRQ_TRY(snrq_passages_begin(&e->passages));
        SNRQ_TRY(snrq_passages_add_span(&e->passages, ids, w->length, 0));
        for (int64_t t = 0; t + 1 < w->length; t++)
            SNRQ_TRY(snrq_passages_add_target(&e->passages, t, ids[t + 1], e->questions + i));
    }
    return SNRQ_OK;
}

static snrq_status ask_perplexities(evaluation *e)
{
    for (int i = 0; i < e->perplexities; i++) {
        snrq_perplexity *p = &e->perplexity[i];
        p->order = &e->order[i];
        p->compared = e->reference != NULL;
        SNRQ_TRY(snrq_windows_make(e->context, &e->order[i].windows, e->model, &p->windows));
        SNRQ_TRY(snrq_agree(e->context, add_windows(e, &p->windows)));
        e->questions += p->windows.count;
    }
    return SNRQ_OK;
}

static snrq_status ask_all_tasks(evaluation *e, const snrq_tokenizer *tokenizer)
{
    const snrq_options *o = e->options;
    const snrq_request_rules rules = {tokenizer, &e->model->config, o->task_bos_off == 0};
    int64_t *load = NULL;
    SNRQ_TRY(snrq_agree(e->context,
                        snrq_allocate((size_t)e->context->size, sizeof *load, "load", &load)));
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < e->tasks && status == SNRQ_OK; i++)
        status = snrq_task_ask(e->context, &rules, o->task_dir, o->limit, load, &e->passages,
                               &e->questions, &e->task[i]);
    free(load);
    return status;
}

static snrq_status ask_tasks(evaluation *e)
{
    snrq_tokenizer *tokenizer = NULL;
    if (e->tasks == 0) return SNRQ_OK;
    snrq_status status = snrq_agree(e->context, snrq_tokenizer_read(e->model->path, &tokenizer));
    if (status == SNRQ_OK) status = ask_all_tasks(e, tokenizer);
    snrq_tokenizer_destroy(&tokenizer);
    return status;
}

/* ---- what is answered ---- */

/* What every rank needs, in the order in which it gets it. */
static void tell_memory(const evaluation *e, const snrq_scorer *scorer)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < e->passages.count; i++)
        if (e->passages.passage[i].longest > longest) longest = e->passages.passage[i].longest;
    if (e->options->json) return;
    snrq_note(e->context, "memory: %.0f MB per rank for activations and logits, beside the weights",
              snrq_score_bytes(scorer, e->passages.ids_used, longest) / 1e6);
}

static snrq_status score(evaluation *e)
{
    const snrq_scorer scorer = {e->context, e->model, e->reference, e->options->json};
    int64_t each = e->options->logprobs != NULL ? e->passages.targets_used : 0;
    SNRQ_TRY(snrq_agree(e->context, snrq_answers_create(e->questions, each, &e->answers)));
    tell_memory(e, &scorer);
    SNRQ_TRY(snrq_score(&scorer, &e->passages, &e->answers));
    SNRQ_TRY(snrq_collect(e->context, e->answers.logprob, e->questions));
    SNRQ_TRY(snrq_collect(e->context, e->answers.first, e->questions));
    if (e->reference == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_collect(e->context, e->answers.kl, e->questions));
    return snrq_collect(e->context, e->answers.same_first, e->questions);
}

/* Answers from `question` on are those of the windows. */
static snrq_status take_perplexity(const evaluation *e, int64_t question, snrq_perplexity *p)
{
    const snrq_answers *a = &e->answers;
    double tokens = (double)(p->windows.length - 1);
    SNRQ_TRY(snrq_perplexity_create(p));
    for (int64_t w = 0; w < p->windows.count; w++) {
        p->loss[w] = -a->logprob[question + w] / tokens;
        p->kl[w] = a->kl[question + w] / tokens;
        p->top1[w] = a->same_first[question + w] / tokens;
    }
    return snrq_perplexity_check(p, e->model->path,
                                 e->reference != NULL ? e->reference->path : NULL);
}

static snrq_status take_answers(evaluation *e)
{
    int64_t question = 0;
    snrq_status status = SNRQ_OK;
    for (int i = 0; i < e->perplexities && status == SNRQ_OK; i++) {
        status = take_perplexity(e, question, &e->perplexity[i]);
        question += e->perplexity[i].windows.count;
    }
    for (int i = 0; i < e->tasks && status == SNRQ_OK; i++)
        status = snrq_task_answer(e->context, &e->answers, e->model->path, &e->task[i]);
    return snrq_agree(e->context, status);
}

/* ---- what is told ---- */

/* Rank 0 writes the log-probabilities of the only evaluation as float32 [windows, length - 1]. */
static snrq_status write_logprobs(evaluation *e)
{
    const snrq_windows *w = &e->perplexity[0].windows;
    int64_t shape[2] = {w->count, w->length - 1}, count = shape[0] * shape[1];
    snrq_range mine = snrq_share(w->count, 1, e->context->size, e->context->rank);
    float *values = NULL;
    if (e->options->logprobs == NULL) return SNRQ_OK;
    SNRQ_TRY(snrq_agree(e->context, snrq_allocate((size_t)count, sizeof *e->logprobs,
                                                  "log-probabilities", &e->logprobs)));
    memcpy(e->logprobs + mine.begin * shape[1], e->answers.each,
           (size_t)e->passages.targets_used * sizeof *e->logprobs);
    SNRQ_TRY(snrq_collect(e->context, e->logprobs, count));
    snrq_status status = SNRQ_OK;
    if (e->context->rank == 0) {
        status = snrq_allocate((size_t)count, sizeof *values, "log-probabilities", &values);
        for (int64_t i = 0; status == SNRQ_OK && i < count; i++) values[i] = (float)e->logprobs[i];
        if (status == SNRQ_OK) status = snrq_npy_write_f32(e->logprobs_out, values, shape, 2);
        free(values);
    }
    return snrq_agree(e->context, status);
}

static snrq_status print_samples(const evaluation *e, FILE *out)
{
    for (int i = 0; i < e->perplexities; i++)
        SNRQ_TRY(snrq_perplexity_samples(&e->perplexity[i], out));
    for (int i = 0; i < e->tasks; i++) SNRQ_TRY(snrq_task_samples(&e->task[i], out));
    return SNRQ_OK;
}

static snrq_status write_samples(const evaluation *e)
{
    char *text = NULL;
    size_t bytes = 0;
    if (e->options->samples == NULL || e->context->rank != 0) return SNRQ_OK;
    FILE *f = open_memstream(&text, &bytes);
    if (f == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the samples");
    snrq_status status = print_samples(e, f);
    if (fclose(f) != 0 && status == SNRQ_OK)
        status = snrq_fail(SNRQ_INTERNAL, "no memory for the samples");
    if (status == SNRQ_OK) status = snrq_user_output_write(e->samples_out, text, bytes);
    free(text);
    return status;
}

/* One protocol is the answer itself; of several there is a list. Tasks are beside it. */
static snrq_status answer_json(const evaluation *e, json_t **out)
{
    json_t *object = NULL, *list = json_array();
    bool good = list != NULL;
    for (int i = 0; i < e->perplexities && good; i++)
        good = json_array_append_new(list, snrq_perplexity_json(&e->perplexity[i])) == 0;
    if (good && e->perplexities == 1)
        object = json_incref(json_array_get(list, 0));
    else if (good)
        object = e->perplexities > 1 ? json_pack("{s:O}", "evaluations", list) : json_object();
    json_decref(list);
    *out = object;
    if (object == NULL) return snrq_fail(SNRQ_INTERNAL, "no memory for the answer");
    return e->tasks > 0 ? snrq_tasks_json(e->task, e->tasks, object) : SNRQ_OK;
}

static FILE *answers_of(const evaluation *e)
{
    snrq_user_output *out = e->logprobs_out != NULL ? e->logprobs_out : e->samples_out;
    FILE *first = out != NULL ? snrq_user_output_answers(out) : stdout;
    if (first == stdout && e->samples_out != NULL) return snrq_user_output_answers(e->samples_out);
    return first;
}

/* Of an OUT whose bits were chosen within a budget: what was expected of it. */
static snrq_status add_prediction(evaluation *e)
{
    snrq_output_facts facts = {0};
    if (!e->model->quantized || e->reference == NULL) return SNRQ_OK;
    snrq_status status = snrq_output_read(e->model->path, &facts);
    const json_t *budget = json_object_get(facts.configuration, "budget");
    const double kl = json_number_value(json_object_get(budget, "predicted_kl"));
    for (int i = 0; i < e->perplexities; i++) e->perplexity[i].predicted = kl;
    snrq_output_facts_free(&facts);
    return status;
}

static snrq_status print_answer(evaluation *e)
{
    FILE *out = answers_of(e);
    if (e->context->rank != 0) return SNRQ_OK;
    SNRQ_TRY(add_prediction(e));
    if (e->options->json) {
        json_t *answer;
        snrq_status status = answer_json(e, &answer);
        if (status == SNRQ_OK) return snrq_json_write(out, answer);
        json_decref(answer);
        return status;
    }
    for (int i = 0; i < e->perplexities; i++) {
        if (e->perplexities > 1)
            fprintf(out, "%s%s: %s\n", i > 0 ? "\n" : "", e->order[i].protocol->name,
                    e->order[i].source);
        snrq_perplexity_print(&e->perplexity[i], out);
    }
    if (e->tasks > 0 && e->perplexities > 0) fputc('\n', out);
    if (e->tasks > 0) SNRQ_TRY(snrq_tasks_print(e->task, e->tasks, out));
    return snrq_print_end(out);
}

static snrq_status evaluate(evaluation *e)
{
    SNRQ_TRY(parse_names(e));
    SNRQ_TRY(open_outputs(e));
    SNRQ_TRY(open_models(e));
    SNRQ_TRY(ask_perplexities(e));
    SNRQ_TRY(ask_tasks(e));
    SNRQ_TRY(score(e));
    SNRQ_TRY(take_answers(e));
    SNRQ_TRY(write_logprobs(e));
    SNRQ_TRY(snrq_agree(e->context, write_samples(e)));
    return snrq_agree(e->context, print_answer(e));
}

snrq_status snrq_evaluate(const snrq_context *context, const snrq_options *options)
{
    evaluation *e = NULL;
    SNRQ_TRY(snrq_agree(context, snrq_allocate(1, sizeof *e, "evaluation", &e)));
    e->context = context;
    e->options = options;
    snrq_status status = evaluate(e);
    snrq_model_close(&e->model);
    snrq_model_close(&e->reference);
    for (int i = 0; i < SNRQ_MOST_PROTOCOLS; i++) snrq_perplexity_free(&e->perplexity[i]);
    for (int i = 0; i < SNRQ_MOST_TASKS; i++) snrq_task_run_free(&e->task[i]);
    snrq_passages_free(&e->passages);
    snrq_answers_free(&e->answers);
    free(e->logprobs);
    snrq_user_output_close(&e->logprobs_out);
    snrq_user_output_close(&e->samples_out);
    free(e);
    return status;
}
