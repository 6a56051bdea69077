/* Multiply-adds of a run, and blocks and groups by them: for the ETA, and for layer groups of equal
 * work. Seconds are in cost.h. None of this is collective.
 */
#ifndef SNRQ_WORK_H
#define SNRQ_WORK_H

#include "io/tokenizer/windows.h"
#include "pipeline/layer_groups.h"
#include "pipeline/model/model.h"
#include "pipeline/rules.h"

/* Of one step of a block, of a block: forward passes, Grams, factorization, search. */
double snrq_work_of_step(const snrq_rules *rules, const snrq_family *family, int64_t layer,
                         int step, const snrq_windows *windows);
double snrq_work_of_block(const snrq_rules *rules, const snrq_family *family, int64_t layer,
                          const snrq_windows *windows);

/* The blocks of a model divided by work. The caller frees *out. Fails only without memory. */
snrq_status snrq_work_groups(const snrq_rules *rules, const snrq_model *model,
                             const snrq_windows *windows, int groups, snrq_layer_groups *out);

/* The number of layer groups with which so many ranks are fastest: the least, unless more save a
 * tenth of the time. Fails only without memory. */
snrq_status snrq_work_best_groups(const snrq_rules *rules, const snrq_model *model,
                                  const snrq_windows *windows, int ranks, int *best);

#endif
