/* What a run costs: seconds by phase, and bytes that a rank sends, from a machine's rates.
 *
 * The slowest rank of the slowest layer group counts. Symbols: P ranks of a group; m, n rows and
 * inputs of a unit; t tokens that it reads, s sequences of a rank, p pieces of a sequence that are
 * summed one by one; m' = whole tiles of rows of a rank; S = bytes per second, l = latency.
 *
 *     read      weights of a block, over the nodes' speed; the later ones are read ahead
 *     forward   t/P m n twice, by weights and by codes; attention
 *     gram      (H and D) t/P n^2 + s p n^2; C: m n in place of n^2
 *     factor    n^3 / P; m' n^2
 *     grid      m' n
 *     search    m' n^2, m' n
 *     tune      as tuning_cost.h has it, for each epoch
 *     write     what is stored
 *
 * What is sent is counted by pipeline/traffic.h. An all-reduction of b bytes sends 2 (P - 1) / P b
 * bytes of each rank, in about 2 log2 P messages; a broadcast b (P - 1) / P on the average, and
 * takes the time of b. Where layer groups wait for the stream of those before them, all ranks take
 * it there first.
 */
#ifndef SNRQ_COST_H
#define SNRQ_COST_H

#include "io/tokenizer/windows.h"
#include "pipeline/machine.h"
#include "pipeline/model/model.h"
#include "pipeline/phase.h"
#include "pipeline/rules.h"

typedef struct snrq_cost {
    double seconds[SNRQ_PHASES]; /* computing and messages of the slowest rank */
    double bytes[SNRQ_PHASES];   /* that a rank sends */
    double messages[SNRQ_PHASES];
    double total; /* seconds */
} snrq_cost;

/* How a run is laid out. */
typedef struct snrq_layout_of_run {
    int ranks, nodes, threads; /* threads of a rank */
    int groups;
} snrq_layout_of_run;

/* Not collective; fails only without memory. */
snrq_status snrq_cost_make(const snrq_machine *machine, const snrq_rules *rules,
                           const snrq_model *model, const snrq_windows *windows,
                           const snrq_layout_of_run *layout, snrq_cost *out);

/* What limits the run: the phase with most of the time, and why more ranks would or would not help.
 */
void snrq_cost_limit(const snrq_cost *cost, const snrq_windows *windows,
                     const snrq_layout_of_run *layout, char *out, size_t size);

#endif
