/* Requests become tokens, and tokens passages: as lm-evaluation-harness encodes them.
 *
 *     white space at the end of a context belongs to the continuation
 *     whole = encode(context + continuation), c = encode(context)
 *     scored are the tokens of `whole` after the first |c|, given those before them
 *     of more than `longest` + 1 tokens, the last ones are kept
 *     an empty context is the tokenizer's start token, and encode(continuation) follows it
 *
 * What the requests of an item begin with alike is computed once.
 */
#ifndef SNRQ_REQUESTS_H
#define SNRQ_REQUESTS_H

#include "io/config.h"
#include "io/tokenizer/tokenizer.h"
#include "pipeline/evaluate/passages.h"
#include "pipeline/evaluate/tasks.h"

typedef struct snrq_request_rules {
    const snrq_tokenizer *tokenizer; /* borrowed */
    const snrq_config *config;       /* borrowed */
    bool special;                    /* texts begin as the tokenizer says: with BOS */
} snrq_request_rules;

/* Adds an item's requests as questions first, first + 1, ...; of a rolling task, its text as the
 * one question `first`. Messages begin with `where`. Not collective. */
snrq_status snrq_requests_add(const snrq_request_rules *rules, const char *where,
                              const snrq_task *task, const snrq_item *item, int64_t first,
                              snrq_passages *passages);

#endif
