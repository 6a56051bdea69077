/* Where the backward pass begins: the gradient of the cross-entropy of labels that are drawn from
 * the model's own distribution, with respect to the last hidden states.
 *
 * With z = scale W RMSNorm(h), l = cap tanh(z / cap) (or z without a cap) and p = softmax(l), a
 * position's label y is drawn from p, and
 *
 *     dl = p - onehot(y),  dz = dl (1 - (l / cap)^2),  d RMSNorm(h) = scale W' dz
 *
 * The mean of dl dl' over labels is the Fisher information of l, so that Grams of these gradients
 * tell what errors cost in KL (docs/method.md). The label of position t of sequence s is the first
 * token whose cumulative probability is more than u, the uniform number t of stream s (philox.h).
 */
#ifndef SNRQ_LABEL_GRADIENT_H
#define SNRQ_LABEL_GRADIENT_H

#include "pipeline/model/model.h"
#include "pipeline/model/parameter_gradient.h"

/* A head that is loaded, with room for the logits of some rows. */
typedef struct snrq_label_head {
    const snrq_config *config; /* borrowed */
    snrq_table table;
    float *norm;   /* [hidden] */
    int64_t rows;  /* that go through at a time */
    float *normed; /* [rows, hidden] */
    float *logits; /* [rows, vocabulary] */
} snrq_label_head;

/* Collective; agreed. Free with snrq_label_head_free(), after a failure, too: collective over the
 * node. */
snrq_status snrq_label_head_load(const snrq_context *context, const snrq_model *model,
                                 snrq_label_head *out);
void snrq_label_head_free(snrq_label_head *head);

/* Bytes that a rank needs for it, without the weights. */
double snrq_label_head_bytes(const snrq_config *config);

/* h [tokens, hidden], the last hidden states of sequence `sequence`, becomes the gradient with
 * respect to them; *loss is the sum of -log p of the labels. No position depends on the others. Not
 * collective. */
snrq_status snrq_label_gradient(snrq_label_head *head, uint64_t seed, int64_t sequence,
                                int64_t tokens, float *h, double *loss);

/* Another loss: KL(full || model) of every position, with q of the full-precision model's last
 * hidden states `full` [tokens, hidden] and its last norm's weight `full_norm` [hidden], through
 * the same head:
 *
 *     dl = p - q
 *
 * *kl is the sum over the positions of a sequence, in nats. Not collective. SNRQ_INTERNAL without
 * memory. */
snrq_status snrq_kl(snrq_label_head *head, const float *full_norm, int64_t tokens,
                    const float *full, const float *h, double *kl);

/* Also, h [tokens, hidden] becomes the gradient, and that of the last norm's weight is added to
 * `norm` [hidden]. SNRQ_BAD_DATA if it is not finite. */
snrq_status snrq_kl_gradient(snrq_label_head *head, const float *full_norm, int64_t tokens,
                             const float *full, float *h, double *kl, snrq_fixed *norm);

#endif
