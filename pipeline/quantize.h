/* Quantizing a model: block by block, step by step. */
#ifndef SNRQ_QUANTIZE_H
#define SNRQ_QUANTIZE_H

#include "mpi/context.h"
#include "pipeline/options/options.h"

/* `snrq quantize`: the whole command. Collective; agreed. */
snrq_status snrq_quantize(const snrq_context *context, const snrq_options *options);

#endif
