/* Recipes: other rules for some modules, by patterns (--recipe FILE).
 *
 *     {"rules": [{"modules": "*.down_proj", "bits": 4},
 *                {"modules": ["self_attn.*", "mlp.experts.*"], "blocks": "0-1,5", "bits": 3}]}
 *
 * A module gets the first one that matches it, and the options as they are if none does. A
 * pattern (of a shell: * ? [...]) stands for the whole name, "model.layers.3.mlp.down_proj", or for
 * what is behind the number, "mlp.down_proj". The other keys are options of `quantize` that a rule
 * is made of, with the values that they have on the command line; what a rule does not name is as
 * the options say. Embeddings and head, "model.embed_tokens" and "lm_head", are meant only where
 * a rule has these names without wildcards; they are rounded to nearest, by bits, group size,
 * asymmetric, format, grid and scale type. With tied weights they are one, "model.embed_tokens".
 * "keep": true leaves modules in the model's type (model/kept.h); such a rule has
 * no other key. A pattern that matches no module is an error, and so are modules that read the
 * same input (q, k and v; gate and up) with different methods, orders, strengths or dampings: they
 * share statistics. The modules of an expert have one rule.
 */
#ifndef SNRQ_RECIPE_H
#define SNRQ_RECIPE_H

#include <jansson.h>

#include "pipeline/rules.h"

/* Reads a file and checks its form. The caller releases *out. SNRQ_BAD_DATA names the rule and
 * the key. Not collective. */
snrq_status snrq_recipe_read(const char *path, json_t **out);

/* Gives the modules that the entries match their rules. `path`: for messages. SNRQ_USAGE if a
 * pattern matches nothing, has a value that its option does not take, or parts what is rounded
 * together. Not collective. */
snrq_status snrq_recipe_apply(const char *path, const json_t *recipe, const snrq_options *options,
                              const snrq_model *model, snrq_rules *rules);

/* out [SNRQ_MODULE_NAME + 2] <- the pattern for a module in all blocks, its name behind the number
 * of the block; of an expert, one for all of them. Not collective. */
void snrq_recipe_pattern(const snrq_family *family, int module, char *out);

/* How many different ones a step has. */
int snrq_recipe_patterns(const snrq_family *family, int step);

#endif
