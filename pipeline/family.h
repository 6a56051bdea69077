/* Model families: which linear modules a transformer block has, in which stage, of which shape.
 *
 * A stage is a set of modules that read the same input, and the point at which a block's forward
 * pass can be cut: [q,k,v] -> [o] -> [gate,up] -> [down] (docs/method.md, "One pass through a
 * block"). A family is a table of names and shapes; the forward pass (block.h) is the same for all
 * of them.
 */
#ifndef SNRQ_FAMILY_H
#define SNRQ_FAMILY_H

#include "io/config.h"

enum { SNRQ_STAGES = 4, SNRQ_MAX_MODULES = 7 };

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

typedef struct snrq_family {
    int modules;
    snrq_module_shape module[SNRQ_MAX_MODULES]; /* in stage order */
    int first[SNRQ_STAGES + 1];          /* modules of stage s: first[s] .. first[s + 1] - 1 */
    int64_t stage_rows[SNRQ_STAGES];     /* outputs of all modules of the stage, stacked */
    int64_t stage_columns[SNRQ_STAGES];  /* their common input width */
    int64_t max_rows, max_columns;       /* over the stages */
    const char *stage_name[SNRQ_STAGES]; /* for progress lines: "q,k,v" */
} snrq_family;

/* Fills in the family of a model. Not collective; cannot fail for a configuration that
 * snrq_config_read accepted. */
void snrq_family_describe(const snrq_config *config, snrq_family *out);

#endif
