/* Sequences through a model that is tuned: KL to the full-precision model, and its gradients.
 *
 * The full-precision model's last hidden states of a rank's sequences are made once and kept; its
 * logits are computed from them again whenever they are needed, some rows at a time, so that no
 * distribution over the vocabulary is ever stored.
 */
#ifndef SNRQ_TUNING_PASSES_H
#define SNRQ_TUNING_PASSES_H

#include "mpi/watch.h"
#include "pipeline/model/stream.h"
#include "pipeline/tuned_model.h"

typedef struct snrq_passes {
    const snrq_context *context; /* borrowed, as the next two */
    const snrq_model *model;     /* in full precision */
    const snrq_windows *windows;
    const snrq_watch *watch;     /* of the run; borrowed */
    snrq_range fitted, held_out; /* sequences of this rank among all windows */
    snrq_table embedding;
    float *full;       /* [fitted, then held out; tokens, hidden] last hidden states; owned */
    float *full_norm;  /* [hidden] owned */
    int64_t at_a_time; /* sequences that go through the model together */
    float *inputs;     /* [layers + 1][at_a_time, tokens, hidden] of the blocks, and of the head */
} snrq_passes;

/* Of all windows, those that are fitted to (not those of tokens that stand alone), and those held
 * out; then a rank's share of them. Not collective. */
snrq_range snrq_passes_fitted(const snrq_windows *windows);
snrq_range snrq_passes_held_out(const snrq_windows *windows);

/* Takes this rank's sequences through the full-precision model. watch and ropes are borrowed.
 * Collective; agreed. Free it after a failure, too: collective. */
snrq_status snrq_passes_create(const snrq_context *context, const snrq_model *model,
                               const snrq_windows *windows, const snrq_watch *watch,
                               const snrq_ropes *ropes, snrq_passes *out);
void snrq_passes_free(snrq_passes *passes);

/* kl [windows] <- KL in nats of the sequences `list` [count], each of this rank, summed over their
 * tokens; `learns`: their gradients are added to those of the model. Not collective. */
snrq_status snrq_passes_run(const snrq_passes *passes, snrq_tuned_model *tuned, const int64_t *list,
                            int64_t count, bool learns, double *kl);

/* Sequences of `own` that go through the model together. */
int64_t snrq_passes_at_a_time(const snrq_model *model, int64_t own, int64_t length);

#endif
