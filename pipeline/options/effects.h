/* Which option has an effect with which others: one table for what is refused, for what is stored
 * and for what --print-options shows. */
#ifndef SNRQ_OPTION_EFFECTS_H
#define SNRQ_OPTION_EFFECTS_H

#include "pipeline/options/options.h"

typedef struct snrq_option_idle {
    const char *reason; /* why the option has no effect with the others, as the end of a sentence */
    const char *instead; /* the value that says what is done then; NULL: there is none */
} snrq_option_idle;

/* What makes the option of this name idle, or NULL: it has its effect. Borrowed. The options are
 * those of one command, with defaults where nothing was given. */
const snrq_option_idle *snrq_option_find_idle(const snrq_options *options, const char *name);

#endif
