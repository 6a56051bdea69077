/* tokenizer.json with the character U+0000 in its vocabulary.
 *
 * JSON may spell it \u0000, but strings here end with it. It is read as U+FFFF, which is no
 * character; who uses the text of a token turns it back. A file that has both, or U+0000 anywhere
 * but in the tokens and merges of the model, is refused. */
#ifndef SNRQ_TOKENIZER_NUL_H
#define SNRQ_TOKENIZER_NUL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "mpi/status.h"

/* What stands for U+0000, as UTF-8. */
#define SNRQ_NUL_TEXT "\xef\xbf\xbf"
enum { SNRQ_NUL_BYTES = 3 };

/* Parses the content of a tokenizer.json, as snrq_json_parse_foreign() does. *nul: it has tokens
 * with U+0000. The caller releases *out. */
snrq_status snrq_tokenizer_json_parse(const char *path, const char *data, size_t bytes,
                                      json_t **out, bool *nul);

/* Does the text have what stands for U+0000? */
bool snrq_nul_stands_in(const char *text, size_t bytes);

/* Copies text [bytes] with U+0000 in place of what stands for it to out [bytes], which may be text;
 * returns the number of bytes there. */
size_t snrq_nul_restore(const char *text, size_t bytes, char *out);

#endif
