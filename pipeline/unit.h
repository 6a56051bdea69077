/* A part of a unit as the rounding sees it: its modules' rows, stacked; and what becomes of the
 * rounded rows: every node has them, and each module has a record. A unit is one part, unless its
 * modules have several rules: then they share H, and are rounded one part after the other.
 */
#ifndef SNRQ_UNIT_H
#define SNRQ_UNIT_H

#include "io/checkpoint/block_file.h"
#include "pipeline/model/model.h"
#include "pipeline/rounding/rounding.h"

/* The modules of a part with their names. */
typedef struct snrq_part_stack {
    const snrq_block *block; /* the block in full precision; borrowed */
    int part;
    snrq_stack stack;   /* what the rounding wants; valid where this lies, do not copy */
    int64_t *first;     /* [modules + 1] owned */
    char *text;         /* the names; owned */
    const char **names; /* [modules] owned */
    float *grams;       /* what the rows are worth (row_grams.h), or NULL; owned */
} snrq_part_stack;

/* Stacks the modules of a part. alpha_before [modules of the block]: alpha chained; borrowed. Not
 * collective; fails only without memory. */
snrq_status snrq_part_stack_create(const snrq_block *block, int64_t layer, int part,
                                   const double *alpha_before, snrq_part_stack *out);
void snrq_part_stack_free(snrq_part_stack *stack);

/* "model.layers.3.self_attn.q_proj + k_proj + v_proj": modules [first, end). */
void snrq_modules_name(const snrq_family *family, int64_t layer, int first, int end, char *out,
                       size_t size);

/* Does the unit's target take the residual stream's error along? Not collective. */
bool snrq_unit_makes_up(const snrq_rule *rule, const snrq_family *family, int unit);

/* Tokens that an expert of the step is calibrated on at least: as many as --expert-tokens says, or,
 * if that is 0, as [gate, up] has inputs. Not collective. */
int64_t snrq_unit_least_tokens(const snrq_family *family, int step, int64_t expert_tokens);

/* Share of `tokens` tokens that the quantized stream brings to a unit: of an expert's, with those
 * that top them up; expert_tokens as above. Not collective. */
double snrq_unit_share(const snrq_family *family, int unit, int64_t expert_tokens, double tokens);

/* Teams that work at the same time, on this unit and the next ones of its step: on experts, each
 * with an H of its own, as many as there are, or ranks, as long as a rank has memory for its share
 * of a team's matrices; the experts that are left after whole batches of so many, and all other
 * units, are shared by all ranks (1). Not collective. */
int snrq_unit_teams(const snrq_family *family, int unit, int ranks);

/* Puts the rounded rows of a team's ranks into node memory, columns in original order, and brings
 * them to the other nodes. rounding: not read on ranks of other teams. Collective over the context;
 * agreed. */
snrq_status snrq_part_publish(const snrq_context *context, const snrq_team *team,
                              const snrq_rounding *rounding, const snrq_loaded_block *quantized,
                              int part);

/* What is known about module `module` of the block; the caller adds model_error later. */
snrq_module_record snrq_rounded_record(const snrq_rounding *rounding, const snrq_family *family,
                                       int64_t layer, int module);

/* Rows of a module that this rank owns, counted within the module. */
snrq_range snrq_module_rows_of_rank(const snrq_context *context, const snrq_family *family,
                                    int module);

/* out->rows, and what it holds of them <- this rank's rows of a module whose weights are `weight`.
 * Borrowed. */
void snrq_unit_fill_rows(const snrq_context *context, const snrq_family *family, int module,
                         const snrq_weight *weight, snrq_module_rows *out);

#endif
