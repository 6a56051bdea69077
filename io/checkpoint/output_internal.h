/* What the files of output.h share. */
#ifndef SNRQ_OUTPUT_INTERNAL_H
#define SNRQ_OUTPUT_INTERNAL_H

#include <limits.h>

#include "io/checkpoint/output.h"
#include "io/lock.h"

enum { SNRQ_CONFIGURATION_LIMIT = 16 << 20 }; /* bytes of snrq.json */

struct snrq_output {
    const snrq_context *context; /* borrowed */
    char directory[PATH_MAX - 2 * NAME_MAX];
    char path[PATH_MAX];    /* of the last snrq_output_temporary() */
    char configuration[33]; /* fingerprint of snrq.json */
    json_t *records;        /* array, the same on all ranks */
    snrq_lock *lock;        /* rank 0 */
    bool warned;            /* rank 0: a log could not be written */
};

/* Reads DIRECTORY/snrq.json: *configuration (the caller releases it) and its fingerprint. */
snrq_status snrq_output_load_configuration(const char *directory, json_t **configuration,
                                           char fingerprint[33]);

/* Text of snrq.json: keys sorted, indented for people. The caller frees *text. */
snrq_status snrq_output_configuration_text(const json_t *configuration, char **text);

/* Reads DIRECTORY/manifest.jsonl (none: no records) whose records must have the given
 * configuration. *torn: bytes after the last line; *used: bytes before them. The caller releases
 * *records. */
snrq_status snrq_output_load_manifest(const char *directory, const char *configuration,
                                      json_t **records, size_t *used, size_t *torn);

/* Checks that snrq.json has the bytes that a run writes, and the fingerprint that the records (an
 * array, or NULL where none are known) were made with. */
snrq_status snrq_output_check_configuration(const char *directory, const json_t *records);

/* Checks that the file of a record is there with the right size and hash. */
snrq_status snrq_output_check_file(const char *directory, const json_t *record);

/* The block that activations called `name` are kept after, or -1 if it is no such name. */
int64_t snrq_output_kept_block(const char *name);

/* Makes NAME.tmp durable on every node. Collective; agreed. */
snrq_status snrq_output_sync(snrq_output *output, const char *name);

/* True if `name` is a data file that a run makes but no record knows: not part of the output. */
bool snrq_output_is_stray(const char *directory, const char *name, const json_t *records);

#endif
