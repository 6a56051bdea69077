/* The backward pass over windows; see sensitivity_pass.h. */
#include "pipeline/sensitivity_pass.h"

#include <stdlib.h>
#include <string.h>

#include "io/checkpoint/sensitivity_file.h"
#include "pipeline/model/block_backward.h"
#include "pipeline/model/label_gradient.h"
#include "pipeline/model/stream.h"
#include "pipeline/sensitivity_cost.h"

typedef struct run {
    const snrq_context *context;
    const snrq_sensitivity_order *order;
    const snrq_model *model;
    const snrq_windows *windows;
    snrq_ropes ropes;
    snrq_sensitivity_facts facts;
    snrq_sensitivity_module *module; /* [modules] of all blocks */
    int modules;
    int *first_module; /* [layers] */
    snrq_sensitivity_writer *writer;
    snrq_range mine;           /* sequences of this rank */
    int64_t at_a_time, passes; /* sequences; how often, the same on all ranks */
    int64_t pass;              /* which one this is, of sequences: */
    snrq_range now;
    float *inputs; /* [layers + 1][at_a_time, tokens, hidden]: of the blocks, and of the head */
    snrq_fixed **total; /* [layers] sums of this rank's tiles */
    double *loss;       /* [windows] of the drawn labels */
} run;

static int64_t layers_of(const run *r)
{
    return r->model->config.layers;
}

/* Numbers of the residual stream of a sequence. */
static int64_t sequence_floats(const run *r)
{
    return r->windows->length * r->model->config.hidden;
}

static float *inputs_of(const run *r, int64_t layer)
{
    return r->inputs + layer * r->at_a_time * sequence_floats(r);
}

/* ---- before ---- */

/* Names and rows of all modules. */
static snrq_status list_modules(run *r)
{
    for (int64_t l = 0; l < layers_of(r); l++)
        r->modules += snrq_model_family(r->model, l)->modules;
    SNRQ_TRY(snrq_allocate((size_t)r->modules, sizeof *r->module, "modules", &r->module));
    SNRQ_TRY(
        snrq_allocate((size_t)layers_of(r), sizeof *r->first_module, "blocks", &r->first_module));
    int next = 0;
    for (int64_t l = 0; l < layers_of(r); l++) {
        const snrq_family *f = snrq_model_family(r->model, l);
        r->first_module[l] = next;
        for (int m = 0; m < f->modules; m++) {
            snrq_sensitivity_module *to = &r->module[next++];
            snrq_module_name(l, f->module[m].name, to->name, sizeof to->name);
            to->rows = f->module[m].rows;
            to->all_tokens = f->unit[f->module[m].unit].expert < 0;
        }
    }
    return SNRQ_OK;
}

static snrq_status prepare(run *r)
{
    const int64_t all = layers_of(r) + 1;
    r->mine = snrq_stream_share(r->context, r->windows);
    r->at_a_time = snrq_sensitivity_at_a_time(r->model, r->mine.end - r->mine.begin,
                                              r->windows->length, r->order->pass_memory);
    r->facts = (snrq_sensitivity_facts){.tokens = r->windows->count * r->windows->length,
                                        .length = r->windows->length,
                                        .seed = (int64_t)r->order->seed};
    SNRQ_TRY(snrq_model_fingerprint(r->model, r->facts.model));
    SNRQ_TRY(list_modules(r));
    SNRQ_TRY(snrq_ropes_create(&r->model->config, r->windows->length, &r->ropes));
    SNRQ_TRY(snrq_allocate((size_t)r->windows->count, sizeof *r->loss, "losses", &r->loss));
    SNRQ_TRY(snrq_allocate((size_t)layers_of(r), sizeof(snrq_fixed *), "sums", &r->total));
    return snrq_allocate_scratch((size_t)(all * r->at_a_time * sequence_floats(r)), sizeof(float),
                                 "inputs of blocks", &r->inputs);
}

static snrq_status count_passes(run *r)
{
    int64_t own = r->mine.end - r->mine.begin;
    double most = r->at_a_time > 0 ? (double)((own + r->at_a_time - 1) / r->at_a_time) : 0.0;
    SNRQ_TRY(snrq_max_double(r->context, &most, 1));
    r->passes = (int64_t)most;
    return SNRQ_OK;
}

/* ---- a pass ---- */

/* A block is done. */
static snrq_status tell(const run *r, bool back, int64_t layer)
{
    const snrq_sensitivity_step step = {back, layer, r->pass, r->passes};
    return r->order->listen(r->order->user, &step);
}

static snrq_status embed(const run *r)
{
    const int64_t tokens = r->windows->length, hidden = r->model->config.hidden;
    const int32_t *ids = r->windows->ids + r->now.begin * tokens;
    snrq_table embedding;
    SNRQ_TRY(snrq_model_load_embedding(r->context, r->model, &embedding));
    for (int64_t i = 0; i < (r->now.end - r->now.begin) * tokens; i++)
        snrq_embed_token(&embedding.weight, r->model->config.embedding_scale, ids[i],
                         r->inputs + i * hidden);
    snrq_table_free(&embedding);
    return SNRQ_OK;
}

/* The inputs of the block behind it. */
static snrq_status forward_block(const run *r, int64_t layer, const snrq_block *block)
{
    int64_t sequences = r->now.end - r->now.begin;
    memcpy(inputs_of(r, layer + 1), inputs_of(r, layer),
           (size_t)(sequences * sequence_floats(r)) * sizeof(float));
    return snrq_sequences_forward(block, sequences, r->windows->length, inputs_of(r, layer + 1));
}

static snrq_status forward(run *r)
{
    SNRQ_TRY(embed(r));
    for (int64_t l = 0; l < layers_of(r); l++) {
        snrq_loaded_block block = {0};
        snrq_status status = snrq_model_load_block(r->context, r->model, l, &r->ropes, &block);
        if (status == SNRQ_OK) status = snrq_agree(r->context, forward_block(r, l, &block.block));
        snrq_loaded_block_free(&block);
        SNRQ_TRY(status);
        SNRQ_TRY(tell(r, false, l));
    }
    return SNRQ_OK;
}

/* What the head reads becomes the gradient with respect to it. */
static snrq_status draw_labels(const run *r)
{
    snrq_label_head head = {0};
    snrq_status status = snrq_label_head_load(r->context, r->model, &head);
    for (int64_t s = r->now.begin; status == SNRQ_OK && s < r->now.end; s++)
        status = snrq_label_gradient(
            &head, r->order->seed, s, r->windows->length,
            inputs_of(r, layers_of(r)) + (s - r->now.begin) * sequence_floats(r), &r->loss[s]);
    status = snrq_agree(r->context, status);
    snrq_label_head_free(&head);
    return status;
}

/* Adds this rank's sequences. */
static snrq_status backward_block(const run *r, int64_t layer, const snrq_block *block,
                                  snrq_gradient_gram *gram)
{
    const snrq_gradient_sums sums = {.gram = gram};
    snrq_status status =
        snrq_block_backward(block, r->now.end - r->now.begin, r->windows->length,
                            inputs_of(r, layer), inputs_of(r, layers_of(r)), &sums);
    if (status != SNRQ_BAD_DATA) return status;
    return snrq_fail(status, "%s: model.layers.%lld.%s", r->model->path, (long long)layer,
                     snrq_error_message());
}

/* Writes what the tokens of this pass have. */
static snrq_status write_squares(const run *r, int64_t layer, const snrq_gradient_gram *gram)
{
    const snrq_family *f = gram->family;
    for (int u = 0; u < f->units; u++)
        for (int m = f->unit[u].first; f->unit[u].expert < 0 && m < f->unit[u].end; m++)
            SNRQ_TRY(snrq_sensitivity_put_squares(r->writer, r->first_module[layer] + m, r->now,
                                                  gram->squares + m * gram->tokens));
    return SNRQ_OK;
}

/* Writes the tiles of this rank, of which the sums are complete. */
static snrq_status write_block(const run *r, int64_t layer, const snrq_gradient_gram *gram)
{
    const snrq_fixed *sum = r->total[layer];
    float *tiles = NULL;
    for (int m = 0; m < gram->family->modules; m++) {
        snrq_range mine = snrq_gradient_gram_share(r->context, gram, m);
        int64_t count = (mine.end - mine.begin) * SNRQ_GRADIENT_TILE;
        if (count == 0) continue;
        SNRQ_TRY(snrq_allocate_scratch((size_t)count, sizeof *tiles, "tiles", &tiles));
        snrq_gradient_means(sum, mine.end - mine.begin, r->facts.tokens, tiles);
        snrq_status status =
            snrq_sensitivity_put(r->writer, r->first_module[layer] + m, mine, tiles);
        free(tiles);
        SNRQ_TRY(status);
        sum += count;
    }
    return SNRQ_OK;
}

/* Room for this rank's sums of a block, in the first pass. */
static snrq_status make_total(run *r, int64_t layer, const snrq_gradient_gram *gram)
{
    int64_t tiles = 0;
    if (r->total[layer] != NULL) return SNRQ_OK;
    for (int m = 0; m < gram->family->modules; m++) {
        snrq_range mine = snrq_gradient_gram_share(r->context, gram, m);
        tiles += mine.end - mine.begin;
    }
    return snrq_allocate((size_t)(tiles * SNRQ_GRADIENT_TILE), sizeof(snrq_fixed), "sums",
                         &r->total[layer]);
}

static snrq_status backward_loaded(run *r, int64_t layer, const snrq_block *block)
{
    snrq_gradient_gram gram = {0};
    const int64_t tokens = (r->now.end - r->now.begin) * r->windows->length;
    snrq_status status = snrq_gradient_gram_create(block->family, tokens, &gram);
    if (status == SNRQ_OK) status = make_total(r, layer, &gram);
    if (status == SNRQ_OK) status = backward_block(r, layer, block, &gram);
    if (status == SNRQ_OK) status = write_squares(r, layer, &gram);
    status = snrq_agree(r->context, status);
    if (status == SNRQ_OK) status = snrq_gradient_gram_collect(r->context, &gram, r->total[layer]);
    if (status == SNRQ_OK && r->pass + 1 == r->passes) {
        status = snrq_agree(r->context, write_block(r, layer, &gram));
        free(r->total[layer]);
        r->total[layer] = NULL;
    }
    snrq_gradient_gram_free(&gram);
    return status;
}

static snrq_status backward(run *r)
{
    for (int64_t l = layers_of(r) - 1; l >= 0; l--) {
        snrq_loaded_block block = {0};
        snrq_status status = snrq_model_load_block(r->context, r->model, l, &r->ropes, &block);
        if (status == SNRQ_OK) status = backward_loaded(r, l, &block.block);
        snrq_loaded_block_free(&block);
        SNRQ_TRY(status);
        SNRQ_TRY(tell(r, true, l));
    }
    return SNRQ_OK;
}

static snrq_status run_passes(run *r)
{
    const int32_t *ids = r->windows->ids + r->mine.begin * r->windows->length;
    snrq_status status = snrq_agree(r->context, snrq_sensitivity_put_ids(r->writer, r->mine, ids));
    r->now = (snrq_range){r->mine.begin, r->mine.begin};
    for (r->pass = 0; status == SNRQ_OK && r->pass < r->passes; r->pass++) {
        int64_t end = r->now.end + r->at_a_time;
        r->now = (snrq_range){r->now.end, end < r->mine.end ? end : r->mine.end};
        status = forward(r);
        if (status == SNRQ_OK) status = draw_labels(r);
        if (status == SNRQ_OK) status = backward(r);
    }
    return status;
}

/* ---- all of it ---- */

static snrq_status write_file(run *r)
{
    SNRQ_TRY(snrq_sensitivity_create(r->context, r->order->path, &r->facts, r->module, r->modules,
                                     &r->writer));
    SNRQ_TRY(snrq_sensitivity_finish(&r->writer, run_passes(r)));
    return snrq_collect(r->context, r->loss, r->windows->count);
}

static void take_outcome(const run *r, snrq_sensitivity_outcome *out)
{
    *out = (snrq_sensitivity_outcome){
        .modules = r->modules,
        .tokens = r->facts.tokens,
        .bytes = snrq_sensitivity_bytes(r->module, r->modules, r->facts.tokens)};
    for (int64_t s = 0; s < r->windows->count; s++) out->loss += r->loss[s];
    out->loss /= (double)r->facts.tokens;
}

snrq_status snrq_sensitivity_pass(const snrq_context *context, const snrq_sensitivity_order *order,
                                  const snrq_model *model, const snrq_windows *windows,
                                  snrq_sensitivity_outcome *out)
{
    run r = {.context = context, .order = order, .model = model, .windows = windows};
    snrq_status status = snrq_agree(context, prepare(&r));
    if (status == SNRQ_OK) status = count_passes(&r);
    if (status == SNRQ_OK) status = write_file(&r);
    if (status == SNRQ_OK) take_outcome(&r, out);
    for (int64_t l = 0; r.total != NULL && l < layers_of(&r); l++) free(r.total[l]);
    free(r.total);
    free(r.inputs);
    free(r.loss);
    free(r.first_module);
    free(r.module);
    snrq_ropes_free(&r.ropes);
    return status;
}
