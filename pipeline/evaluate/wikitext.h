/* The pages of WikiText as plain text again: what its makers set apart by blanks comes together.
 *
 * Source: the rules of lm-evaluation-harness for its task `wikitext`, which measures perplexity per
 * word of the text before, and so depends on every one of them. */
#ifndef SNRQ_WIKITEXT_H
#define SNRQ_WIKITEXT_H

#include "pipeline/evaluate/python_text.h"

/* In place. */
snrq_status snrq_wikitext_detokenize(snrq_string *page);

#endif
