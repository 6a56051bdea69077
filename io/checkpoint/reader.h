/* Reading an output directory, finished or not: what it says about itself, and its blocks. A
 * running job may be looked at: no locks. Nothing here is collective. */
#ifndef SNRQ_CHECKPOINT_READER_H
#define SNRQ_CHECKPOINT_READER_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "io/checkpoint/block_file.h"
#include "io/lock.h"

/* In OUT: a directory for what a budget was chosen by (pipeline/assess.h). It may be there before
 * anything else is. */
#define SNRQ_OWN_ASSESSMENT "assessment"

/* True if `path` is a directory that holds snrq.json. */
bool snrq_output_is(const char *path);

/* The first file of a directory without snrq.json that no run leaves that was killed at once; "" if
 * there is none. */
snrq_status snrq_output_find_foreign(const char *directory, char name[NAME_MAX + 1]);

/* What a directory says about itself. */
typedef struct snrq_output_facts {
    json_t *configuration; /* of snrq.json; owned */
    json_t *records;       /* of the manifest, in order: an array; owned */
    bool complete;         /* the last record says so */
    const char *directory; /* borrowed */
} snrq_output_facts;

/* Reads them. SNRQ_NO_INPUT if `directory` (borrowed) holds no snrq.json, SNRQ_BAD_DATA names what
 * is damaged; if that is the manifest, records is NULL. Free them in any case. */
snrq_status snrq_output_read(const char *directory, snrq_output_facts *out);
void snrq_output_facts_free(snrq_output_facts *facts);

/* The records of all modules, in order of block and index: *modules [*count], which the caller
 * frees. SNRQ_BAD_DATA names what is wrong with one. */
snrq_status snrq_output_modules(const snrq_output_facts *facts, snrq_module_record **modules,
                                int64_t *count);

/* status.json, or an empty object if there is none; the events of run.jsonl as an array, without
 * lines that are no JSON (a torn last one); who holds the lock. Callers release what they get. */
snrq_status snrq_output_read_status(const char *directory, json_t **status);
snrq_status snrq_output_read_events(const char *directory, json_t **events);
snrq_status snrq_output_read_lock(const char *directory, snrq_lock_facts *lock);

/* A module that a block must have. */
typedef struct snrq_expected_module {
    char name[SNRQ_RECORD_NAME]; /* "model.layers.0.self_attn.q_proj" */
    int64_t rows, columns;
} snrq_expected_module;

/* Opens the file of a block, which must be that block and have just these modules [count], in this
 * order. SNRQ_BAD_DATA names what differs. The caller closes it. The file's bytes are trusted to be
 * what the manifest says: see snrq_output_verify(). */
snrq_status snrq_output_block_open(const char *directory, int64_t block,
                                   const snrq_expected_module *modules, int count,
                                   snrq_block_file **out);

/* Where to make a file again: the block that --redo takes for it, of the `blocks` of the model (0:
 * not known), or -1. */
int64_t snrq_output_redo_block(const json_t *record, int64_t blocks);

/* Is every committed file there with the right size (and `hashes`: the right hash), snrq.json as
 * the run wrote it, and no record lost? `status` is what status.json said before the facts were
 * read. Calls `report` for every file that is wrong, with what is wrong. *redo: the block that
 * --redo takes to mend all, or -1. Returns SNRQ_OK if all is well, else the first failure. */
typedef void snrq_verify_report(void *user, const char *file, const char *problem);
snrq_status snrq_output_check(const snrq_output_facts *facts, const json_t *status, bool hashes,
                              snrq_verify_report *report, void *user, int64_t *redo);

/* Checks the manifest, snrq.json and every committed file (present, size, hash), and activations
 * that are kept for an unfinished run; any other *.h5 file without a record and, once the run is
 * complete, a *.tmp file are wrong as well. Calls `report` (NULL: nobody) for every file with NULL
 * or what is wrong. Returns SNRQ_OK if all is well, else the first failure. */
snrq_status snrq_output_verify(const char *directory, snrq_verify_report *report, void *user);

#endif
