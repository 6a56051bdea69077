/* Tuning at work, between the files of this folder. */
#ifndef SNRQ_TUNER_H
#define SNRQ_TUNER_H

#include "pipeline/job.h"
#include "pipeline/tuning_passes.h"

typedef struct snrq_tuner {
    snrq_job *job;
    const snrq_context *context;
    snrq_ropes ropes;
    snrq_passes passes;
    snrq_tuned_model model;
    int64_t epochs, batches; /* of an epoch */
    snrq_range held_out;
    int64_t *list;       /* [windows] room for sequences */
    double *kl;          /* [windows] */
    int64_t epoch, best; /* epochs that are done; the best of them, 0: what was there before */
    double best_kl;
    snrq_adam adam;
    json_t *history; /* array, one object for each epoch; owned */
} snrq_tuner;

/* What is recorded of it, in the manifest and for a run that resumes. New reference. */
json_t *snrq_tuner_record(const snrq_tuner *tuner);

/* The epoch after which the optimizer last began, for its model was worse than one before; 0: none
 * was. *worse, unless NULL: how many were. */
int64_t snrq_tuner_begun(const snrq_tuner *tuner, int64_t *worse);

/* Writes where it is, or goes on where an earlier run said that it was; *resumed: it did. A state
 * that is damaged, or of other files, is none. Collective; agreed. */
snrq_status snrq_tuner_put(snrq_tuner *tuner);
snrq_status snrq_tuner_resume(snrq_tuner *tuner, bool *resumed);

/* Replaces all files of the output by those of the best model. Collective; agreed. */
snrq_status snrq_tuner_publish(snrq_tuner *tuner);

#endif
