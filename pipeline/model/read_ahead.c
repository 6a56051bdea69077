/* Reading ahead; see read_ahead.h. */
#include "pipeline/model/read_ahead.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "pipeline/model/tensors.h"

struct snrq_read_ahead {
    const snrq_model *model;
    int64_t layer;
    int ranks, rank; /* of the node, which share the block's rows */
    pthread_t thread;
    atomic_bool ending;
};

/* Bytes that are asked for between two looks at `ending`. */
static const uint64_t piece = 1 << 20;

static void expect_module(snrq_read_ahead *a, const snrq_module_shape *shape)
{
    char module[200], name[256];
    snrq_module_name(a->layer, shape->name, module, sizeof module);
    snprintf(name, sizeof name, "%s.weight", module);
    const snrq_tensor *t = snrq_model_tensor(a->model, name);
    if (t == NULL) return;
    snrq_range mine = snrq_share(shape->rows, 1, a->ranks, a->rank);
    uint64_t row = t->bytes / (uint64_t)shape->rows, end = (uint64_t)mine.end * row;
    for (uint64_t at = (uint64_t)mine.begin * row; at < end && !a->ending; at += piece)
        snrq_safetensors_expect(a->model->tensors, t, at, end - at < piece ? end - at : piece);
}

static void *run(void *argument)
{
    snrq_read_ahead *a = argument;
    const snrq_family *f = snrq_model_family(a->model, a->layer);
    for (int m = 0; m < f->modules && !a->ending; m++) expect_module(a, &f->module[m]);
    return NULL;
}

void snrq_read_ahead_start(const snrq_context *context, const snrq_model *model, int64_t layer,
                           snrq_read_ahead **out)
{
    snrq_read_ahead *a = NULL;
    sigset_t all, before;
    *out = NULL;
    if (model->quantized || snrq_allocate(1, sizeof *a, "read-ahead", &a) != SNRQ_OK) return;
    a->model = model;
    a->layer = layer;
    a->ranks = context->node_size;
    a->rank = context->node_rank;
    sigfillset(&all); /* signals are for the other threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&a->thread, NULL, run, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed == 0)
        *out = a;
    else
        free(a);
}

void snrq_read_ahead_stop(snrq_read_ahead **ahead)
{
    if (*ahead == NULL) return;
    (*ahead)->ending = true;
    pthread_join((*ahead)->thread, NULL);
    free(*ahead);
    *ahead = NULL;
}
