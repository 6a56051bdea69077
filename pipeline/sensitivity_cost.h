/* What `snrq sensitivity` costs: memory and time. */
#ifndef SNRQ_SENSITIVITY_COST_H
#define SNRQ_SENSITIVITY_COST_H

#include "pipeline/cost.h"
#include "pipeline/options/options.h"

/* The windows that the pass of `quantize --sensitivity auto` goes through: of the run's that are
 * texts the first, with up to SNRQ_SENSITIVITY_TOKENS tokens, but one at least. A tile has 64 rows,
 * and more tokens would tell little more of them. A run of few windows that are drawn at random
 * from a text has SNRQ_SENSITIVITY_TIMES as many drawn, for up to SNRQ_SENSITIVITY_DRAWN tokens:
 * then `count` is more than the run's windows, whose ids are borrowed. */
enum {
    SNRQ_SENSITIVITY_TOKENS = 65536,
    SNRQ_SENSITIVITY_DRAWN = 32768,
    SNRQ_SENSITIVITY_TIMES = 4
};
snrq_windows snrq_sensitivity_windows(const snrq_options *options, const snrq_windows *windows);

/* Sequences of `own` that a rank takes at a time, so that the inputs of all blocks fit into
 * `pass_memory` bytes: one at least. */
int64_t snrq_sensitivity_at_a_time(const snrq_model *model, int64_t own, int64_t length,
                                   int64_t pass_memory);

/* Most memory of a rank of so many, in bytes, beside the weights of a block. */
double snrq_sensitivity_rank_bytes(const snrq_model *model, const snrq_windows *windows, int ranks,
                                   int64_t pass_memory);

/* Multiply-adds of a block forward, over all windows. */
double snrq_sensitivity_block_work(const snrq_family *family, const snrq_windows *windows);

/* Bytes of what the file of so many tokens holds. */
double snrq_sensitivity_file_bytes(const snrq_model *model, int64_t tokens);

/* What a rank sends in all passes, as cost.h counts it: *bytes, and returns the messages. */
double snrq_sensitivity_traffic(const snrq_model *model, const snrq_windows *windows,
                                const snrq_layout_of_run *layout, int64_t pass_memory,
                                double *bytes);

/* Seconds. With the symbols of cost.h, for each module:
 *
 *     forward, again, back   3 t m n, and 64 t m for the tiles
 *     sums                   64 m for each sequence; sent once for each pass
 *
 * attention five times, the head twice, and the weights read twice for each pass. */
double snrq_sensitivity_seconds(const snrq_machine *machine, const snrq_model *model,
                                const snrq_windows *windows, const snrq_layout_of_run *layout,
                                int64_t pass_memory);

#endif
