/* What a run tells: one line per step, the record of every module, where the time went.
 *
 * People read standard error of rank 0; programs read OUT/run.jsonl, where the same facts go. Where
 * layer groups work at the same time, rank 0 of each sends what it has to tell to rank 0 of the job
 * by mail (mpi/mail.h), which prints and logs it as its own.
 */
#ifndef SNRQ_REPORT_H
#define SNRQ_REPORT_H

#include "io/checkpoint/block_record.h"
#include "io/checkpoint/output.h"
#include "mpi/mail.h"
#include "mpi/timers.h"
#include "pipeline/layer_groups.h"
#include "pipeline/mismatch.h"
#include "pipeline/model/expert_stream.h"
#include "pipeline/phase.h"
#include "pipeline/rounding/trouble.h"

/* The kinds of letters between groups: an event, and that a group has stopped. */
enum { SNRQ_LETTER_EVENT, SNRQ_LETTER_STOP };

/* What was last heard of a group. */
typedef struct snrq_group_progress {
    int64_t committed, block; /* block -1: nothing was heard */
    char stage[32];
} snrq_group_progress;

/* Progress of a run in units of work (multiply-adds), for the ETA. */
typedef struct snrq_progress {
    const snrq_context *context;     /* of the job; borrowed */
    const snrq_layer_groups *groups; /* borrowed */
    snrq_mail *mail;                 /* of the job, borrowed; NULL: there is one group */
    snrq_group_progress *group;      /* [groups] owned; of rank 0 */
    bool terminal;                   /* standard error is a terminal: one line, rewritten */
    int64_t blocks, committed;
    double total, done, replayed;
    double started, step_started, told;
    bool *told_few_tokens; /* [units of a block] owned */
} snrq_progress;

/* What rounding a unit took, and what it had to work with: for the run log. */
typedef struct snrq_unit_measures {
    double seconds[SNRQ_PHASES]; /* of this rank, by phase */
    double peak_memory;          /* bytes; the largest of this rank so far */
    snrq_mismatch mismatch;
} snrq_unit_measures;

/* Starts the clock; logs the start of a run of the blocks of `groups`, of which some may be
 * committed. mail: NULL for one group. Fails only without memory. */
snrq_status snrq_progress_start(const snrq_context *context, snrq_output *output, int units,
                                const snrq_layer_groups *groups, snrq_mail *mail, double total,
                                snrq_progress *out);
void snrq_progress_free(snrq_progress *progress);

/* Rank 0 of the job: prints and logs what another group sent. */
void snrq_progress_hear(snrq_progress *progress, snrq_output *output, const char *text);

/* Logs an event of this group; `event` is taken over. */
void snrq_progress_event(snrq_progress *progress, snrq_output *output, json_t *event);

/* Reports how many tokens the experts of a block read. */
void snrq_progress_coverage(snrq_progress *progress, snrq_output *output, int64_t layer,
                            const snrq_coverage *coverage);

/* Reports that the backward pass of --sensitivity auto went through a block, "forward" or "back",
 * and that it is done: tokens, mean loss of the drawn labels, seconds. Of the job. */
void snrq_progress_pass(snrq_progress *progress, snrq_output *output, const char *direction,
                        int64_t layer, double work);
void snrq_progress_passed(snrq_progress *progress, snrq_output *output, int64_t tokens, double loss,
                          double seconds);

/* Reports a finished step of the family: `records` of all modules of the block, `measures` of all
 * its units. Here and below, rank 0 of a group tells; its other ranks return at once. */
void snrq_progress_step(snrq_progress *progress, snrq_output *output, const snrq_family *family,
                        int64_t layer, int step, double work, const snrq_module_record *records,
                        const snrq_unit_measures *measures);

/* Tells of the trouble of a part: a line and an event "warning" each. */
void snrq_progress_troubles(snrq_progress *progress, snrq_output *output, const snrq_family *family,
                            int64_t layer, int part, snrq_dtype scale_type,
                            const snrq_trouble_list *troubles);

/* Counts a block that this run committed, and one that an earlier run did. */
void snrq_progress_committed(snrq_progress *progress, snrq_output *output, int64_t layer);
void snrq_progress_replayed(snrq_progress *progress, snrq_output *output, int64_t layer,
                            double work);

/* Counts the blocks before `blocks` of this group, whose activations were read. */
void snrq_progress_read(snrq_progress *progress, snrq_output *output, int64_t blocks, double work);

/* An epoch of tuning that is done; 0: what was there before. KL in nats a token. */
typedef struct snrq_tuning_progress {
    int64_t epoch, epochs, best;
    double fitted, held_out;
    double seconds, seconds_left;
} snrq_tuning_progress;
void snrq_progress_tuning(const snrq_progress *progress, snrq_output *output,
                          const snrq_tuning_progress *tuning);

/* Says in status.json and run.jsonl how the run ended: complete, stopped, or failed with
 * snrq_error_message(). */
void snrq_progress_end(const snrq_progress *progress, snrq_output *output, snrq_status status);

/* Phases x (min, mean, max, slowest rank), the rest, peak memory: prints on rank 0 and logs.
 * Collective. */
snrq_status snrq_report_timers(const snrq_context *context, const snrq_timers *timers,
                               snrq_output *output);

#endif
