/* What a run will cost, before it starts. */
#ifndef SNRQ_PLAN_H
#define SNRQ_PLAN_H

#include <jansson.h>

#include "io/tokenizer/windows.h"
#include "pipeline/cost.h"
#include "pipeline/layer_groups.h"
#include "pipeline/model/model.h"
#include "pipeline/rules.h"

/* What a run would find in its output directory. */
typedef struct snrq_plan_output {
    bool known;             /* it was looked at, and nothing would be refused */
    bool started, complete; /* it holds a run; that is complete */
    int64_t committed;      /* blocks that would not be made again */
} snrq_plan_output;

/* What a run needs. */
typedef struct snrq_plan {
    int ranks, nodes, ranks_per_node; /* of this start, or as --plan-ranks and --plan-nodes say */
    int groups, best_groups;          /* layer groups of the run, and the fastest number */
    double rank_bytes;                /* most memory of a rank */
    double shared_bytes;              /* weights that the ranks of a node share */
    double node_bytes;                /* both, for all ranks of a node */
    double block_bytes;               /* of the weights of the largest block */
    int cost_threads;                 /* of a rank */
    bool reads_ahead;                 /* memory for another block's weights is left: this rank */
    double output_bytes;
    double bits_per_weight;  /* of quantized modules, with scales and zeros */
    double activation_bytes; /* of the file that --keep-activations keeps; 0 without */
    bool costed;             /* the next ones are known: of --dry-run */
    snrq_cost cost;
    snrq_cost alone;         /* of one rank, with as many threads */
    snrq_machine machine;    /* that they follow from */
    snrq_layout_of_run best; /* the fastest on as many nodes that fits into memory */
    double best_seconds, best_node_bytes;
    double seconds;                                /* of the cost; 0 if it is not known */
    double sensitivity_seconds, sensitivity_bytes; /* of `sensitivity`, laid out so: of a rank */
    double assess_seconds, assess_bytes;           /* of `assess`, the same */
    snrq_plan_output output;                       /* of --dry-run; set by the caller */
} snrq_plan;

/* Plans a run. Collective; agreed. */
snrq_status snrq_plan_make(const snrq_context *context, const snrq_options *options,
                           const snrq_model *model, const snrq_rules *rules,
                           const snrq_windows *windows, const snrq_layer_groups *groups,
                           snrq_plan *out);

/* What the modules of a run with this rule can be exported to: rows as
 * snrq_export_forecast() makes them. The caller releases *rows. *better: a size of groups that
 * makes more formats possible, or 0. Not collective. */
snrq_status snrq_plan_exports(const snrq_model *model, const snrq_rule *rule, json_t **rows,
                              int64_t *better);

/* The same of a run: what the rule of a module makes impossible, it cannot be exported to. */
snrq_status snrq_plan_forecast(const snrq_model *model, const snrq_rules *rules, json_t **rows,
                               int64_t *better);

/* Can the engine of --for (-1: none is named) load what these rules make, in some format?
 * SNRQ_USAGE says why not: of settings, and of experts that it fuses. Not collective. */
snrq_status snrq_plan_check_engine(const snrq_model *model, const snrq_rules *rules,
                                   int64_t engine);

/* Prints the plan on rank 0: model, calibration, method, memory, output size, exports; as JSON on
 * standard output with --json. Collective; agreed. */
snrq_status snrq_plan_print(const snrq_context *context, const snrq_options *options,
                            const snrq_model *model, const snrq_rules *rules,
                            const snrq_windows *windows, const snrq_plan *plan);

/* Refuses what cannot work, and warns of what will be slow: how the ranks were started, memory,
 * cores. Collective; agreed. */
snrq_status snrq_plan_check(const snrq_context *context, const snrq_options *options,
                            const snrq_plan *plan);

#endif
