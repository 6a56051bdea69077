/* What a run will cost, before it starts. */
#ifndef SNRQ_PLAN_H
#define SNRQ_PLAN_H

#include "io/windows.h"
#include "pipeline/model.h"
#include "pipeline/options.h"

/* Multiply-adds of one stage of one block: forward passes, Grams, factorization, search. For the
 * ETA. */
double snrq_plan_stage_work(const snrq_options *options, const snrq_family *family,
                            snrq_stage stage, int64_t sequences, int64_t length);

/* Prints the plan on rank 0: model, calibration, method, memory, output size. */
void snrq_plan_print(const snrq_context *context, const snrq_options *options,
                     const snrq_model *model, const snrq_windows *windows);

#endif
