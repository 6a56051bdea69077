/* Values of options in JSON, as people type them. */
#ifndef SNRQ_OPTION_TEXT_H
#define SNRQ_OPTION_TEXT_H

#include <jansson.h>

enum { SNRQ_OPTION_TEXT = 96 };

/* "fixed:0.5", "3", "0.25", "yes", "no"; "-" for null, nothing and all else: an option without
 * effect. Long texts are cut. Returns `out`. */
const char *snrq_option_text(const json_t *value, char out[SNRQ_OPTION_TEXT]);

#endif
