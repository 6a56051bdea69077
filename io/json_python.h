/* JSON as Python writes and reads it, beyond the standard: NaN, Infinity and -Infinity, integers
 * beyond 64 bits, numbers beyond a double, and keys that are given twice.
 *
 * Jansson has no values for these. Each becomes a marked string that holds its text, so that it
 * does not matter where nobody asks for it, and json.h's look-ups refuse it by its key's name.
 */
#ifndef SNRQ_JSON_PYTHON_H
#define SNRQ_JSON_PYTHON_H

#include <jansson.h>
#include <stdbool.h>

#include "mpi/status.h"

/* Parses `data` [bytes]: one value in UTF-8. The caller releases *out with json_decref().
 * SNRQ_BAD_DATA with line and column, also if more than 16 keys are given twice. Not collective. */
snrq_status snrq_json_python_parse(const char *where, const char *data, size_t bytes, json_t **out);

/* What a marked string stands for: "Infinity", "an integer beyond 64 bits", ...; NULL for every
 * other value. Borrowed. */
const char *snrq_json_python_kind(const json_t *value);

/* The value of a number beyond 64 bits as a double; false if `value` is nothing of the kind, or
 * beyond a double. */
bool snrq_json_python_number(const json_t *value, double *out);

/* A JSON text in which marked strings are again what they stand for; of a key that was given twice
 * the last value, as Python reads it. Shortens `text` in place. */
void snrq_json_python_restore(char *text);

#endif
