/* A quantized model in memory whose scales and norms are tuned, and Adam.
 *
 * The parameters are the scales of all modules and the weights of all norms, the last one too. Each
 * has a value in fp32 that Adam changes, and a stored one: that value, rounded to the type it is
 * stored in. The passes through the model use stored values, so that what is measured is what a
 * file would hold; what is less than a step of the stored type is kept (a straight-through
 * estimate). With g the gradient of the mean loss of a token:
 *
 *     d = g |v|                                the slope against log |v|
 *     m = b1 m + (1 - b1) d,  q = b2 q + (1 - b2) d^2
 *     v = v (1 - rate m' / (sqrt(q') + eps))   with m', q' = m, q over 1 - b1^t, 1 - b2^t
 *
 * So a step is relative to the value it changes: scales of all sizes move alike, and none changes
 * its sign. Source: D. Kingma, J. Ba, "Adam", ICLR 2015.
 *
 * Everything is in the memory of the nodes, each of which computes the same.
 */
#ifndef SNRQ_TUNED_MODEL_H
#define SNRQ_TUNED_MODEL_H

#include "pipeline/model/label_gradient.h"
#include "pipeline/rules.h"

/* What is kept of a parameter. */
enum {
    SNRQ_TUNED_VALUE,
    SNRQ_TUNED_MEAN,
    SNRQ_TUNED_SQUARE,
    SNRQ_TUNED_BEST, /* the value with the lowest loss so far */
    SNRQ_TUNED_ARRAYS
};

typedef struct snrq_tuned_model {
    const snrq_context *context; /* borrowed, as the next three */
    const snrq_model *model;     /* in full precision */
    const snrq_rules *rules;
    int64_t blocks;
    snrq_loaded_block *block;          /* [blocks] quantized; owned, as the rest */
    snrq_parameter_gradient *gradient; /* [blocks] sums of this rank */
    snrq_fixed *norm_gradient;         /* [hidden] of the last norm */
    snrq_label_head head;              /* with the last norm that is tuned */
    int64_t *first;                    /* [blocks + 2] where parameters of a block begin; the last
                                        * norm comes behind them */
    snrq_node_memory *memory;
    int64_t rows;                 /* of SNRQ_TUNING_ROW numbers that all arrays fill, with what is
                                   * left of the last row of each */
    float *of[SNRQ_TUNED_ARRAYS]; /* [first[blocks + 1]] each, one after the other in `memory` */
} snrq_tuned_model;

/* Reads the blocks of `directory`; values are those that are stored, and the best so far. ropes are
 * borrowed. Collective; agreed. Free it after a failure, too: collective. */
snrq_status snrq_tuned_model_load(const snrq_context *context, const snrq_model *model,
                                  const snrq_rules *rules, const char *directory,
                                  const snrq_ropes *ropes, snrq_tuned_model *out);
void snrq_tuned_model_free(snrq_tuned_model *model);

/* Parameters of all blocks and the last norm. Not collective. */
int64_t snrq_tuned_count(const snrq_tuned_model *model);

/* The numbers of a step of Adam. */
typedef struct snrq_adam {
    double rate;
    double mean_left, square_left; /* b1^t, b2^t */
    double tokens;                 /* of the sums of gradients */
} snrq_adam;

/* Before the first step. */
static inline snrq_adam snrq_adam_begin(void)
{
    return (snrq_adam){.mean_left = 1.0, .square_left = 1.0};
}

/* The next step: t + 1. */
void snrq_adam_advance(snrq_adam *adam);

/* A step by the gradients of all ranks, which become 0. Collective; agreed. */
snrq_status snrq_tuned_model_step(snrq_tuned_model *model, const snrq_adam *adam);

/* Stored values <- values rounded. Collective; agreed. */
snrq_status snrq_tuned_model_apply(snrq_tuned_model *model);

/* As it was loaded, if no stored value has changed since. Collective; agreed. */
snrq_status snrq_tuned_model_reset(snrq_tuned_model *model);

/* Copies an array of parameters to another one. Collective; agreed. */
snrq_status snrq_tuned_model_copy(snrq_tuned_model *model, int from, int to);

/* The best values again, for an optimizer that begins anew. Collective; agreed. */
snrq_status snrq_tuned_model_go_back(snrq_tuned_model *model);

/* out <- the stored values of the norm that the tensor `name` is; false: it is none. For
 * snrq_rest_changes, with the model as `user`. Not collective. */
bool snrq_tuned_model_norm(const void *user, const char *name, float *out);

#endif
