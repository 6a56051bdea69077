/* Typed look-ups in JSON files that other programs wrote: a wrong type, a missing key or a number
 * out of range becomes a message that names the file, the key, what was expected and what was
 * found.
 *
 * `where` is what messages begin with: the file, and the part of it if that helps
 * ("DIR/config.json", "DIR/tokenizer.json: normalizer"). A key whose value is null counts as
 * absent. Nothing is collective.
 */
#ifndef SNRQ_JSON_H
#define SNRQ_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mpi/status.h"

/* Parses `data` [bytes], which must be one JSON object in UTF-8 without duplicate keys. The caller
 * releases *out with json_decref(). SNRQ_BAD_DATA with line and column. */
snrq_status snrq_json_parse(const char *where, const char *data, size_t bytes, json_t **out);

/* The same for what other programs wrote: what Python writes beyond the standard is read, too
 * (json_python.h), and refused where a look-up below meets it. */
snrq_status snrq_json_parse_foreign(const char *where, const char *data, size_t bytes,
                                    json_t **out);

/* Reads a file of at most `limit` bytes and parses it as snrq_json_parse_foreign() does. */
snrq_status snrq_json_read(const char *path, size_t limit, json_t **out);

/* json_dumps() for what snrq_json_read() gave: what was beyond the standard is so again. The caller
 * frees the text; NULL without memory. */
char *snrq_json_dump(const json_t *value, size_t flags);

/* Prints a JSON object (taken over; NULL: it could not be made) as a line on standard output.
 * SNRQ_INTERNAL without memory, SNRQ_IO_ERROR if the line cannot be written. */
snrq_status snrq_json_print(json_t *object);
/* The same on standard error, or wherever a command's answers go. */
snrq_status snrq_json_write(FILE *stream, json_t *object);

/* A text that may be anything, such as a path, as a JSON string. UTF-8 is taken as it is. Elsewhere
 * every byte that belongs to no UTF-8 character becomes \xNN (two hexadecimal digits), and a
 * backslash \\. NULL becomes null. New reference; NULL without memory. */
json_t *snrq_json_text(const char *text);

/* "an object", "a string", "an integer", "Infinity", ...; "nothing" for NULL. Borrowed. */
const char *snrq_json_kind(const json_t *value);

/* Is it a string, and none that stands for a value beyond the standard? */
bool snrq_json_is_text(const json_t *value);

enum { SNRQ_SHOWN = 96 };
/* `text` as it may be put in a message: control characters as '?', cut with "..." if long. Returns
 * `out`. */
const char *snrq_shown(const char *text, char out[SNRQ_SHOWN]);

/* object[key] as an integer in [low, high], a finite number in [low, high], a boolean, a string
 * (borrowed from the object). `otherwise` is the value of an absent key; with NULL the key is
 * required. SNRQ_BAD_DATA. */
snrq_status snrq_json_integer(const char *where, const json_t *object, const char *key, int64_t low,
                              int64_t high, const int64_t *otherwise, int64_t *out);
snrq_status snrq_json_number(const char *where, const json_t *object, const char *key, double low,
                             double high, const double *otherwise, double *out);
snrq_status snrq_json_boolean(const char *where, const json_t *object, const char *key,
                              bool otherwise, bool *out);
snrq_status snrq_json_string(const char *where, const json_t *object, const char *key,
                             const char *otherwise, const char **out);

/* object[key], which must be there and an object / an array (borrowed). */
snrq_status snrq_json_object(const char *where, const json_t *object, const char *key,
                             json_t **out);
snrq_status snrq_json_array(const char *where, const json_t *object, const char *key, json_t **out);

#endif
