/* Strings that grow, and what Python does with strings: tasks are defined by Python code.
 *
 * All text is valid UTF-8. White space is what str.isspace() calls so. Errors: SNRQ_INTERNAL
 * without memory; a regular expression that takes too long is SNRQ_BAD_DATA.
 */
#ifndef SNRQ_PYTHON_TEXT_H
#define SNRQ_PYTHON_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/status.h"

/* A piece of a text, borrowed. */
typedef struct snrq_piece {
    const char *data;
    size_t bytes;
} snrq_piece;

/* Zero-initialized is empty. Release with free(data). */
typedef struct snrq_string {
    char *data;
    size_t bytes, room;
} snrq_string;

snrq_status snrq_string_add(snrq_string *string, snrq_piece piece);
snrq_piece snrq_string_piece(const snrq_string *string);
/* A text that ends with NUL. */
snrq_piece snrq_piece_of(const char *text);

/* rstrip() and strip(): views of the piece. */
snrq_piece snrq_python_rstrip(snrq_piece piece);
snrq_piece snrq_python_strip(snrq_piece piece);
/* Adds piece.capitalize(): the first character in title case, all others in lower case. */
snrq_status snrq_python_capitalize(snrq_piece piece, snrq_string *out);
/* len(piece): characters. */
int64_t snrq_python_length(snrq_piece piece);
/* len(re.split(r"\s+", piece)): stretches of other characters than white space, an empty one at
 * either end included. */
int64_t snrq_python_words(snrq_piece piece);

/* string.replace(from, to), in place. */
snrq_status snrq_python_replace(snrq_string *string, const char *from, const char *to);
/* re.sub(pattern, to, string), in place; $1 in `to` is the first group. */
snrq_status snrq_python_substitute(snrq_string *string, const char *pattern, const char *to);

#endif
