/* Passages; see passages.h. */
#include "pipeline/evaluate/passages.h"

#include <stdlib.h>
#include <string.h>

void snrq_passages_free(snrq_passages *p)
{
    free(p->passage);
    free(p->ids);
    free(p->span);
    free(p->target);
    *p = (snrq_passages){0};
}

snrq_status snrq_passages_begin(snrq_passages *p)
{
    SNRQ_TRY(
        snrq_grow((size_t)p->count + 1, sizeof *p->passage, "passages", &p->passage, &p->room));
    p->passage[p->count++] =
        (snrq_passage){.id = p->ids_used, .span = p->spans_used, .target = p->targets_used};
    return SNRQ_OK;
}

snrq_status snrq_passages_add_span(snrq_passages *p, const int32_t *ids, int64_t count,
                                   int64_t prefix)
{
    snrq_passage *passage = &p->passage[p->count - 1];
    SNRQ_TRY(snrq_grow((size_t)(p->ids_used + count), sizeof *p->ids, "token ids", &p->ids,
                       &p->ids_room));
    SNRQ_TRY(
        snrq_grow((size_t)p->spans_used + 1, sizeof *p->span, "spans", &p->span, &p->spans_room));
    if (count > 0) memcpy(p->ids + p->ids_used, ids, (size_t)count * sizeof *ids);
    p->span[p->spans_used++] =
        (snrq_span){.first = passage->ids, .tokens = count, .prefix_tokens = prefix};
    p->ids_used += count;
    passage->ids += count;
    passage->spans++;
    if (prefix + count > passage->longest) passage->longest = prefix + count;
    return SNRQ_OK;
}

snrq_status snrq_passages_add_target(snrq_passages *p, int64_t row, int32_t id, int64_t question)
{
    SNRQ_TRY(snrq_grow((size_t)p->targets_used + 1, sizeof *p->target, "targets", &p->target,
                       &p->targets_room));
    p->target[p->targets_used++] = (snrq_target){row, question, id};
    p->passage[p->count - 1].targets++;
    return SNRQ_OK;
}
