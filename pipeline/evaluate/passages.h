/* What is to be scored: passages of tokens, and questions about them.
 *
 * A passage is computed as a whole: the tokens of its spans (pipeline/model/attention.h), which may
 * share a beginning. A question asks how likely some tokens are, each given those that its row of
 * the passage has seen: row r, which holds token ids[r], tells of the token after it. */
#ifndef SNRQ_PASSAGES_H
#define SNRQ_PASSAGES_H

#include "pipeline/model/attention.h"

/* One token that is asked for. */
typedef struct snrq_target {
    int64_t row;      /* of the passage */
    int64_t question; /* which one it belongs to */
    int32_t id;
} snrq_target;

/* Parts of the lists below: from ..., how many. */
typedef struct snrq_passage {
    int64_t id, ids;
    int64_t span, spans; /* rows of the spans are those of the passage */
    int64_t target, targets;
    int64_t longest; /* positions of its longest text */
} snrq_passage;

/* Zero-initialized is none. The lists are owned. */
typedef struct snrq_passages {
    snrq_passage *passage;
    int32_t *ids;
    snrq_span *span;
    snrq_target *target;
    int64_t count, ids_used, spans_used, targets_used;
    size_t room, ids_room, spans_room, targets_room;
} snrq_passages;

void snrq_passages_free(snrq_passages *passages);

/* Begins another passage; what is added next belongs to it. */
snrq_status snrq_passages_begin(snrq_passages *passages);
/* Adds a span of tokens [count] after a prefix of the passage's first `prefix` rows (0: none). */
snrq_status snrq_passages_add_span(snrq_passages *passages, const int32_t *ids, int64_t count,
                                   int64_t prefix);
snrq_status snrq_passages_add_target(snrq_passages *passages, int64_t row, int32_t id,
                                     int64_t question);

#endif
