/* Mixtures of types that users of llama.cpp know by name: --preset q4_k_m.
 *
 * A preset is a type for most modules, and rules for the others, embeddings and head, which are
 * those of llama-quantize (llama_tensor_get_type() of llama.cpp, src/llama-quant.cpp). They become
 * a recipe (recipe.h), so that snrq.json has them one by one.
 */
#ifndef SNRQ_PRESET_H
#define SNRQ_PRESET_H

#include <jansson.h>

#include "mpi/algebra/weight_format.h"
#include "pipeline/model/model.h"

/* In the order of the table in preset.c. */
#define SNRQ_PRESETS "q2_k|q2_k_s|q3_k_s|q3_k_m|q3_k_l|q4_k_s|q4_k_m|q5_k_s|q5_k_m|q6_k"

/* What most modules of a preset are. */
const snrq_weight_format *snrq_preset_format(int preset);

/* *rules <- the rules of a recipe for the model; the caller releases them. Not collective. */
snrq_status snrq_preset_rules(int preset, const snrq_model *model, json_t **rules);

#endif
