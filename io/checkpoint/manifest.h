/* The manifest: one line per committed file, each protected by a hash of its own text.
 *
 * A line is TEXT,"line":"HHHHHHHHHHHHHHHH"} and a newline, where TEXT} is a JSON object, compact,
 * with its keys sorted, and H... is the XXH3-64 of TEXT in 16 hex digits. Its fields are
 *
 *   record              number of the line, from 0: a missing or moved line is noticed
 *   configuration       fingerprint of snrq.json, 32 hex digits
 *   file, bytes, xxh3   name, size and XXH3-128 of a committed file, or
 *   complete            true, in the last record of a finished run
 *
 * and whatever else is known about the file: "block", its number, of the file of a block. Not
 * collective.
 */
#ifndef SNRQ_MANIFEST_H
#define SNRQ_MANIFEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/status.h"

enum { SNRQ_FILE_NAME = 200 };

/* The canonical text of a JSON value: compact, keys sorted, numbers with 17 significant digits. The
 * caller frees *text. */
snrq_status snrq_canonical(const json_t *value, char **text);
/* XXH3-128 of the canonical text, 32 hex digits. */
snrq_status snrq_fingerprint(const json_t *value, char out[33]);

/* True if `name` can be a committed file: a plain name without directory (but for
 * additional_chat_templates/NAME), not one of the
 * directory's own files, nor that of a temporary file or of a record on its own. */
bool snrq_manifest_name_is_valid(const char *name);

/* The line of a record, with its newline. The caller frees *line. */
snrq_status snrq_manifest_line(const json_t *record, char **line);

/* Reads lines: *records is an array (without the "line" fields); the caller releases it. *used:
 * bytes up to the last newline; what follows is a torn line, and no record. configuration: what
 * every record must have; NULL: what the first one has. SNRQ_BAD_DATA names the line: wrong hash,
 * number, fields or configuration, two records of one file, records after the last. */
snrq_status snrq_manifest_parse(const char *path, const char *data, size_t bytes,
                                const char *configuration, json_t **records, size_t *used);

/* Brings records into the order of a finished manifest, which no timing changes: first the files of
 * no block, as they are; then those of blocks, by block and name; last the record that completes
 * the run. Numbers them. *changed: they were in another order. */
snrq_status snrq_manifest_sort(json_t *records, bool *changed);

/* The block that a record (or the details of one) belongs to, or -1. */
int64_t snrq_manifest_block(const json_t *record);

/* The record of a file, or NULL (borrowed); true if the last record says that the run is complete.
 */
const json_t *snrq_manifest_find(const json_t *records, const char *name);
bool snrq_manifest_complete(const json_t *records);

#endif
