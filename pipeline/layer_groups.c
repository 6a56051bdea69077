/* Layer groups; see layer_groups.h. */
#include "pipeline/layer_groups.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void snrq_layer_groups_divide(const double *work, int64_t blocks, int groups, int64_t *first)
{
    double total = 0.0, before = 0.0;
    int64_t at = 0;
    for (int64_t b = 0; b < blocks; b++) total += work[b];
    first[0] = 0;
    for (int k = 1; k < groups; k++) {
        double share = total * k / groups;
        before += work[at++];
        /* The groups that follow need a block each. */
        while (at < blocks - (groups - k) && fabs(before + work[at] - share) < fabs(before - share))
            before += work[at++];
        first[k] = at;
    }
    first[groups] = blocks;
}

snrq_status snrq_layer_groups_create(const double *work, int64_t blocks, int groups,
                                     snrq_layer_groups *out)
{
    *out = (snrq_layer_groups){.count = groups};
    SNRQ_TRY(snrq_allocate((size_t)groups + 1, sizeof *out->first, "layer groups", &out->first));
    snrq_layer_groups_divide(work, blocks, groups, out->first);
    return SNRQ_OK;
}

int snrq_layer_groups_leader(const snrq_layer_groups *g, int ranks, int group)
{
    return (int)snrq_share(ranks, 1, g->count, group).begin;
}

snrq_status snrq_layer_groups_split(const snrq_context *job, snrq_layer_groups *g)
{
    g->context = job;
    g->mine = 0;
    if (g->count == 1) return SNRQ_OK;
    while (job->rank >= snrq_share(job->size, 1, g->count, g->mine).end) g->mine++;
    SNRQ_TRY(snrq_context_split(job, g->mine, &g->own));
    g->context = g->own;
    return SNRQ_OK;
}

void snrq_layer_groups_free(snrq_layer_groups *g)
{
    snrq_context_destroy(&g->own);
    free(g->first);
    memset(g, 0, sizeof *g);
}

int snrq_layer_groups_of_block(const snrq_layer_groups *g, int64_t block)
{
    int k = 0;
    while (block >= g->first[k + 1]) k++;
    return k;
}
