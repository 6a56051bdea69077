/* Activations of this rank's sequences on their way through the model.
 *
 * Two streams run side by side in a quantization: X through the blocks quantized so far, Xf through
 * the full-precision ones. A stream holds the residual h of every sequence and, inside a block, the
 * inputs of the next step's units.
 */
#ifndef SNRQ_STREAM_H
#define SNRQ_STREAM_H

#include "io/tokenizer/windows.h"
#include "mpi/algebra/gram.h"
#include "pipeline/model/model.h"

/* The input of a unit, of all sequences of this rank. */
typedef struct snrq_stream_input {
    int64_t columns;
    float *x; /* [tokens, columns] owned */
} snrq_stream_input;

typedef struct snrq_stream {
    snrq_range range;         /* of the sequences this rank owns */
    snrq_range alone;         /* sequences whose tokens stand alone, each the first of a text */
    int64_t tokens;           /* per sequence */
    int64_t hidden;           /* numbers per token */
    float *h;                 /* [sequences, tokens, hidden] owned */
    snrq_span *span;          /* [batch * tokens] room for the spans of a batch; owned */
    int inputs;               /* units of the next step; 0 between blocks */
    snrq_stream_input *input; /* [inputs] owned; of experts, what all of them read from */
    float *carried;           /* [tokens, family's carried] between the first two steps; owned */
    struct snrq_stream_experts *experts; /* in a block with experts, between them; owned */
} snrq_stream;

/* Sequences of the windows that this rank owns. Not collective. */
snrq_range snrq_stream_share(const snrq_context *context, const snrq_windows *windows);

/* Of so many sequences of so many tokens each, how many are taken through a block at a time. */
int64_t snrq_stream_batch(int64_t sequences, int64_t tokens);

/* Makes a stream of the windows in `range`, with h = 0. Not collective. */
snrq_status snrq_stream_create(snrq_range range, const snrq_windows *windows, int64_t hidden,
                               snrq_stream *out);

/* h [hidden] = the embedding of a token, scaled. */
void snrq_embed_token(const snrq_weight *embedding, double scale, int32_t id, float *h);

/* h = embeddings of the windows, scaled. Not collective. */
void snrq_stream_embed(snrq_stream *stream, const snrq_weight *embedding, double scale,
                       const snrq_windows *windows);

void snrq_stream_free(snrq_stream *stream);

/* Drops the inputs of the next step: the stream is between blocks. */
void snrq_stream_leave(snrq_stream *stream);

/* Input of a unit, counted within the step, as the Gram computation wants it; not of experts
 * (expert_stream.h). Borrowed. */
snrq_activations snrq_stream_activations(const snrq_stream *stream, int unit);

/* The residual of all sequences of this rank, as the units of the next step add to it. Borrowed. */
snrq_activations snrq_stream_residual(const snrq_stream *stream);

/* Enters a block: makes the inputs of the first step. Not collective. */
snrq_status snrq_stream_begin(snrq_stream *stream, const snrq_block *block);

/* Takes both streams through a step and makes the inputs of the next one, or none after the last.
 * Fills measures, for module m of the step, counted within it, and every sequence s this rank owns:
 * measures[(SNRQ_MEASURES * m + k) * total + s], k one of the following, with s over all sequences
 * of all ranks. Not collective. */
enum {
    SNRQ_MEASURE_DIFFERENCE, /* ||W xf - Q x||^2 */
    SNRQ_MEASURE_NORM,       /* ||W xf||^2 */
    SNRQ_MEASURE_LARGEST,    /* the largest magnitude in x and Q x */
    SNRQ_MEASURES
};
snrq_status snrq_streams_advance(snrq_stream *quantized, const snrq_block *quantized_block,
                                 snrq_stream *full, const snrq_block *full_block, int step,
                                 int64_t total, double *measures);

/* Takes a stream through a whole block. Not collective. */
snrq_status snrq_stream_forward(snrq_stream *stream, const snrq_block *block);

/* The same for h [sequences, tokens, hidden] of whole sequences that are in no stream. */
snrq_status snrq_sequences_forward(const snrq_block *block, int64_t sequences, int64_t tokens,
                                   float *h);

#endif
