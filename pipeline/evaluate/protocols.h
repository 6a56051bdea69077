/* The protocols of perplexity: how a text becomes windows. In every window all tokens but the first
 * are scored, given those before them in the window; perplexity = exp(mean token loss).
 *
 * A published figure is matched only by its own protocol: docs/evaluation.md compares them. */
#ifndef SNRQ_PROTOCOLS_H
#define SNRQ_PROTOCOLS_H

#include "pipeline/texts/windows.h"

/* A protocol: a row of the table in protocols.c. */
typedef struct snrq_protocol {
    const char *name;
    snrq_window_rule rule;
    int64_t count; /* windows, where --sequences is 0; 0: all */
    int64_t most;  /* with all of them: at most so many; 0: no limit */
} snrq_protocol;

/* A protocol, and what it is used on. */
typedef struct snrq_perplexity_order {
    const snrq_protocol *protocol;
    snrq_window_order windows;
    char source[4200]; /* the text's name, for people */
} snrq_perplexity_order;

enum { SNRQ_MOST_PROTOCOLS = 16 };

/* The protocols that `names` lists, with commas between them (NULL: consecutive windows), of what
 * `windows` has: orders [SNRQ_MOST_PROTOCOLS], of which *count are filled; they borrow from both.
 * Several protocols share one text, or each has its own, in order; one protocol takes all texts
 * together. SNRQ_USAGE. Not collective. */
snrq_status snrq_protocols_parse(const char *names, const snrq_window_order *windows,
                                 snrq_perplexity_order *orders, int *count);

#endif
