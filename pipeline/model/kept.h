/* Modules that a run leaves as they are in the checkpoint ("keep" in a recipe).
 *
 * Of a run they are marked with snrq_model_keep(). An OUT directory says in snrq.json, under
 * "kept", which they are. Their weights are in rest.h5, in the model's type; files of blocks and
 * records of modules are without them. Nothing here is collective.
 */
#ifndef SNRQ_MODEL_KEPT_H
#define SNRQ_MODEL_KEPT_H

#include <jansson.h>

#include "pipeline/model/model.h"

/* Marks a module. SNRQ_USAGE for one in FP8, which rest.h5 does not hold. */
snrq_status snrq_model_keep(snrq_model *model, int64_t layer, int module);

/* Is it marked? */
bool snrq_model_keeps(const snrq_model *model, int64_t layer, int module);

/* Modules of a block that are stored as codes; and how many of those stand before `module`, which
 * is its place in the block's file. */
int snrq_model_stored_modules(const snrq_model *model, int64_t layer);
int snrq_model_stored_index(const snrq_model *model, int64_t layer, int module);

/* Their full names as a list, or NULL where there are none. New reference. */
json_t *snrq_model_kept_names(const snrq_model *model);

/* Marks what snrq.json of the model's directory (`configuration`) names. SNRQ_BAD_DATA for what is
 * no module. */
snrq_status snrq_model_adopt_kept(snrq_model *model, const json_t *configuration);

#endif
