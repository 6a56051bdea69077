/* The end of the forward pass: from hidden states to what tokens are likely, without ever holding
 * the logits of a whole vocabulary.
 *
 * The vocabulary is passed through in tiles. What a row needs of all of it is summed up on the way:
 * its largest logit and where it is, and the sum of exp(logit - largest), in fp64, which changes
 * its scale whenever a larger one comes. The tiles are the same for everyone, so results do not
 * depend on ranks, threads or other rows.
 */
#ifndef SNRQ_HEAD_H
#define SNRQ_HEAD_H

#include "pipeline/model/model.h"

/* Rows that go through at a time: enough to widen the head's weights rarely. */
enum { SNRQ_HEAD_ROWS = 1024 };

/* A head that is loaded, and the norm before it. */
typedef struct snrq_head {
    const snrq_config *config; /* borrowed */
    snrq_table table;
    float *norm;   /* [hidden] */
    float *hidden; /* [SNRQ_HEAD_ROWS, hidden] states to be used next, filled in by the caller */
    float *normed; /* [SNRQ_HEAD_ROWS, hidden] */
    float *logits; /* [SNRQ_HEAD_ROWS, tile] */
} snrq_head;

/* Collective; agreed. Free with snrq_head_free(), after a failure, too: collective over the node.
 */
snrq_status snrq_head_load(const snrq_context *context, const snrq_model *model, snrq_head *out);
void snrq_head_free(snrq_head *head);

/* Bytes that a rank needs for it, without the weights. */
double snrq_head_bytes(const snrq_config *config);

/* A token whose probability is asked for, in one of the rows. */
typedef struct snrq_head_target {
    int64_t row;
    int32_t id;
    double logprob; /* result */
    bool first;     /* result: no token is more likely; of equals, the one with the lowest id */
} snrq_head_target;

/* What a row tells when compared with a reference: KL(reference || model) in nats, and whether both
 * have the same first choice. */
typedef struct snrq_head_comparison {
    double kl;
    bool same_first;
} snrq_head_comparison;

/* Results of `rows` rows of head->hidden, and of reference->hidden (NULL: no reference; then
 * `comparison` [rows] is NULL, too). Not collective. */
snrq_status snrq_head_apply(snrq_head *head, snrq_head *reference, int64_t rows,
                            snrq_head_target *target, int64_t targets,
                            snrq_head_comparison *comparison);

#endif
