/* The side files of an export in the shape of a transformers directory: all but config.json, from
 * the directory that was chosen for them (snrq_model_side_path()). What is not there and belongs to
 * the model rather than to its tokenizer, generation_config.json, is the model's. */
#ifndef SNRQ_EXPORT_SIDE_H
#define SNRQ_EXPORT_SIDE_H

#include "pipeline/model/model.h"

typedef struct snrq_export_side {
    char **names;      /* [count] relative to their directory; owned */
    const char **from; /* [count] the directory of each; borrowed from the model */
    int count;
} snrq_export_side;

/* Lists them. The caller closes it, also on failure. Not collective. */
snrq_status snrq_export_side_open(const snrq_model *model, snrq_export_side *out);
void snrq_export_side_close(snrq_export_side *side);
bool snrq_export_side_has(const snrq_export_side *side, const char *name);

#endif
