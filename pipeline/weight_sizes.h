/* Bytes of a model's weights: as they are, and with so many bits. What a machine needs in memory to
 * serve it, beside activations and caches.
 */
#ifndef SNRQ_WEIGHT_SIZES_H
#define SNRQ_WEIGHT_SIZES_H

#include "pipeline/model/model.h"
#include "pipeline/options/options.h"

/* Codes, scales and zeros of a module as they are stored, with another width and size of groups
 * (0: whole rows) than the rule's. Not collective, as the following. */
double snrq_module_stored_bytes(const snrq_rule *rule, const snrq_module_shape *module, int bits,
                                int64_t group_size);

/* Weights of all modules. */
double snrq_module_weights(const snrq_model *model);

/* Bytes of all modules with so many bits each, in groups of the options' size. */
double snrq_uniform_bytes(const snrq_options *options, const snrq_model *model, int bits);

/* Bytes of what is not quantized: norms, embeddings, head. */
snrq_status snrq_rest_bytes(const snrq_model *model, double *out);

/* Bytes of the modules as the checkpoint has them. SNRQ_BAD_DATA if one is not there. */
snrq_status snrq_module_bytes(const snrq_model *model, double *out);

#endif
