/* What the files of output.h share. */
#ifndef SNRQ_OUTPUT_INTERNAL_H
#define SNRQ_OUTPUT_INTERNAL_H

#include <limits.h>

#include "io/checkpoint/output.h"
#include "io/lock.h"

enum { SNRQ_CONFIGURATION_LIMIT = 16 << 20 }; /* bytes of snrq.json */

struct snrq_output {
    const snrq_context *context; /* borrowed: the job's */
    char directory[PATH_MAX - 2 * NAME_MAX];
    char path[PATH_MAX];    /* of the last snrq_output_temporary() */
    char configuration[33]; /* fingerprint of snrq.json */
    json_t *records;       /* array: those of the manifest, and what this rank's groups committed */
    json_t *next;          /* array: those of files that will be replaced; rank 0 */
    json_t *pending;       /* array: those that this rank put beside their files */
    snrq_lock *lock;       /* rank 0 */
    snrq_lock_owner owner; /* who took it */
    bool warned;           /* rank 0: a log could not be written */
    snrq_output_start start;
    int64_t blocks; /* of the model, as the configuration says; 0: it does not */
};

/* Reads DIRECTORY/snrq.json: *configuration (the caller releases it) and its fingerprint. */
snrq_status snrq_output_load_configuration(const char *directory, json_t **configuration,
                                           char fingerprint[33]);

/* Text of snrq.json: keys sorted, indented for people. The caller frees *text. */
snrq_status snrq_output_configuration_text(const json_t *configuration, char **text);

/* Reads DIRECTORY/manifest.jsonl (none: no records), and the records that are not in it yet, which
 * must have the given configuration. The records are in order and numbered. *torn: bytes after the
 * last line; *used: bytes before them. The caller releases *records. */
snrq_status snrq_output_load_manifest(const char *directory, const char *configuration,
                                      json_t **records, size_t *used, size_t *torn);

/* Checks that snrq.json has the bytes that a run writes, and the fingerprint that the records (an
 * array, or NULL where none are known) were made with. */
snrq_status snrq_output_check_configuration(const char *directory, const json_t *records);

/* Checks that the file of a record is there with the right size. */
snrq_status snrq_output_check_size(const char *directory, const json_t *record);
/* Checks that the file of a record is there with the right size and hash. */
snrq_status snrq_output_check_file(const char *directory, const json_t *record);

/* The name of the file that says from where blocks are made again. */
#define SNRQ_REDO_FILE "snrq.redo"

/* Drops the records of blocks from output->start.block on, and of damaged files of no block, from
 * output->records and from the manifest; see snrq_output_start. Rank 0. */
snrq_status snrq_output_redo(snrq_output *output);

/* How many blocks the model of a configuration has; 0: it does not say. */
int64_t snrq_output_blocks(const json_t *configuration);

/* Adds to the message of a failure what can be done: snrq_output_start.redo of `block`, of the
 * `blocks` there are; -1: nothing but to put the file back. Returns `status`. */
snrq_status snrq_output_advise(snrq_status status, int64_t block, int64_t blocks);

/* The block that activations called `name` are kept after, or -1 if it is no such name. */
int64_t snrq_output_kept_block(const char *name);

/* Makes NAME.tmp durable on every node. Collective over the context; agreed. */
snrq_status snrq_output_sync(snrq_output *output, const snrq_context *context, const char *name);

/* SNRQ_CANNOT_WRITE if the job has lost its lock. Not collective: one rank asks before it changes
 * anything. */
snrq_status snrq_output_check_lock(const snrq_output *output);

/* Puts a record beside its file NAME. *there: it is there, even if that failed. Not collective. */
snrq_status snrq_output_put_record(const snrq_output *output, const char *name,
                                   const json_t *record, bool *there);

/* The records that are beside their files: an array that the caller releases; NULL: none. */
snrq_status snrq_output_load_pending(const char *directory, json_t **pending);

/* Adds such records to those of the manifest, sorts and numbers all. Each must have the given
 * configuration (NULL: that of the first record). */
snrq_status snrq_output_add_pending(const char *directory, const char *configuration,
                                    const json_t *pending, json_t *records);

/* *found: records are beside their files that the output knows. Rank 0. */
snrq_status snrq_output_find_settled(const snrq_output *output, bool *found);

/* Replaces the manifest by the records, then removes those that are beside their files. Rank 0. */
snrq_status snrq_output_settle(const snrq_output *output);

/* Lines of the manifest of all records. The caller frees *text. */
snrq_status snrq_output_lines(const json_t *records, char **text, size_t *bytes);

/* For one that is being committed. Rank 0 of the context: a record with the fields of `details` and
 * those of the manifest's own, which the caller releases; then name, size and hash of its file,
 * which lies at `path`. */
snrq_status snrq_output_make_record(const snrq_output *output, const snrq_context *context,
                                    const json_t *details, json_t **record);
snrq_status snrq_output_describe_file(const char *path, const char *name, json_t *record);

/* Gives the records of rank 0 to all ranks. Collective over the job; agreed. */
snrq_status snrq_output_share_records(snrq_output *output);

/* What the names of files that are to replace others end with. */
#define SNRQ_NEXT_SUFFIX ".next"

/* Has a run begun to give such files their names, and not ended? */
bool snrq_output_is_replacing(const char *directory);

/* Goes on with that: output->records are those of the new manifest. Rank 0. */
snrq_status snrq_output_finish_replacing(const snrq_output *output);

/* Where the file NAME of a record, or the manifest, is now: NAME, or NAME.next while files are
 * replaced. */
snrq_status snrq_output_current_path(const char *directory, const char *name, char path[PATH_MAX]);

/* True if `name` is a data file that a run makes but no record knows: not part of the output. */
bool snrq_output_is_stray(const char *directory, const char *name, const json_t *records);

#endif
