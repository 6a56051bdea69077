/* How a module is rounded: all that decides its codes besides its weights and statistics.
 *
 * Rules are made once per module (pipeline/rules.h) and handed down; nothing in this folder knows
 * the command line. Symbols and formulas: docs/method.md.
 *
 * The way of a field: option (pipeline/options/options.c) -> rule (pipeline/rules.c; compared in
 * rule.c) -> record of the module (pipeline/unit.c) -> file, manifest and `inspect --json` (the
 * table in io/checkpoint/block_record.c). docs/developing.md, "Add a field to the rule".
 */
#ifndef SNRQ_RULE_H
#define SNRQ_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/algebra/dtype.h"
#include "mpi/algebra/weight_format.h"

typedef enum snrq_method {
    SNRQ_RTN,
    SNRQ_LDLQ,
    SNRQ_GPTQ,
    SNRQ_GPTAQ,
    SNRQ_SNRQ,
    SNRQ_KSNRQ,
    SNRQ_METHODS
} snrq_method;

/* Where the regularization strength a comes from. */
typedef enum snrq_alpha_mode {
    SNRQ_ALPHA_FIXED,
    SNRQ_ALPHA_SAMPLED,
    SNRQ_ALPHA_CHAINED,
    SNRQ_ALPHA_CORR,
    SNRQ_ALPHA_AUTO /* by how much the tokens support (strengths.h) */
} snrq_alpha_mode;

/* How scales are chosen. */
typedef enum snrq_quant_grid_kind {
    SNRQ_QUANT_GRID_MINMAX,
    SNRQ_QUANT_GRID_MSE,
    SNRQ_QUANT_GRID_HESSIAN,
    SNRQ_QUANT_GRID_KINDS
} snrq_quant_grid_kind;

typedef struct snrq_rule {
    bool keep; /* left in the model's type; nothing else counts then */
    snrq_method method;
    const snrq_weight_format *format; /* whose scales are stored; NULL: integers, as follows. With
                                         one, bits, group_size and scale_type are the format's */
    int bits;
    int64_t group_size; /* columns that share a scale; 0: the whole row */
    bool symmetric;
    bool permuted_groups;  /* groups are runs of columns in decision order, not in original order */
    bool natural_order;    /* columns are decided from the last to the first, not by diag(H) */
    snrq_dtype scale_type; /* what scales are rounded to before anything is decided */
    snrq_quant_grid_kind grid;
    bool either_sign; /* scales may be negative; only of symmetric groups with grid hessian */
    snrq_alpha_mode alpha_mode;
    double alpha_value;  /* fixed: a; sampled: B */
    int beam;            /* K of ksnrq; 1 for all other methods */
    int refine;          /* passes of coordinate descent, at most */
    int regrid;          /* rounds of least-squares scales and another search, at most */
    double damp;         /* lambda as a share of mean(diag H) */
    double shrink;       /* delta: H + delta diag(H) is factorized; or SNRQ_AUTO */
    double compensate;   /* b: how much of the residual stream's error a target takes along, where a
                            unit writes to it; or SNRQ_AUTO */
    bool weighs_outputs; /* errors count by what outputs are worth, where it is known */
    bool weighted_tokens;   /* of an expert: each counts by the router's weight, squared */
    double inputs;          /* columns of all units of the model, for what is chosen by itself */
    double residual_inputs; /* of those that write to the residual stream */
} snrq_rule;

/* A shrinkage or compensation that follows what the tokens support (strengths.h). */
#define SNRQ_AUTO (-1.0)

/* Does the method shift its target? Does it need D (gptaq does, too)? Does it need E? */
bool snrq_rule_shifts_target(const snrq_rule *rule);
bool snrq_rule_needs_d(const snrq_rule *rule);
bool snrq_rule_needs_e(const snrq_rule *rule);

/* Does the target take the residual stream's error along, where the unit writes to it? Only with a
 * strength that is known before D is. */
bool snrq_rule_compensates(const snrq_rule *rule);

/* Do errors of rows count by what the outputs are worth, and are they made up for by other rows
 * (row_feedback.h)? */
bool snrq_rule_couples_rows(const snrq_rule *rule);

/* Do tokens count by what their gradients are (token_weights.h)? A slope tells what a small error
 * costs; those of 2 bits are not small. */
static inline bool snrq_rule_weighs_tokens(const snrq_rule *rule)
{
    return rule->bits > 2 && rule->method != SNRQ_RTN;
}

/* Can its scales be fitted again after the search? Not those of rtn, which looks at no data, and of
 * the methods that fit their grids on the way. */
bool snrq_method_regrids(snrq_method method);

/* Has it a strength, that is, does it take the full-precision input into account? */
bool snrq_method_has_strength(snrq_method method);

/* Columns of a group, and groups of a row, of a module with so many columns. */
int64_t snrq_rule_group_columns(const snrq_rule *rule, int64_t columns);
int64_t snrq_rule_groups(const snrq_rule *rule, int64_t columns);

/* Makes the rule that of a format (NULL: leaves it as it is). */
void snrq_rule_set_format(snrq_rule *rule, const snrq_weight_format *format);

/* Has its format minima? */
bool snrq_rule_has_minima(const snrq_rule *rule);

/* Can modules with these rules be rounded with the same H, D, E and C? */
bool snrq_rule_shares_statistics(const snrq_rule *a, const snrq_rule *b);

/* Do two modules with these rules have the same codes for the same weights and statistics? */
bool snrq_rule_equals(const snrq_rule *a, const snrq_rule *b);

/* Names as people write them. "fixed:0.5", "chained": the text form of the strength. Borrowed, but
 * for alpha, which is written to out. */
const char *snrq_method_name(snrq_method method);
const char *snrq_quant_grid_name(snrq_quant_grid_kind kind);
const char *snrq_order_name(bool natural);
void snrq_rule_alpha_text(const snrq_rule *rule, char *out, size_t size);

#endif
