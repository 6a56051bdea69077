/* Model families: a transformer block as a list of steps.
 *
 *   module   one linear layer
 *   unit     the modules that read the same input matrix, and so share one H: q, k, v
 *   part     those of a unit that are rounded together, by one rule: all of them, unless rules
 * differ step     a point at which a block's forward pass is cut (block.h): units whose inputs are
 * all known there, and which do not depend on each other
 *
 * A dense block has four steps of one unit: [q,k,v] -> [o] -> [gate,up] -> [down] (docs/method.md,
 * "One pass through a block"). A family is a table of names and shapes; the forward pass is the
 * same for all of them. Where a family fuses q, k, v or gate, up into one module, its rows are the
 * rows of those, one after the other, and the unit has one module.
 *
 * In a block with experts, each expert is two units of its own, {gate, up} and {down}, that read
 * only the tokens which the router sends to it; an expert that all tokens see comes last. Latent
 * attention has two steps in place of [q,k,v]: [q_a,kv_a], which makes short vectors, and
 * [q_b,kv_b], two units that make heads of them.
 */
#ifndef SNRQ_FAMILY_H
#define SNRQ_FAMILY_H

#include "io/config.h"

enum { SNRQ_VECTOR_NAME = 80, SNRQ_MODULE_NAME = 64 };

/* What becomes of a step's outputs; formulas in block.h. */
typedef enum snrq_step_kind {
    SNRQ_STEP_ATTENTION,          /* of [q,k,v] */
    SNRQ_STEP_LATENTS,            /* of [q_a,kv_a] */
    SNRQ_STEP_LATENT_ATTENTION,   /* of [q_b,kv_b] */
    SNRQ_STEP_ATTENTION_OUT,      /* of [o] */
    SNRQ_STEP_GATED_ACTIVATION,   /* of [gate,up] */
    SNRQ_STEP_MLP_OUT,            /* of [down] */
    SNRQ_STEP_EXPERTS_ACTIVATION, /* of the [gate,up] of experts */
    SNRQ_STEP_EXPERTS_OUT         /* of their [down] */
} snrq_step_kind;

typedef struct snrq_module_shape {
    char name[SNRQ_MODULE_NAME]; /* below "model.layers.N.": "self_attn.q_proj" */
    int64_t rows, columns;       /* outputs, inputs */
    int unit, part;
    int64_t row;      /* where its rows begin among those of its unit, stacked */
    int64_t part_row; /* and of its part */
} snrq_module_shape;

typedef struct snrq_unit_shape {
    int step;
    int first, end;        /* modules [first, end) */
    int64_t rows, columns; /* outputs of all its modules, stacked; their common input width */
    int expert;            /* whose tokens it reads; -1: it reads all */
    double share;          /* of the tokens that it reads, on average */
} snrq_unit_shape;

typedef struct snrq_part_shape {
    int unit;
    int first, end;        /* modules [first, end) */
    int64_t rows, columns; /* as of a unit */
} snrq_part_shape;

typedef struct snrq_step {
    const char *name; /* for progress lines: "q,k,v" */
    snrq_step_kind kind;
    int first, end; /* units [first, end) */
} snrq_step;

/* What is not quantized in a block. The bias of module m is vector SNRQ_BIAS + m. */
typedef enum snrq_vector {
    SNRQ_ATTENTION_NORM,
    SNRQ_MLP_NORM,
    SNRQ_QUERY_NORM,
    SNRQ_KEY_NORM,
    SNRQ_AFTER_ATTENTION_NORM, /* of what attention and MLP add to the residual stream */
    SNRQ_AFTER_MLP_NORM,
    SNRQ_QUERY_LATENT_NORM,
    SNRQ_KEY_LATENT_NORM,
    SNRQ_ROUTER, /* [experts, hidden] */
    SNRQ_ROUTER_BIAS,
    SNRQ_BIAS
} snrq_vector;

typedef struct snrq_vector_shape {
    char name[SNRQ_VECTOR_NAME]; /* below "model.layers.N.": "self_attn.q_proj.bias" */
    int64_t count;               /* numbers; 0: the family has no such vector */
    int64_t columns;             /* of a matrix; 0: it is a vector */
} snrq_vector_shape;

/* A block's parts in the order in which they work. All lists are owned. */
typedef struct snrq_family {
    int modules, units, parts, steps, vectors;
    snrq_module_shape *module;
    snrq_unit_shape *unit;
    snrq_part_shape *part;
    snrq_step *step;
    snrq_vector_shape *vector;     /* [SNRQ_BIAS + modules] */
    int64_t max_rows, max_columns; /* over the units */
    int64_t carried;               /* numbers of a token from the first step to the second */
    int experts;                   /* that a router chooses from; 0: the block is dense */
    bool everyone;                 /* an expert sees all tokens */
    bool normed_outputs;           /* what is added to the residual stream is normalized before */
} snrq_family;

/* Fills in the blocks of a model that have experts, or those that have none. Not collective; fails
 * only without memory. */
snrq_status snrq_family_create(const snrq_config *config, bool experts, snrq_family *out);
void snrq_family_free(snrq_family *family);

/* Cuts a part in two: module `module` begins one. Not collective. */
void snrq_family_cut(snrq_family *family, int module);

/* Are a unit's outputs, and nothing else, added to the residual stream as they are? */
bool snrq_unit_writes_residual(const snrq_family *family, int unit);

/* Do the units of the step read what a router sends them? */
bool snrq_step_is_routed(const snrq_family *family, int step);

/* Modules [*first, *end) of a step. */
void snrq_step_modules(const snrq_family *family, int step, int *first, int *end);

#endif
