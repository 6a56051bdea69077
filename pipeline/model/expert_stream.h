/* Both streams in a block with experts.
 *
 * An expert is calibrated on the tokens that the router sends to it in the quantized stream, which
 * is what it will see; in the full-precision stream, on the same tokens, whether or not they are
 * sent to it there. The full-precision stream itself follows its own router. So there the experts
 * read the tokens of both.
 *
 * Source: docs/method.md, "Experts".
 */
#ifndef SNRQ_EXPERT_STREAM_H
#define SNRQ_EXPERT_STREAM_H

#include "pipeline/model/coverage.h"
#include "pipeline/model/experts.h"
#include "pipeline/model/stream.h"

/* Sequences are taken through an expert in batches of about so many tokens, of which it reads a
 * part. */
enum { SNRQ_EXPERT_BATCH = 8192 };

typedef struct snrq_stream_experts {
    snrq_expert_tokens tokens; /* what each expert reads */
    float *middle;             /* [tokens of all experts, width]: inputs of their [down]; owned */
    float *middle_all;         /* [tokens, width] of the expert that sees all; owned */
} snrq_stream_experts;

void snrq_stream_experts_free(snrq_stream_experts **experts);

/* Which tokens each expert reads; the streams have crossed the step before. `fitted`: sequences,
 * of all ranks, that count; `least`: tokens that an expert should have. Collective; agreed. */
snrq_status snrq_streams_route(const snrq_context *context, int64_t fitted, int64_t least,
                               snrq_stream *quantized, const snrq_block *quantized_block,
                               snrq_stream *full, const snrq_block *full_block,
                               snrq_coverage *coverage);

/* What a unit is calibrated on: the same tokens in both streams. */
typedef struct snrq_unit_tokens {
    snrq_activations x, xf;
    int64_t *first; /* owned, as the following; NULL where x and xf are the streams' own */
    float *x_data, *xf_data;
} snrq_unit_tokens;

/* Of unit `unit` of a step, counted within it. weighted: each token of an expert times its weight.
 * Not collective; fails only without memory. */
snrq_status snrq_streams_tokens(const snrq_stream *quantized, const snrq_stream *full,
                                const snrq_family *family, int step, int unit, bool weighted,
                                snrq_unit_tokens *out);
void snrq_unit_tokens_free(snrq_unit_tokens *tokens);

/* snrq_streams_advance() for the steps of experts. */
snrq_status snrq_streams_advance_experts(snrq_stream *quantized, const snrq_block *quantized_block,
                                         snrq_stream *full, const snrq_block *full_block, int step,
                                         int64_t total, double *measures);

/* Some sequences of a unit: its input in the quantized stream, and its outputs in both. */
typedef struct snrq_measured {
    int64_t sequences, sequence; /* how many; the number of the first one among all */
    const int64_t *first;        /* [sequences + 1] row where each begins */
    const float *x;              /* [rows, unit columns] */
    const float *y, *y_full;     /* [rows, unit rows] */
} snrq_measured;

/* Fills in the measures of the modules of a unit (stream.h); they begin with its first module. */
void snrq_stream_measure(const snrq_family *family, int unit, const snrq_measured *of,
                         int64_t total, double *measures);

#endif
