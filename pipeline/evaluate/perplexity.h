/* What a protocol gave: losses of windows, and how they are told. */
#ifndef SNRQ_PERPLEXITY_H
#define SNRQ_PERPLEXITY_H

#include <jansson.h>
#include <stdio.h>

#include "pipeline/evaluate/protocols.h"

/* Figures of the windows of one evaluation. Every window has length - 1 scored tokens. */
typedef struct snrq_perplexity {
    const snrq_perplexity_order *order; /* borrowed */
    snrq_windows windows;               /* owned, as the rest */
    bool compared;                      /* with a reference */
    double predicted;                   /* KL that a budget was chosen by; 0: none */
    double *loss;                       /* [windows] mean loss of its tokens, in nats */
    double *kl, *top1; /* [windows] means of KL(reference || model) and of agreeing first choices */
} snrq_perplexity;

/* Room for the figures, zeroed. */
snrq_status snrq_perplexity_create(snrq_perplexity *p);
void snrq_perplexity_free(snrq_perplexity *p);

/* A figure that is no number means weights that are none: SNRQ_BAD_DATA. */
snrq_status snrq_perplexity_check(const snrq_perplexity *p, const char *model,
                                  const char *reference);

/* As lines for people; as an object (new reference; NULL without memory); one object for each
 * window, as lines on `out` (SNRQ_INTERNAL without memory). */
void snrq_perplexity_print(const snrq_perplexity *p, FILE *out);
json_t *snrq_perplexity_json(const snrq_perplexity *p);
snrq_status snrq_perplexity_samples(const snrq_perplexity *p, FILE *out);

#endif
