/* Memory of a planned run, and its size on disk. */
#ifndef SNRQ_PLAN_MEMORY_H
#define SNRQ_PLAN_MEMORY_H

#include "pipeline/plan.h"

/* What a backward pass goes through: that of the run, or one of the command with its windows. */
snrq_windows snrq_plan_pass_windows(const snrq_options *options, const snrq_windows *windows);

/* Memory of ranks and nodes, and bytes of OUT, of a run with the ranks, nodes and layer groups of
 * *plan. Not collective. */
void snrq_plan_lay_out(const snrq_options *options, const snrq_model *model,
                       const snrq_rules *rules, const snrq_windows *windows, snrq_plan *plan);

#endif
