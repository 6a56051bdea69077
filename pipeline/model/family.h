/* Model families: which linear modules a transformer block has, in which stage, of which shape,
 * and which vectors stand beside them.
 *
 * A stage is a set of modules that read the same input, and the point at which a block's forward
 * pass can be cut: [q,k,v] -> [o] -> [gate,up] -> [down] (docs/method.md, "One pass through a
 * block"). A family is a table of names and shapes; the forward pass (block.h) is the same for all
 * of them. Where a family fuses q, k, v or gate, up into one module, its rows are the rows of
 * those, one after the other, and the stage has one module.
 */
#ifndef SNRQ_FAMILY_H
#define SNRQ_FAMILY_H

#include "io/config.h"

enum { SNRQ_STAGES = 4, SNRQ_MAX_MODULES = 7, SNRQ_VECTOR_NAME = 64 };

typedef enum snrq_stage {
    SNRQ_STAGE_QKV,
    SNRQ_STAGE_O,
    SNRQ_STAGE_GATE_UP,
    SNRQ_STAGE_DOWN
} snrq_stage;

typedef struct snrq_module_shape {
    const char *name; /* below "model.layers.N.": "self_attn.q_proj" */
    snrq_stage stage;
    int64_t rows, columns; /* outputs, inputs */
} snrq_module_shape;

/* What is not quantized in a block. The bias of module m is vector SNRQ_BIAS + m. */
typedef enum snrq_vector {
    SNRQ_ATTENTION_NORM,
    SNRQ_MLP_NORM,
    SNRQ_QUERY_NORM,
    SNRQ_KEY_NORM,
    SNRQ_BIAS,
    SNRQ_MAX_VECTORS = SNRQ_BIAS + SNRQ_MAX_MODULES
} snrq_vector;

typedef struct snrq_vector_shape {
    char name[SNRQ_VECTOR_NAME]; /* below "model.layers.N.": "self_attn.q_proj.bias" */
    int64_t count;               /* 0: the family has no such vector */
} snrq_vector_shape;

typedef struct snrq_family {
    int modules;
    snrq_module_shape module[SNRQ_MAX_MODULES]; /* in stage order */
    int first[SNRQ_STAGES + 1];          /* modules of stage s: first[s] .. first[s + 1] - 1 */
    int64_t stage_rows[SNRQ_STAGES];     /* outputs of all modules of the stage, stacked */
    int64_t stage_columns[SNRQ_STAGES];  /* their common input width */
    int64_t max_rows, max_columns;       /* over the stages */
    const char *stage_name[SNRQ_STAGES]; /* for progress lines: "q,k,v" */
    snrq_vector_shape vector[SNRQ_MAX_VECTORS];
} snrq_family;

/* Fills in the family of a model. Not collective; cannot fail for a configuration that
 * snrq_config_read accepted. */
void snrq_family_describe(const snrq_config *config, snrq_family *out);

#endif
