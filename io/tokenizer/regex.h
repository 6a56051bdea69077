/* Regular expressions of tokenizer.json, compiled by PCRE2; for the files of this folder only. */
#ifndef SNRQ_TOKENIZER_REGEX_H
#define SNRQ_TOKENIZER_REGEX_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "mpi/status.h"

/* Compiles an expression in Oniguruma's spelling / a string that is looked for as it is. What is
 * not supported is SNRQ_BAD_DATA with the place. Release with pcre2_code_free(). */
snrq_status snrq_regex_compile(const char *where, const char *pattern, pcre2_code **out);
snrq_status snrq_regex_literal(const char *where, const char *text, pcre2_code **out);

#endif
