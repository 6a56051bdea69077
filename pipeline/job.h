/* The job's part of a quantization: what exists once, however its ranks are divided.
 *
 * The model's facts, the windows, the rules and the plan; the output directory with its lock,
 * manifest and log; progress, timers, the end. The blocks themselves are quantize.c's.
 */
#ifndef SNRQ_JOB_H
#define SNRQ_JOB_H

#include "mpi/mail.h"
#include "mpi/stop.h"
#include "mpi/watch.h"
#include "mpi/watchdog.h"
#include "pipeline/layer_groups.h"
#include "pipeline/phase.h"
#include "pipeline/plan.h"
#include "pipeline/report.h"
#include "pipeline/row_grams.h"
#include "pipeline/rules.h"

typedef struct snrq_job {
    const snrq_context *context; /* all ranks; borrowed */
    const snrq_options *options; /* borrowed, or `own` */
    snrq_options own;            /* with an assessment of the run's own; its texts are borrowed */
    char assessment[4200];       /* that it made for a budget */
    snrq_model *model;
    snrq_windows windows;
    snrq_rules rules;
    snrq_row_grams grams; /* of --sensitivity; not open before own_sensitivity.h made it */
    snrq_layer_groups groups;
    snrq_mail *mail; /* between the groups; NULL: there is one */
    snrq_plan plan;
    snrq_output *output; /* NULL: there is nothing to do (a dry run, a run that was complete) */
    json_t *tuning;      /* what the last record says of it; NULL: nothing was tuned. Owned */
    snrq_progress progress;
    snrq_timers timers; /* this rank's */
    snrq_stop stop;
    snrq_watch watch; /* of stop and timers */
    snrq_watchdog *watchdog;
    _Atomic bool works_in_output; /* read by the watchdog's thread */
    char halt_file[4200];
} snrq_job;

/* Reads, plans, checks, takes the lock, and starts the clock. Collective; agreed. Call
 * snrq_job_close() in any case. */
snrq_status snrq_job_open(const snrq_context *context, const snrq_options *options, snrq_job *job);
void snrq_job_close(snrq_job *job);

/* The end of a run that came out as `status`: says so, reports times, the quality and what to ask
 * for next time. Returns the run's status. Collective. */
snrq_status snrq_job_finish(snrq_job *job, snrq_status status);

/* Was this block committed, by this run or an earlier one? Of other groups, by an earlier one. */
bool snrq_job_is_committed(const snrq_job *job, int64_t layer);

/* Multiply-adds of a block, for the ETA. */
double snrq_job_block_work(const snrq_job *job, int64_t layer);

/* Alpha chained: alphas [modules] <- the strength for each module of a block, from what the block
 * before it suggests. */
void snrq_job_chained_alphas(const snrq_job *job, int64_t layer, double *alphas);

/* Writes and commits a block: modules [modules of the family], each with this rank's rows.
 * Collective over `context`, the ranks that share the block's rows; agreed. */
snrq_status snrq_job_commit_block(snrq_job *job, const snrq_context *context, int64_t layer,
                                  const snrq_module_rows *modules);

/* What other groups have sent since the last time. Called between steps. Not collective. */
void snrq_job_attend(snrq_job *job);

/* The end of a group's work, which came out as `status`: waits for the other groups. Where one
 * failed or stopped, the others stop at their next safe point. Collective; agreed. */
snrq_status snrq_job_join(snrq_job *job, snrq_status status);

/* Writes and commits what is not quantized: embeddings, norms, head, and the model's side files.
 * Collective; agreed. */
snrq_status snrq_job_commit_rest(snrq_job *job);

/* The last record, once all blocks are committed. Collective; agreed. */
snrq_status snrq_job_complete(snrq_job *job);

#endif
