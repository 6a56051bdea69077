/* Quantizing the modules of one stage, once its statistics are gathered.
 *
 * Stacks the modules' rows, rounds them (rounding.h), hands the rounded rows to all ranks and
 * describes them.
 */
#ifndef SNRQ_STAGE_H
#define SNRQ_STAGE_H

#include "io/checkpoint/block_file.h"
#include "pipeline/model/model.h"
#include "pipeline/rounding/rounding.h"

/* One stage of one block on its way through. */
typedef struct snrq_stage_job {
    const snrq_context *context;
    const snrq_options *options;
    snrq_timers *timers;
    int64_t layer;
    snrq_stage stage;
    const snrq_block *full;                /* the block in full precision */
    snrq_node_memory *memory;              /* of the quantized block */
    const snrq_stage_arrays *arrays;       /* of this stage, in that memory */
    double alpha_before[SNRQ_MAX_MODULES]; /* alpha chained: what the previous block suggests for
                                              each module */
} snrq_stage_job;

/* Quantizes the stage's modules: fills the arrays on every node, and the records of its modules
 * (the caller adds model_error later); `troubles` is what was found on the way. H in `statistics`
 * is used up. Collective; agreed. */
snrq_status snrq_stage_quantize(const snrq_stage_job *job, snrq_statistics *statistics,
                                snrq_module_record records[SNRQ_MAX_MODULES],
                                snrq_trouble_list *troubles);

/* "model.layers.3.self_attn.q_proj + k_proj + v_proj": the modules of a stage. */
void snrq_stage_name(const snrq_family *family, int64_t layer, snrq_stage stage, char *out,
                     size_t size);

/* Rows of module m that this rank owns, counted within the module. */
snrq_range snrq_stage_module_rows(const snrq_context *context, const snrq_family *family,
                                  int module);

#endif
