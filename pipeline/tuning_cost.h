/* What `quantize --tune` costs: memory, work and messages. */
#ifndef SNRQ_TUNING_COST_H
#define SNRQ_TUNING_COST_H

#include "io/tokenizer/windows.h"
#include "pipeline/rules.h"

/* Sequences that a step of the optimizer sees. */
enum { SNRQ_TUNING_BATCH = 8 };

/* Scales and weights of norms. */
double snrq_tuning_parameters(const snrq_rules *rules, const snrq_model *model);

/* Most memory of a rank of so many, in bytes: hidden states, inputs of blocks, sums of gradients,
 * logits. */
double snrq_tuning_rank_bytes(const snrq_rules *rules, const snrq_model *model,
                              const snrq_windows *windows, int ranks);

/* What the ranks of a node share: all quantized blocks, a byte for each weight, four numbers for
 * each parameter, the embedding and the head. */
double snrq_tuning_node_bytes(const snrq_rules *rules, const snrq_model *model);

/* What all ranks do in one epoch, with the symbols of cost.h; t: tokens that are fitted to, and h
 * of those held out.
 *
 *     products   m n (4 t + h) of a unit: forward, again, back, and for gradients of its scales;
 * and v d (3 t + 2 h) of a head of v words attention  5 t + h times that of a token sums three
 * parts of 8 bytes of each parameter, in each of `steps` steps */
typedef struct snrq_tuning_work {
    double products, attention, summed, steps;
    double full; /* products of the full-precision model, once */
} snrq_tuning_work;
void snrq_tuning_work_make(const snrq_rules *rules, const snrq_model *model,
                           const snrq_windows *windows, snrq_tuning_work *out);

#endif
