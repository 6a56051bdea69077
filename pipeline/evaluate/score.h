/* Takes passages through a model, and answers their questions.
 *
 * Every rank has passages of its own. The model streams by: a block is loaded once for all of them,
 * or several times, if there are more than memory should hold (a pass each). What a rank computes
 * for a passage does not depend on the others it has, so results are the same however passages are
 * dealt to ranks.
 */
#ifndef SNRQ_SCORE_H
#define SNRQ_SCORE_H

#include "mpi/context.h"
#include "pipeline/evaluate/passages.h"
#include "pipeline/model/model.h"

/* Who answers. All borrowed. */
typedef struct snrq_scorer {
    const snrq_context *context;
    const snrq_model *model;
    const snrq_model *reference; /* to compare with, or NULL */
    bool quiet;                  /* no lines about progress */
} snrq_scorer;

/* Answers of the questions [0, questions), sums over their targets in order. Release with
 * snrq_answers_free(). */
typedef struct snrq_answers {
    double *logprob;    /* [questions] owned, as the rest */
    double *first;      /* [questions] targets that are the most likely token */
    double *kl;         /* [questions] KL(reference || model) at their rows, in nats */
    double *same_first; /* [questions] rows where both have the same most likely token */
    double *each;       /* [targets of the passages] log-probabilities; NULL: not wanted */
} snrq_answers;
snrq_status snrq_answers_create(int64_t questions, int64_t each, snrq_answers *out);
void snrq_answers_free(snrq_answers *answers);

/* Scores this rank's passages (there may be none). Collective; agreed. */
snrq_status snrq_score(const snrq_scorer *scorer, const snrq_passages *passages,
                       snrq_answers *answers);

/* Bytes that scoring passages of so many tokens takes on a rank, without weights. */
double snrq_score_bytes(const snrq_scorer *scorer, int64_t tokens, int64_t longest);

#endif
