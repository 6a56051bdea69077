/* JSON lines: texts as data sets hold them, one object per line: {"text": "...", ...}.
 *
 * What a file is, its content says, not its name. JSON as Python writes it is read: NaN, Infinity
 * and large integers in keys that nobody asks for, repeated keys (the last one counts), NUL as
 * \u0000. Not collective.
 */
#ifndef SNRQ_JSON_LINES_H
#define SNRQ_JSON_LINES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

/* Looks at the first `bytes` of a text; complete: there are no others. *lines: its first line that
 * is not empty is a JSON object, or tries to be one: the lines are to be read. Other JSON, such as
 * an array or an object over several lines, is SNRQ_BAD_DATA with what to do. A text that only
 * begins with a bracket is a text. */
snrq_status snrq_json_lines_detect(const char *path, const char *head, size_t bytes, bool complete,
                                   bool *lines);

/* The object of a line that is not empty; integers in it are real numbers. The caller releases it
 * with json_decref(). Otherwise as below. */
snrq_status snrq_json_line_object(const char *path, int64_t number, char *line, size_t bytes,
                                  json_t **object);

/* Is there nothing but white space in a line? */
bool snrq_json_line_is_blank(const char *line, size_t bytes);

/* The text of a line, a string under `key`. `number` is the line's, for messages. The line's bytes
 * may be changed. *object keeps the text alive: the caller releases it with json_decref(). A line
 * of white space has no object and no text (NULL). SNRQ_BAD_DATA names file and line: not JSON, no
 * object, no such key, no string. */
snrq_status snrq_json_line_text(const char *path, int64_t number, char *line, size_t bytes,
                                const char *key, json_t **object, const char **text,
                                size_t *text_bytes);

#endif
