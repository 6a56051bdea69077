/* The output directory: configuration, lock, manifest, commit, run log.
 *
 *   OUT/snrq.json       configuration as run, written first: {"format", "version", "options",
 *                       "model", "calibration"}
 *   OUT/manifest.jsonl  append-only, one record per committed file; the record IS the commit
 *   OUT/run.jsonl       events and timers;   OUT/status.json: replaced atomically
 *   OUT/snrq.lock       who works here (host, process, job, heartbeat)
 *   OUT/snrq.halt       made by somebody else: asks the run to stop
 *   OUT/snrq.tuning     where tuning is, until complete (tuning_file.h)
 *   OUT/snrq.redo       which block a run began again from (snrq_output_start.redo), until complete
 *
 * Commit of a file: it is complete as NAME.tmp on all ranks -> fsync on every node -> rank 0 hashes
 * it -> rename -> fsync of the directory -> append + fsync of the manifest record. A file without a
 * record does not exist: it is removed when a run resumes, but for activations that an unfinished
 * run keeps (see snrq_output_keep()). A manifest record ends with a hash of
 * its own text; a torn last line (a kill while appending) is cut off on resume, any other damage is
 * an error that names the line.
 *
 * The directory, its lock, manifest and logs belong to the job: the context that opened it. Files
 * belong to the ranks that write them: all of the job, or a group split from it. The group's rank 0
 * does then what rank 0 of the job does otherwise, but for the last step: the record of NAME is not
 * appended to the manifest, which only one rank writes, but put beside the file as NAME.record, a
 * manifest of one line. No group waits for another one, and the commit is as good as any: whoever
 * reads the directory takes these records for part of the manifest. snrq_output_merge() brings them
 * into it, in an order that depends on the files alone (snrq_manifest_sort()), and replaces it
 * atomically; finishing and resuming a run do so. So a finished manifest has the same bytes however
 * fast the groups were, and wherever the run was killed.
 *
 * A run in groups has to see to three more things: rank 0 of the job alone writes to the logs, so
 * groups have to tell it what happened; a group knows the records of other groups only after
 * snrq_output_merge(); and a record gets its number there, so that what identifies kept activations
 * (keeper.c) must not depend on it.
 */
#ifndef SNRQ_OUTPUT_H
#define SNRQ_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>

#include "io/lock.h"
#include "mpi/collective.h"
#include "mpi/context.h"

typedef struct snrq_output snrq_output;

/* Opens `directory` for a run with `configuration` (borrowed; the keys above). Creates the
 * directory (one level) and snrq.json if new; refuses a non-empty directory that is no snrq output.
 * If a run was started there before, its configuration must be the same: otherwise SNRQ_USAGE and
 * the message names the first keys that differ, with both values ("options.bits: the unfinished run
 * has 3, this one 4"). Takes the lock: SNRQ_CANNOT_WRITE and who holds it, if another live job
 * does; a stale lock (same host and no such process, or an older heartbeat than ten minutes on
 * another host) is taken over with a note on stderr. Verifies the size and hash of every committed
 * file (shared out over the ranks); removes *.tmp and *.h5 files without a record, nothing else.
 * Collective over the context, which is the job's from then on; agreed. */
snrq_status snrq_output_open(const snrq_context *context, const char *directory,
                             const json_t *configuration, snrq_output **out);

/* How to open a directory, where that is not just to start or go on. */
typedef struct snrq_output_start {
    bool look;         /* say what opening would say, but write nothing and take no lock */
    bool force_unlock; /* with `look`: as if snrq_output_force_unlock() came first */
    bool redo;         /* make blocks from `block` on again, if they are there, and damaged files
                        * of no block: their records leave the manifest at once, then the files go.
                        * A run that was interrupted in this goes on with the same `block` */
    int64_t block;     /* up to the number of blocks there are: then none */
} snrq_output_start;

/* snrq_output_open(), differently. SNRQ_USAGE for a `block` that the model does not have or that no
 * run has made yet. With `look`, the output knows the records that a run would start with, if
 * nothing is refused, and is good for asking for them and for snrq_output_close(). */
snrq_status snrq_output_open_as(const snrq_context *context, const char *directory,
                                const json_t *configuration, const snrq_output_start *start,
                                snrq_output **out);

/* Removes the lock of a run that is gone for good, though that cannot be seen from here: on another
 * host, not silent for long enough. See snrq_lock_force(). Collective; agreed. */
snrq_status snrq_output_force_unlock(const snrq_context *context, const char *directory);

/* Releases the lock and frees. Collective over the job. Files without a record are left as .tmp for
 * the next run to remove. */
void snrq_output_close(snrq_output **output);

/* The directory it was opened with. Borrowed. */
const char *snrq_output_directory(const snrq_output *output);

/* The committed record of file `name`, or NULL. Borrowed until the next snrq_output_merge() or
 * snrq_output_finish(). The same on all ranks of the context that committed it, and after
 * snrq_output_merge() on all ranks of the job. */
const json_t *snrq_output_record(const snrq_output *output, const char *name);

/* True if the last record says that the run is complete. */
bool snrq_output_complete(const snrq_output *output);

/* Path of NAME.tmp in the output directory, to write to. Borrowed until the next call. */
const char *snrq_output_temporary(snrq_output *output, const char *name);

/* Commits NAME.tmp as NAME (see the protocol above); `details` (borrowed, an object or NULL) is
 * stored in the record beside {"file", "bytes", "xxh3", "configuration", "record"}. context: the
 * ranks that wrote it, all of the job or a group of them. A group commits files of blocks only:
 * *.h5, with "block" in the details; what it commits is in the manifest after snrq_output_merge().
 * Collective over the context; agreed. */
snrq_status snrq_output_commit(snrq_output *output, const snrq_context *context, const char *name,
                               const json_t *details);

/* Replaces committed files, all at once. prepare: takes NAME.tmp as what NAME will be, with a
 * record as snrq_output_commit() makes it; what was prepared is lost if the run ends before they
 * are replaced. replace: does it; whoever reads the directory meanwhile, or after a kill at any
 * moment, finds the old files with their records, or the new ones. Collective over the job; agreed.
 */
snrq_status snrq_output_prepare(snrq_output *output, const char *name, const json_t *details);
snrq_status snrq_output_replace(snrq_output *output);

/* The file that says where tuning is (tuning_file.h): no part of the output, and gone when the run
 * is complete. put: makes its temporary durable and gives it its name. Collective over the job;
 * agreed. */
#define SNRQ_TUNING_FILE "snrq.tuning"
snrq_status snrq_output_put_tuning(snrq_output *output);

/* Brings the records of what groups have committed into the manifest, and to all ranks. Changes
 * nothing if there are none. Collective over the job; agreed. */
snrq_status snrq_output_merge(snrq_output *output);

/* Activations (activation_file.h) that a context keeps to resume from: at most one file for the run
 * of blocks [begin, end) that it works on, which is no part of the output and has no record. It may
 * be lost at any time.
 *
 * keep: makes NAME.tmp durable and gives it its name, that of the activations after `block`, then
 * removes those after other blocks of its run; on failure NAME.tmp is gone. kept: the last of
 * `blocks` that activations are there for, or -1. drop: removes those after any of `blocks`. All
 * are collective over the context and agreed; a job that has lost its lock changes nothing. */
void snrq_output_kept_name(int64_t block, char out[40]);
snrq_status snrq_output_keep(snrq_output *output, const snrq_context *context, snrq_range blocks,
                             int64_t block);
snrq_status snrq_output_kept(const snrq_output *output, const snrq_context *context,
                             snrq_range blocks, int64_t *block);
snrq_status snrq_output_drop_kept(snrq_output *output, const snrq_context *context,
                                  snrq_range blocks);

/* Merges, and writes the closing record {"complete": true, ...details}. Collective over the job;
 * agreed. */
snrq_status snrq_output_finish(snrq_output *output, const json_t *details);

/* Copies the model's side files (side_files.h) into the directory; each is committed with a record
 * of its own, unless it has one already. Collective over the job; agreed. */
snrq_status snrq_output_copy_model_files(snrq_output *output, const char *model);

/* Appends an event to run.jsonl ("time" is added) / replaces status.json. Rank 0 of the job writes,
 * the other ranks return at once. A failure is a warning on stderr (once): logs never stop a run.
 * Not collective. */
void snrq_output_event(snrq_output *output, const json_t *event);
void snrq_output_status(snrq_output *output, const json_t *status);

/* Says in both that the run hung, and why. For the thread that ends a process (watchdog.h), of any
 * rank of a job that works in the directory; `number` tells the ranks apart. */
void snrq_output_hung(const char *directory, int number, const char *message);

#endif
