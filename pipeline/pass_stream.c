/* The full-precision stream goes to the groups; see pass_stream.h. */
#include "pipeline/pass_stream.h"

#include "mpi/transfer.h"

snrq_status snrq_embed(const snrq_context *context, const snrq_job *job, snrq_stream *stream)
{
    snrq_table embedding;
    SNRQ_TRY(snrq_model_load_embedding(context, job->model, &embedding));
    snrq_stream_embed(stream, &embedding.weight, job->model->config.embedding_scale, &job->windows);
    snrq_table_free(&embedding);
    return SNRQ_OK;
}

snrq_status snrq_embed_coded(const snrq_context *context, const snrq_job *job, snrq_stream *stream)
{
    snrq_table embedding;
    if (!job->model->coded[SNRQ_EMBEDDING_TABLE]) return SNRQ_OK;
    SNRQ_TRY(
        snrq_model_load_coded_embedding(context, job->model, job->options->output, &embedding));
    snrq_stream_embed(stream, &embedding.weight, job->model->config.embedding_scale, &job->windows);
    snrq_table_free(&embedding);
    return SNRQ_OK;
}

/* The ranks of group k get their sequences of the stream that all ranks share. */
static snrq_status hand_over(const snrq_job *job, const snrq_stream *all, int k, snrq_stream *full)
{
    const snrq_context *to = k == job->groups.mine ? job->groups.context : NULL;
    const size_t bytes = (size_t)(all->tokens * all->hidden) * sizeof(float);
    snrq_transfer *transfer = NULL;
    SNRQ_TRY(snrq_transfer_create(job->context, job->context, to, "the stream", job->windows.count,
                                  bytes, &transfer));
    snrq_status status = snrq_transfer_send(transfer, all->range.end - all->range.begin, all->h);
    if (status == SNRQ_OK && to != NULL)
        status = snrq_transfer_receive(transfer, full->range.end - full->range.begin, full->h);
    return snrq_transfer_end(&transfer, status);
}

static snrq_status pass_block(snrq_job *job, const snrq_ropes *ropes, int64_t layer,
                              snrq_stream *all)
{
    snrq_loaded_block block = {0};
    SNRQ_TRY(snrq_stop_check(job->context, &job->stop));
    snrq_timers_enter(&job->timers, SNRQ_PHASE_READ);
    SNRQ_TRY(snrq_model_load_block(job->context, job->model, layer, ropes, &block));
    snrq_timers_enter(&job->timers, SNRQ_PHASE_FORWARD);
    snrq_status status = snrq_agree(job->context, snrq_stream_forward(all, &block.block));
    snrq_loaded_block_free(&block);
    return status;
}

snrq_status snrq_pass_stream(snrq_job *job, const snrq_ropes *ropes, const int64_t *waits,
                             snrq_stream *full)
{
    const snrq_layer_groups *groups = &job->groups;
    const snrq_range mine = snrq_stream_share(job->context, &job->windows);
    int last = groups->count - 1;
    snrq_stream all = {0};
    while (last > 0 && !waits[last]) last--;
    snrq_status status = snrq_agree(
        job->context, snrq_stream_create(mine, &job->windows, job->model->config.hidden, &all));
    if (status == SNRQ_OK) status = snrq_embed(job->context, job, &all);
    int64_t layer = 0;
    for (int k = 0; status == SNRQ_OK && k <= last; k++) {
        for (; status == SNRQ_OK && layer < groups->first[k]; layer++)
            status = pass_block(job, ropes, layer, &all);
        if (status == SNRQ_OK && waits[k]) status = hand_over(job, &all, k, full);
    }
    snrq_stream_free(&all);
    return status;
}
