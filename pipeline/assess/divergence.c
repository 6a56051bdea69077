/* Divergences of a block's variants; see divergence.h. */
#include "pipeline/assess/divergence.h"

#include <stdlib.h>
#include <string.h>

#include "mpi/collective.h"
#include "pipeline/evaluate/head.h"

/* Streams, each through another variant of a block. */
typedef struct variants {
    const snrq_divergence *of;
    int count;
    snrq_stream *stream; /* [count] owned */
} variants;

static size_t numbers_of(const snrq_stream *s)
{
    return (size_t)((s->range.end - s->range.begin) * s->tokens * s->hidden);
}

static snrq_status create(const snrq_divergence *of, int count, variants *v)
{
    const snrq_stream *from = of->before;
    *v = (variants){.of = of};
    SNRQ_TRY(snrq_allocate((size_t)count, sizeof *v->stream, "streams", &v->stream));
    for (; v->count < count; v->count++) {
        snrq_stream *s = &v->stream[v->count];
        SNRQ_TRY(snrq_stream_create(from->range, of->windows, from->hidden, s));
        memcpy(s->h, from->h, numbers_of(from) * sizeof *s->h);
    }
    return SNRQ_OK;
}

static void destroy(variants *v)
{
    for (int i = 0; i < v->count; i++) snrq_stream_free(&v->stream[i]);
    free(v->stream);
}

static snrq_status pass_block(variants *v, const snrq_model *model, int64_t layer)
{
    const snrq_divergence *of = v->of;
    snrq_loaded_block block = {0};
    SNRQ_TRY(snrq_watch_check(of->context, of->watch));
    SNRQ_TRY(snrq_model_load_block(of->context, model, layer, of->ropes, &block));
    snrq_watch_go_on(of->watch);
    snrq_status status = SNRQ_OK;
    for (int i = 0; status == SNRQ_OK && i < v->count; i++)
        status = snrq_stream_forward(&v->stream[i], &block.block);
    status = snrq_agree(of->context, status);
    snrq_loaded_block_free(&block);
    return status;
}

/* sums [variants, windows] <- those of this rank's windows; but the last token of each, which
 * nothing follows. */
static snrq_status compare(const variants *v, snrq_head head[2], double *sums)
{
    const snrq_stream *s = v->of->before;
    const int64_t rows = s->tokens - 1, window = s->tokens * s->hidden;
    snrq_head_comparison *found = NULL;
    SNRQ_TRY(snrq_allocate(SNRQ_HEAD_ROWS, sizeof *found, "comparisons", &found));
    snrq_status status = SNRQ_OK;
    for (int64_t i = s->range.begin; i < s->range.end; i++) {
        snrq_watch_go_on(v->of->watch);
        for (int k = 0; k < v->count; k++)
            for (int64_t at = 0; status == SNRQ_OK && at < rows; at += SNRQ_HEAD_ROWS) {
                int64_t some = rows - at < SNRQ_HEAD_ROWS ? rows - at : SNRQ_HEAD_ROWS;
                int64_t begin = (i - s->range.begin) * window + at * s->hidden;
                size_t bytes = (size_t)(some * s->hidden) * sizeof(float);
                memcpy(head[0].hidden, v->stream[k].h + begin, bytes);
                memcpy(head[1].hidden, v->of->after + begin, bytes);
                status = snrq_head_apply(&head[0], &head[1], some, NULL, 0, found);
                for (int64_t r = 0; status == SNRQ_OK && r < some; r++)
                    sums[k * v->of->windows->count + i] += found[r].kl;
            }
    }
    free(found);
    return status;
}

/* kl [variants] */
static snrq_status ask(const variants *v, double *kl)
{
    const snrq_divergence *of = v->of;
    const int64_t windows = of->windows->count;
    snrq_head head[2] = {{0}, {0}};
    double *sums = NULL;
    snrq_status status = SNRQ_OK;
    for (int k = 0; status == SNRQ_OK && k < 2; k++)
        status = snrq_head_load(of->context, of->model, &head[k]);
    if (status == SNRQ_OK) {
        status = snrq_allocate((size_t)(v->count * windows), sizeof *sums, "divergences", &sums);
        if (status == SNRQ_OK) status = compare(v, head, sums);
        status = snrq_agree(of->context, status);
    }
    if (status == SNRQ_OK) status = snrq_collect(of->context, sums, v->count * windows);
    for (int k = 0; status == SNRQ_OK && k < v->count; k++) {
        kl[k] = 0.0;
        for (int64_t i = 0; i < windows; i++) kl[k] += sums[k * windows + i];
        kl[k] /= (double)(windows * (of->windows->length - 1));
    }
    free(sums);
    for (int k = 0; k < 2; k++) snrq_head_free(&head[k]);
    return status;
}

snrq_status snrq_divergence_measure(const snrq_divergence *of, int64_t layer,
                                    const snrq_block *variant, int count, double *kl)
{
    variants v;
    snrq_status status = create(of, count, &v);
    for (int i = 0; status == SNRQ_OK && i < count; i++)
        status = snrq_stream_forward(&v.stream[i], &variant[i]);
    status = snrq_agree(of->context, status);
    while (status == SNRQ_OK && ++layer < of->model->config.layers)
        status = pass_block(&v, of->model, layer);
    if (status == SNRQ_OK) status = ask(&v, kl);
    destroy(&v);
    return status;
}

static snrq_status measure_output(const snrq_divergence *of, const snrq_model *output, double *kl)
{
    variants v;
    snrq_status status = snrq_agree(of->context, create(of, 1, &v));
    for (int64_t layer = 0; status == SNRQ_OK && layer < output->config.layers; layer++)
        status = pass_block(&v, output, layer);
    if (status == SNRQ_OK) status = ask(&v, kl);
    destroy(&v);
    return status;
}

snrq_status snrq_divergence_of_output(const snrq_divergence *of, const char *path, double *kl)
{
    snrq_model *output = NULL;
    SNRQ_TRY(snrq_model_open(of->context, path, &output));
    snrq_status status = measure_output(of, output, kl);
    snrq_model_close(&output);
    return status;
}
