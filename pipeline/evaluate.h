/* Measuring a model: perplexity by the protocols of published results, and its distance to a
 * reference model. */
#ifndef SNRQ_EVALUATE_H
#define SNRQ_EVALUATE_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* `snrq evaluate`: the whole command. In every window all tokens but the first are scored, given
 * those before them in the window (GPTQ's protocol, arXiv 2210.17323); perplexity = exp(mean token
 * loss). With a reference: mean KL(reference || model) in nats and the share of positions with the
 * same most likely token. Every figure has a standard error. Whatever is asked for, the model is
 * read once, or as often as memory makes it necessary (evaluate/score.h). The result does not
 * depend on the number of ranks. Collective; agreed. */
snrq_status snrq_evaluate(const snrq_context *context, const snrq_options *options);

#endif
